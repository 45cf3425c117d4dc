"""What a picture carries so that it can be made again: the options of its command, and its files.

One JSON document stands in one text chunk of the file:

    {"format": 1, "software": "mezzotint 0.1.0", …,
     "options": {"prompt": "a fox", "seed": "7", "lora": ["ink.safetensors:0.8"], …},
     "files": [{"option": "model", "name": "fox.safetensors", "fingerprint": "sha256:…"}, …]}

``options`` are those of ``mezzotint generate`` as they are typed, ``true`` for one without a value
and ``false`` for one that is a --no-;
what else stands beside them says in words what was made, and is not read.  A sheet has the whole
documents of its pictures, ``{"format": 1, "software": …, "pictures": [{…}, …]}``.  Of a file there
is its name and a fingerprint, never where it was.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal, NamedTuple

from mezzotint.checkpoints.limits import parse, shown
from mezzotint.checkpoints.source import members
from mezzotint.modalities.image import read_text

CHUNK = "parameters"
FORMAT = 1
Document = dict[str, object]
Options = Mapping[str, str | list[str] | bool]
"""By the option's name without its dashes; several values are a list."""


Mark = Literal["noise", "pixels"]
"""Where a watermark is."""
MARKS: tuple[Mark, ...] = ("noise", "pixels")


class RecipeError(ValueError):
    """A file without a recipe, or with one that cannot be read; one line that names the file."""


class NoRecipeError(RecipeError):
    """There is no document of this program in a file."""


class OthersError(NoRecipeError):
    """There is what another program wrote in its place."""


class File(NamedTuple):
    """A file that went into a picture, by the option that named it."""

    option: str
    name: str
    fingerprint: str


@dataclass(frozen=True)
class Recipe:
    """How one picture is made.

    key: the id of the watermarks' key, None without watermarks; marks: where they are; without: why
    there is none in the pixels, though one was asked for.
    """

    options: Options
    files: tuple[File, ...]
    key: int | None = None
    marks: tuple[Mark, ...] = ()
    without: str | None = None


# --- files ------------------------------------------------------------------------------------

_WHOLE = 64 << 20  # bytes: up to here a file is read as a whole
_BLOCK, _BLOCKS = 4096, 256


def _sample(file: BinaryIO, size: int) -> hashlib._Hash:
    digest = hashlib.sha256(f"{size}\n".encode())
    for number in range(_BLOCKS):
        file.seek(number * (size - _BLOCK) // (_BLOCKS - 1))
        digest.update(file.read(_BLOCK))
    return digest


def _of_file(path: Path) -> str:
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size <= _WHOLE:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
        return f"sampled:{_sample(file, size).hexdigest()}"


def fingerprint(path: Path) -> str:
    """What tells a file, or a model's folder, from others, whatever it is called.

    ``sha256:`` of all bytes; of more than 64 MiB ``sampled:``, the SHA-256 of the size and of 256
    blocks of 4 KiB from the first to the last, evenly spaced: it tells models apart in
    milliseconds, and proves nothing against one who forges a file.  Of a folder, and of an index
    with its shards, ``files:``, the SHA-256 of the names and fingerprints of its files.

    Raises:
        OSError: a file cannot be read; CheckpointError: an index is damaged.
    """
    found = members(path)
    if found == [path]:
        return _of_file(path)
    root = path if path.is_dir() else path.parent
    lines = [f"{file.relative_to(root).as_posix()} {_of_file(file)}\n" for file in found]
    return f"files:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"


# --- the document -----------------------------------------------------------------------------


def document(recipe: Recipe, software: str, said: Mapping[str, Any]) -> Document:
    """The document of a picture.

    software: that made it, and its version; said: what was made, in words.
    """
    files = [file._asdict() for file in recipe.files]
    head: Document = {"format": FORMAT, "software": software}
    if recipe.key is not None:
        why = {} if recipe.without is None else {"without": recipe.without}
        head["marks"] = {"key": recipe.key, "in": list(recipe.marks), **why}
    return {**head, **said, "options": dict(recipe.options), "files": files}


def of_sheet(
    software: str, said: Mapping[str, Any], pictures: Sequence[Mapping[str, Any]]
) -> Document:
    """The document of a sheet, of those of its pictures in their order."""
    return {"format": FORMAT, "software": software, **said, "pictures": list(pictures)}


def text_of(made: Mapping[str, Any]) -> dict[str, str]:
    """A document as the text that goes into a file."""
    return {CHUNK: json.dumps(made)}


def digest(made: Mapping[str, Any]) -> str:
    """``sha256:`` of a document as JSON with sorted keys and without spaces."""
    text = json.dumps(made, sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(text.encode()).hexdigest()}"


_NOT_SHAPING = frozenset({"model", "credentials", "training", "commercial"})


def short_hash(recipe: Recipe) -> int:
    """48 bits that stand for a recipe in the watermark in the pixels.

    The first of the SHA-256 of what is known before there are pixels: the options, less those that
    are empty or do not change them, and the fingerprints of the files, as JSON with sorted keys
    and without spaces.  A model may be called otherwise; so its name is not in it.
    """
    options = {
        key: value
        for key, value in recipe.options.items()
        if key not in _NOT_SHAPING and value not in ("", [])
    }
    files = sorted([file.option, file.fingerprint] for file in recipe.files)
    text = json.dumps({"files": files, "options": options}, sort_keys=True, separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:6], "big")


def read(path: Path, pick: int | None = None) -> Recipe:
    """The recipe of a picture, or of picture ``pick`` of a sheet, counted from 1.

    Raises:
        ImageError: the file is no picture.
        RecipeError: there is no recipe in it, or none that this version reads; or there is no such
            picture on the sheet, or it must be said which.
    """
    found = opened(path)
    if "pictures" not in found:
        if pick not in (None, 1):
            raise RecipeError(f"{path}: is one picture, not a sheet: leave --pick {pick} out")
        return recipe_of(path, found)
    pictures = pictures_of(path, found)
    if pick is None and len(pictures) > 1:
        raise RecipeError(f"{path}: has {len(pictures)} pictures: choose one with --pick N, from 1")
    number = 1 if pick is None else pick
    if not 1 <= number <= len(pictures):
        raise RecipeError(f"{path}: has {len(pictures)} pictures: there is no --pick {number}")
    return recipe_of(path, pictures[number - 1])


def pictures_of(path: Path, found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The documents of the pictures on a sheet.

    Raises:
        RecipeError: they are damaged.
    """
    pictures = found.get("pictures")
    if not isinstance(pictures, list) or not pictures:
        raise _damaged(path, "pictures")
    if not all(isinstance(each, dict) for each in pictures):
        raise _damaged(path, "pictures")
    return pictures


def opened(path: Path) -> dict[str, Any]:
    """The document in a file, of a picture or of a sheet.

    Raises:
        ImageError: the file is no picture.
        NoRecipeError: there is none in it.
        RecipeError: none that this version reads.
    """
    return stated(path, read_text(path).get(CHUNK))


def stated(path: Path, text: str | None) -> dict[str, Any]:
    """The document that a file's text states; None: it has none.

    Raises:
        NoRecipeError, RecipeError: as :func:`opened`.
    """
    if text is None:
        raise NoRecipeError(
            f"{path}: carries no recipe: it is not from mezzotint, or was saved anew without it"
        )
    try:
        found = parse(text)
    except ValueError:
        raise OthersError(f"{path}: carries the {CHUNK} of another program: type them") from None
    if (version := found.get("format")) is None:
        raise NoRecipeError(
            f"{path}: carries no recipe: its {CHUNK} are of another program or of an older version"
        )
    if type(version) is not int or version > FORMAT:
        raise RecipeError(
            f"{path}: its recipe has format {shown(version)}, of {shown(found.get('software'))}; "
            f"this version reads {FORMAT}: update mezzotint"
        )
    return found


def _damaged(path: Path, what: str) -> RecipeError:
    return RecipeError(f"{path}: its recipe is damaged: {what} are not what a recipe has there")


def recipe_of(path: Path, found: Mapping[str, Any]) -> Recipe:
    """The recipe in the document of a picture.

    Raises:
        RecipeError: it is damaged.
    """
    options, files = found.get("options"), found.get("files")
    if not isinstance(options, dict) or not all(map(_is_value, options.values())):
        raise _damaged(path, "its options")
    if not isinstance(files, list):
        raise _damaged(path, "its files")
    read: list[File] = []
    for file in files:
        values = [file.get(key) for key in File._fields] if isinstance(file, dict) else []
        names = [value for value in values if isinstance(value, str) and value.isprintable()]
        if len(names) != len(File._fields):
            raise _damaged(path, "its files")
        read.append(File(*names))
    key, marks = _marks(path, found.get("marks"))
    # What says nothing of watermarks was made before there were any.
    return Recipe({"watermark": "none", **options}, tuple(read), key, marks)


def _marks(path: Path, said: object) -> tuple[int | None, tuple[Mark, ...]]:
    """The id of the watermarks' key, and where they are; at first there was only the noise."""
    if not isinstance(said, dict) or (key := said.get("key")) is None:
        return None, ()
    where = said.get("in", ["noise"])
    if type(key) is not int or not 0 <= key < 1 << 16 or not isinstance(where, list):
        raise _damaged(path, "its marks")
    return key, tuple(mark for mark in MARKS if mark in where)


def _is_value(value: object) -> bool:
    if isinstance(value, list):
        return all(isinstance(item, str) for item in value)
    return isinstance(value, str | bool)
