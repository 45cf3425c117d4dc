"""Pictures made of other pictures: cut out of one, or put together of several.

What they carry says so: from which files they come and by what was done, the licences of all that
went in, and no options, for none draw them.  A cut-out is made again from the file that it names;
a composite was put together by hand, and nothing makes it again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from PIL import Image

import mezzotint
from mezzotint.apps.making import SOFTWARE, Made
from mezzotint.apps.sealing import Signing, ingredient
from mezzotint.files import once_a_file
from mezzotint.modalities import image as pictures
from mezzotint.modalities.cutout import cutout
from mezzotint.modalities.image import ImageError
from mezzotint.provenance import recipe
from mezzotint.provenance.credentials import SourceType
from mezzotint.provenance.identity import Identity
from mezzotint.provenance.licences import UNKNOWN
from mezzotint.provenance.pixels import pixels_of
from mezzotint.provenance.recipe import COMPOSITE, CUTOUT, File, RecipeError, fingerprint
from mezzotint.provenance.surroundings import machine, versions
from mezzotint.provenance.terms import Licensed, as_row, parts_of

_SAME = ("prompt", "model", "seed")
"""What a cut-out has of the picture that it was cut out of."""
_TRAINED = b"trainedAlgorithmicMedia"
_WITH_TRAINED = b"compositeWithTrainedAlgorithmicMedia"


@once_a_file
def _document(path: Path) -> Mapping[str, Any]:
    """What a picture says of itself; of others' pictures nothing."""
    try:
        return recipe.opened(path)
    except RecipeError:
        return {}


def _parts(paths: Iterable[Path]) -> list[Licensed]:
    found = (part for path in paths for part in parts_of(_document(path)))
    return list(dict.fromkeys(found))


def _licence(parts: Sequence[Licensed]) -> str:
    """Of all models that drew parts of a picture, each once."""
    drew = dict.fromkeys(part.record.said for part in parts if part.what == "model")
    return "; ".join(drew) or UNKNOWN


def _made(
    image: Image.Image,
    words: Mapping[str, Any],
    what: str,
    source: SourceType,
    files: Sequence[File],
    parts: Sequence[Licensed],
) -> Made:
    document: recipe.Document = {
        "format": recipe.FORMAT,
        "software": SOFTWARE,
        "derived": what,
        **words,
        "source": source,
        "files": [file._asdict() for file in files],
        "licences": [as_row(part) for part in parts],
        "versions": versions(mezzotint.__version__),
        "machine": machine(torch.device("cpu")),
        "pixels": pixels_of(image),
    }
    seed, model = words.get("seed"), str(words.get("model", ""))
    seed = seed if isinstance(seed, int) else 0
    return Made(image, seed, document, model, _licence(parts), what == CUTOUT)


# --- cutting out ------------------------------------------------------------------------------


def cut(path: Path) -> Made:
    """The picture in a file without its ground.

    Raises:
        ImageError: it is none, is transparent already, or shows nothing but its ground.
    """
    try:
        image = cutout(pictures.open_image(path))
    except ImageError as error:
        told = str(error).removeprefix(f"{path}: ")
        raise ImageError(f"{path}: {told}") from error
    before = _document(path)
    words: dict[str, Any] = {key: before[key] for key in _SAME if key in before}
    marks = before.get("marks")
    if isinstance(marks, dict) and "pixels" in marks.get("in", ()):  # the one in the noise is lost
        words["marks"] = {**marks, "in": ["pixels"]}
    files = (File("cutout", path.name, fingerprint(path)),)
    return _made(image, words, CUTOUT, _source_of_one(path), files, _parts([path]))


def _source_of_one(path: Path) -> SourceType:
    """What kind of picture a cut-out is: that which the whole was."""
    data = path.read_bytes()
    if _WITH_TRAINED in data:
        return "compositeWithTrainedAlgorithmicMedia"
    return "trainedAlgorithmicMedia" if _TRAINED in data else "algorithmicallyEnhanced"


def signing_cut(path: Path, identity: Identity) -> Signing:
    """How a cut-out is signed: an edit of the picture that it was cut out of."""
    return Signing(identity, (ingredient(path, "parentOf"),), _training([path]))


def _training(paths: Iterable[Path]) -> Any:
    """Whether it may be trained on: only if all that went in may."""
    options = [_document(path).get("options") for path in paths]
    free = [isinstance(each, dict) and each.get("training") == "allowed" for each in options]
    return "allowed" if free and all(free) else "notAllowed"


# --- putting together -------------------------------------------------------------------------


class Layer(NamedTuple):
    """A picture of which there is something in another one, and what it is called there."""

    path: Path
    name: str


def composed(path: Path, name: str, layers: Sequence[Layer], lost: int = 0) -> Made:
    """A picture that somebody has put together.

    Args:
        path: its pixels.
        name: what it is called.
        layers: the pictures of which there is something in it.
        lost: pictures of which there is something in it, and that are not here any more.

    Raises:
        ImageError: there is none in the file.
    """
    image, parts = pictures.open_image(path), [layer.path for layer in layers]
    licensed = _parts(parts)
    drew = dict.fromkeys(str(_document(part).get("model", "")) for part in parts)
    models = ", ".join(each for each in drew if each)
    words: dict[str, Any] = {"prompt": name, **({"model": models} if models else {})}
    if lost:
        words["lost"] = lost
    files = [File("layer", layer.name, fingerprint(layer.path)) for layer in layers]
    return _made(image, words, COMPOSITE, _source_of_many(parts, lost), files, licensed)


def _source_of_many(parts: Sequence[Path], lost: int) -> SourceType:
    if not parts and not lost:
        return "digitalCreation"
    if lost or any(_TRAINED[1:] in part.read_bytes() for part in parts):
        return "compositeWithTrainedAlgorithmicMedia"
    return "composite"


def signing_composed(layers: Sequence[Layer], identity: Identity) -> Signing:
    """How a composite is signed: made anew, with its parts placed in it."""
    inputs = (ingredient(each.path, "componentOf")._replace(title=each.name) for each in layers)
    return Signing(identity, tuple(inputs), _training(layer.path for layer in layers))
