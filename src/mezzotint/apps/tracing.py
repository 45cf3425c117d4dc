"""A picture as an SVG: its areas traced as curves, with its recipe."""

from __future__ import annotations

import io
import json
import re
from importlib import import_module
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, unescape

from PIL import Image

from mezzotint.apps.errors import UsageError
from mezzotint.modalities import image as pictures
from mezzotint.provenance import recipe

MIME = "image/svg+xml"
_OPENS = '<recipe xmlns="urn:mezzotint:recipe">'
_LEAST = 512
"""Pixels of the shorter edge when it is traced: of fewer the curves are steps."""


def traced(path: Path) -> bytes:
    """The SVG of a picture that was made here, its recipe in a `<metadata>`.

    Raises:
        UsageError: the extra that traces is not installed.
        ImageError, RecipeError: the file is none that was made here.
    """
    document = recipe.opened(path)
    head, tag, rest = drawn(pictures.open_image(path)).partition("<svg")
    opening, end, body = rest.partition(">")
    said = f"<metadata>{_OPENS}{escape(json.dumps(document))}</recipe></metadata>"
    return f"{head}{tag}{opening}{end}\n{said}{body}".encode()


def drawn(image: Image.Image) -> str:
    """A picture as curves: the same pixels give the same text.

    Raises:
        UsageError: the extra that traces is not installed.
    """
    try:
        vtracer = import_module("vtracer")
    except ModuleNotFoundError:
        raise UsageError("SVG needs vtracer: pip install 'mezzotint[svg]'") from None
    factor = max(1, -(-_LEAST // min(image.size)))
    large = image.convert("RGBA").resize((image.width * factor, image.height * factor))
    given = io.BytesIO()
    large.save(given, "PNG")
    return vtracer.convert_raw_image_to_svg(
        given.getvalue(),
        img_format="png",
        mode="spline",
        color_precision=6,
        layer_difference=12,
        filter_speckle=4 * factor,
    )


def is_svg(path: Path) -> bool:
    """Whether a file is an SVG, by how it begins."""
    try:
        with path.open("rb") as file:
            return file.read(256).lstrip()[:4] in (b"<?xm", b"<svg")
    except OSError:
        return False


def stated(path: Path) -> dict[str, Any]:
    """The recipe in an SVG; it is sought as text, for an XML reader would do what the file says.

    Raises:
        NoRecipeError, RecipeError: there is none that this version reads.
    """
    _, _, rest = path.read_text("utf-8", "replace").partition(_OPENS)
    text, closes, _ = rest.partition("</recipe>")
    return recipe.stated(path, unescape(text) if closes else None)


def curves(svg: str) -> list[str]:
    """What is to be seen in an SVG of ours: its size, and its paths in their order."""
    opening = re.search(r"<svg[^>]*>", svg)
    size = re.findall(r'\b(?:width|height|viewBox)="[^"]*"', opening[0] if opening else "")
    body = re.sub(r"<metadata\b.*?</metadata>|<\?.*?\?>|<!--.*?-->", "", svg, flags=re.DOTALL)
    return [*size, *re.findall(r"<(?!/?svg\b)[^>]*>", body)]
