"""A picture becomes a file: with its recipe, and signed."""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import NamedTuple, TypeVar, get_args

import mezzotint
from mezzotint.apps.edits import Held
from mezzotint.apps.making import SOFTWARE, Made
from mezzotint.files import atomic_write
from mezzotint.modalities import image as pictures
from mezzotint.modalities import metadata
from mezzotint.modalities.metadata import Said
from mezzotint.provenance import credentials, recipe
from mezzotint.provenance.credentials import Claim, Ingredient, Relation
from mezzotint.provenance.identity import Identity, configured
from mezzotint.provenance.licences import UNKNOWN
from mezzotint.provenance.pixels import difference

T = TypeVar("T")

MIMES = {kind: f"image/{kind.lower()}" for kind in ("PNG", "JPEG", "WEBP", "TIFF")} | {
    "SVG": "image/svg+xml"
}

_COMPOSITE: credentials.SourceType = "compositeWithTrainedAlgorithmicMedia"
_GENERATED: credentials.SourceType = "trainedAlgorithmicMedia"


class Signing(NamedTuple):
    """Who signs, what went into the pictures, and whether they may be trained on."""

    identity: Identity
    inputs: tuple[Ingredient, ...]
    training: credentials.Use


def signing(args: argparse.Namespace) -> Signing | None:
    """How the pictures of a command line are signed, made sure of before any work; None: not.

    Raises:
        IdentityError, CredentialsError, OSError: there is no key, or an input's own credentials
            are damaged.
    """
    if not args.credentials:
        return None
    identity, inputs = configured(), tuple(_inputs(args))
    for each in inputs:
        _apart(partial(credentials.check, each, identity))
    return Signing(identity, inputs, args.training)


def _inputs(args: argparse.Namespace) -> Iterator[Ingredient]:
    """The pictures that a command line names: the one that is edited, and those that lead."""
    if args.image is not None:
        yield ingredient(args.image, "parentOf")
    leading = [args.mask, args.reference, *(path for path, _ in args.image_prompt)]
    leading += [wanted.picture for wanted in args.control]
    for source in leading:
        if source is not None:
            yield ingredient(source, "inputTo")


def ingredient(source: str | Path, relation: Relation) -> Ingredient:
    """A picture as it goes into the credentials of another one.

    Raises:
        ImageError: it is none.
    """
    if isinstance(source, Held):
        data = io.BytesIO()
        source.image.save(data, "PNG")
        return Ingredient(data.getvalue(), MIMES["PNG"], "picture.png", relation)
    path = Path(source)
    pictures.open_image(path)  # says what is wrong with it
    mime = f"image/{str(pictures.kind_of(path)).lower()}"
    return Ingredient(path.read_bytes(), mime, path.name, relation)


def _source(made: Made) -> credentials.SourceType:
    """IPTC's digital source type of a picture; what was made of others says it."""
    said = made.document.get("source") if recipe.derived(made.document) else None
    known = next((each for each in get_args(credentials.SourceType) if each == said), None)
    return known or (_COMPOSITE if made.edited else _GENERATED)


def _embedded(data: bytes, kind: str, made: Made, document: recipe.Document) -> bytes:
    """A file with a picture's document, and in words that other programs know what it is."""
    said = Said(SOFTWARE, credentials.SOURCE_TYPE + _source(made))
    return metadata.embed(data, kind, json.dumps(document), said)


def _claim(made: Made, hashed: str, title: str, how: Signing) -> Claim:
    return Claim(
        title=title,
        action="edited" if made.edited else "created",
        source=_source(made),
        software="mezzotint",
        version=mezzotint.__version__,
        model=made.model,
        licence=made.licence,
        recipe=hashed,
        training=how.training,
        ingredients=how.inputs,
        when=datetime.now(UTC),
    )


def _stored(made: Made, data: bytes, kind: str) -> recipe.Document:
    """The document of a picture that is stored with loss, with how far that is from what was
    made."""
    there = pictures.decode(data)
    apart = difference(there, pictures.seen(made.image, kind).convert(there.mode))
    said = made.document.get("pixels")
    known = said if isinstance(said, dict) else {}
    psnr = apart.as_data()["psnr"]
    stored = {"largest": apart.largest, "psnr": None if psnr is None else round(psnr, 2)}
    return {**made.document, "pixels": {**known, "stored": stored}}


def _apart(work: Callable[[], T]) -> T:
    """The result of work in a thread of its own.

    The library that signs calls back into Python, and an interruption that comes while it does is
    lost; in the main thread, which waits, it is not.
    """
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(work).result()


def sealed(
    made: Made, kind: str, title: str, how: Signing | None, quality: int | None = None
) -> tuple[bytes, recipe.Document]:
    """The bytes of a picture's file with all that it has to carry, and its recipe.

    kind: Pillow's name of the format; title: what its credentials call it; quality: of a JPEG or
    WebP that is stored with loss, 0 to 100.

    Raises:
        MetadataError: the recipe does not fit into the file.
        CredentialsError: it cannot be signed.
    """
    data = pictures.encode(made.image, kind, quality=quality)
    lossy = kind == "JPEG" or quality is not None
    document = _stored(made, data, kind) if lossy else made.document
    data = _embedded(data, kind, made, document)
    if how is not None:
        claim = _claim(made, recipe.digest(document), title, how)
        data = _apart(partial(credentials.sign, data, MIMES[kind], claim, how.identity))
    return data, document


def write(made: Made, path: Path, how: Signing | None, beside: bool = False) -> None:
    """Write a picture whole: no file has the name without what it has to carry.

    beside: write its recipe into a file of its own too, ``fox.png.json``.

    Raises:
        MetadataError, CredentialsError: as :func:`sealed`.
        WriteError: the file cannot be written.
    """
    data, document = sealed(made, pictures.writable_format(path), path.name, how)
    if beside:
        with atomic_write(path.with_name(f"{path.name}.json")) as file:
            file.write((json.dumps(document, indent=1) + "\n").encode())
    with atomic_write(path) as file:
        file.write(data)


def _drawn(made: Made) -> tuple[bytes, recipe.Document]:
    """The SVG of a picture with its recipe, in which no mark is said to be: it has no pixels."""
    from mezzotint.apps.tracing import traced

    document = {name: value for name, value in made.document.items() if name != "marks"}
    return _embedded(traced(made.image), "SVG", made, document), document


def converted(path: Path, kind: str, title: str, identity: Identity) -> tuple[bytes, str]:
    """A picture that was made here in another format, with all that it has to carry; and its type.

    Its recipe is as it was, the watermarks in its pixels stay, and its new credentials name the
    file that it was as what it comes from; a file that was not signed is not signed now.

    Args:
        kind: Pillow's name of the format, or SVG.

    Raises:
        ImageError, RecipeError: the file is none that was made here.
        MetadataError, CredentialsError: as :func:`sealed`.
    """
    document = recipe.opened(path)
    options = {} if recipe.derived(document) else recipe.recipe_of(path, document).options
    licences = document.get("licences")
    weights = licences if isinstance(licences, list) else []
    terms = [str(each.get("licence")) for each in weights if each.get("option") == "model"]
    made = Made(
        image=pictures.open_image(path),
        seed=int(str(options.get("seed", 0))),
        document=document,
        model=str(document.get("model", "")),
        licence="; ".join(dict.fromkeys(terms)) or UNKNOWN,
        edited="image" in options,
    )
    data, stated = _drawn(made) if kind == "SVG" else sealed(made, kind, title, None)
    mime = MIMES[kind]
    if options.get("credentials") is False:
        return data, mime
    training: credentials.Use = "allowed" if options.get("training") == "allowed" else "notAllowed"
    kind = str(pictures.kind_of(path)).lower()
    parent = Ingredient(path.read_bytes(), f"image/{kind}", path.name, "parentOf")
    claim = _claim(made, recipe.digest(stated), title, Signing(identity, (parent,), training))
    claim = replace(claim, action="edited")  # as C2PA has it: a parent was opened
    return _apart(partial(credentials.sign, data, mime, claim, identity)), mime
