"""A picture as an SVG: its areas traced as curves, with its recipe."""

from __future__ import annotations

import io
import json
from importlib import import_module
from pathlib import Path
from xml.sax.saxutils import escape

from mezzotint.apps.errors import UsageError
from mezzotint.modalities import image as pictures
from mezzotint.provenance import recipe

MIME = "image/svg+xml"
_SPACE = "urn:mezzotint:recipe"
_LEAST = 512
"""Pixels of the shorter edge when it is traced: of fewer the curves are steps."""


def traced(path: Path) -> bytes:
    """The SVG of a picture that was made here, its recipe in a `<metadata>`.

    Raises:
        UsageError: the extra that traces is not installed.
        ImageError, RecipeError: the file is none that was made here.
    """
    try:
        vtracer = import_module("vtracer")
    except ModuleNotFoundError:
        raise UsageError("SVG needs vtracer: pip install 'mezzotint[svg]'") from None
    document = recipe.opened(path)
    image = pictures.open_image(path).convert("RGBA")
    factor = max(1, -(-_LEAST // min(image.size)))
    large = image.resize((image.width * factor, image.height * factor))
    given = io.BytesIO()
    large.save(given, "PNG")
    drawn = vtracer.convert_raw_image_to_svg(
        given.getvalue(),
        img_format="png",
        mode="spline",
        color_precision=6,
        layer_difference=12,
        filter_speckle=4 * factor,
    )
    head, tag, rest = drawn.partition("<svg")
    opening, end, body = rest.partition(">")
    said = f'<metadata><recipe xmlns="{_SPACE}">{escape(json.dumps(document))}</recipe></metadata>'
    return f"{head}{tag}{opening}{end}\n{said}{body}".encode()
