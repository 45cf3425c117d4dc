"""One way into every kind of file of weights: described without reading one, read when asked for.

Known are safetensors files, whole or in shards with an index, GGUF, PyTorch's pickles (through the
reader that executes nothing) and the folders of `diffusers`.
"""

from __future__ import annotations

import math
import mmap
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from mezzotint.checkpoints import files
from mezzotint.checkpoints.files import CheckpointError, nearest
from mezzotint.checkpoints.gguf import MAGIC, Packed, load_gguf, read_gguf_header
from mezzotint.checkpoints.limits import MAX_TENSORS, parse, shown
from mezzotint.checkpoints.pickles import is_pickle, load_pickle

_INDEX = re.compile(r"\.index(\.\w+)?\.json$")  # model.safetensors.index.json, ….index.fp16.json
_MAX_JSON = 4 << 20  # bytes; the longest honest index has 1 MB
_MAX_PART, _MAX_PARTS = 64, 64  # letters of a part's name in a folder, and number of parts
_MAX_FILE = 255  # letters of a file's name, as file systems have it


@dataclass(frozen=True)
class Entry:
    """One tensor: its type as the file calls it ("F16", "Q8_0"), its shape as torch has it."""

    dtype: str
    shape: tuple[int, ...]

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Listing:
    """What is in a file (or in all shards of one).

    format: "safetensors", "safetensors in 3 shards", "GGUF", "PyTorch pickle"
    tensors: by name, in the file's order; metadata: the file's own text fields
    size: in bytes
    """

    path: Path
    format: str
    tensors: dict[str, Entry]
    metadata: dict[str, str]
    size: int


def describe(path: str | os.PathLike[str]) -> Listing:
    """List the tensors of a file; no weight is read, nothing is executed.

    Raises:
        CheckpointError: it is missing, damaged, or of no kind known here.
    """
    path = Path(path)
    if _INDEX.search(path.name):
        return _describe_shards(path)
    start = files.read_start(path)
    if start.startswith(MAGIC):
        found = read_gguf_header(path)
        entries = {name: Entry(e.kind, e.shape) for name, e in found.tensors.items()}
        said = {key: value for key, value in found.metadata.items() if isinstance(value, str)}
        return Listing(path, "GGUF", entries, said, found.size)
    if is_pickle(path, start):
        tensors = load_pickle(path)
        entries = {n: Entry(files.NAMES[t.dtype], tuple(t.shape)) for n, t in tensors.items()}
        return Listing(path, "PyTorch pickle", entries, {}, path.stat().st_size)
    header = files.read_header(path)
    entries = {name: Entry(e.dtype, e.shape) for name, e in header.tensors.items()}
    return Listing(path, "safetensors", entries, header.metadata, header.size)


def read(path: str | os.PathLike[str]) -> dict[str, Tensor | Packed]:
    """The tensors of a file, mapped from the disk into memory: a page is read when first touched.

    Raises:
        CheckpointError: as :func:`describe`, or torch lacks the type of a tensor.
    """
    return read_mapped(path)[0]


def read_mapped(
    path: str | os.PathLike[str],
) -> tuple[dict[str, Tensor | Packed], tuple[mmap.mmap, ...]]:
    """The tensors of a file, and the files that they are mapped from.

    Raises:
        CheckpointError: as :func:`describe`, or torch lacks the type of a tensor.
    """
    path = Path(path)
    if _INDEX.search(path.name):
        _describe_shards(path)  # checks that index and shards agree
        found: dict[str, Tensor | Packed] = {}
        maps: tuple[mmap.mmap, ...] = ()
        for shard in _shards(path, _weight_map(path)):
            tensors, mapped = read_mapped(shard)
            found |= tensors
            maps += mapped
        return found, maps
    start = files.read_start(path)
    data = files.map_file(path)
    if start.startswith(MAGIC):
        return load_gguf(path, data)[0], (data,)
    if is_pickle(path, start):
        return dict(load_pickle(path, data)), (data,)
    return dict(files.load(path, data)[0]), (data,)


# --- shards -----------------------------------------------------------------------------------


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object from a file.

    Raises:
        CheckpointError: it is missing, too long, or holds no JSON object.
    """
    files.read_start(path)
    if path.stat().st_size > _MAX_JSON:
        raise CheckpointError(f"{path}: {path.stat().st_size} bytes are too many for a description")
    try:
        return parse(path.read_bytes())
    except ValueError as error:
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path}: is not valid JSON: {reason}") from None


def within(folder: Path, path: Path) -> Path:
    """The path of a file of a folder, which must not lead out of it.

    A folder is somebody's; a link in it could stand for any file of yours.  The cache of Hugging
    Face keeps a snapshot's files as links into the ``blobs`` beside it, and they may lead there.

    Raises:
        CheckpointError: it is a link out of the folder.
    """
    try:
        root, target = folder.resolve(), path.resolve()
    except (OSError, RuntimeError):  # which of the two depends on Python
        raise CheckpointError(f"{path}: is a link to itself") from None
    homes = [root, *(p.parent / "blobs" for p in root.parents if p.name == "snapshots")]
    if any(target.is_relative_to(home) for home in homes):
        return path
    raise CheckpointError(f"{path}: is a link out of its folder: put the file itself there")


def _weight_map(path: Path) -> dict[str, str]:
    """Tensor → shard, of an index; shards lie beside it."""
    found = read_json(path).get("weight_map")
    if not isinstance(found, dict) or not found:
        raise CheckpointError(f"{path}: has no weight_map: it is no index of shards")
    if len(found) > MAX_TENSORS:
        raise CheckpointError(f"{path}: {len(found)} tensors are more than {MAX_TENSORS}")
    for name, shard in found.items():
        where = shown(shard)
        if not isinstance(shard, str) or not shard.isprintable() or shard != Path(shard).name:
            raise CheckpointError(f"{path}: places {shown(name)} outside its folder, in {where}")
        if not shard or _INDEX.search(shard) or len(shard) > _MAX_FILE:
            raise CheckpointError(f"{path}: places {shown(name)} in {where}, no file of weights")
    return found


def _shards(path: Path, places: Mapping[str, str]) -> list[Path]:
    shards = dict.fromkeys(places.values())
    return [within(path.parent, path.parent / shard) for shard in shards]


def _describe_shards(path: Path) -> Listing:
    places = _weight_map(path)
    listings = [describe(shard) for shard in _shards(path, places)]
    if len(formats := {listing.format for listing in listings}) > 1:
        raise CheckpointError(f"{path}: its shards are of several formats, {', '.join(formats)}")
    tensors: dict[str, Entry] = {}
    for listing in listings:
        for name, entry in listing.tensors.items():
            if places.get(name) != listing.path.name:
                raise CheckpointError(f"{listing.path}: holds {name!r}, its index says otherwise")
            tensors[name] = entry
    if lacking := [name for name in places if name not in tensors]:
        raise CheckpointError(
            f"{path}: {len(lacking)} tensors are not in their shards, "
            f"the first is {shown(lacking[0])}"
        )
    return Listing(
        path,
        f"{listings[0].format} in {len(listings)} shards",
        tensors,
        {key: value for listing in listings for key, value in listing.metadata.items()},
        sum(listing.size for listing in listings),
    )


# --- folders of diffusers ---------------------------------------------------------------------

MODEL_INDEX = "model_index.json"
_DESCRIPTIONS = (
    "config.json",  # of a network
    "scheduler_config.json",
    "tokenizer_config.json",
    "preprocessor_config.json",
)
_STEMS = ("diffusion_pytorch_model", "model", "pytorch_model")
_ENDS = (".safetensors", ".safetensors.index.json", ".bin", ".bin.index.json")
_VARIANTS = (".*.safetensors", ".safetensors.index.*.json", ".*.bin", ".bin.index.*.json")


@dataclass(frozen=True)
class Folder:
    """A model as `diffusers` stores it.

    kind: the pipeline's class, such as "StableDiffusionPipeline"
    configs: what each part says of itself, by the part's name ("unet", "scheduler", …)
    networks: those parts that have weights
    lacking: parts that the index names and the folder lacks
    """

    path: Path
    kind: str
    configs: dict[str, dict[str, Any]]
    networks: tuple[str, ...]
    lacking: tuple[str, ...]

    def weights(self, part: str) -> Path:
        """The file (or the index of the shards) with a part's weights.

        Raises:
            CheckpointError: there is no such part, no file in it, or several variants of one.
        """
        if part not in self.networks:
            near = nearest(part, self.networks)
            raise CheckpointError(f"{self.path}: has no network {part!r}{near}")
        return within(self.path, weights_in(self.path / part))


def weights_in(folder: Path) -> Path:
    """The file with the weights of one part: the plain one, or the only variant.

    Raises:
        CheckpointError: there is none, or there are several variants: which, it cannot know.
    """
    for stem in _STEMS:
        for end in _ENDS:
            if (path := folder / f"{stem}{end}").exists():
                return path
    variants = sorted(
        path
        for stem in _STEMS
        for end in _VARIANTS
        for path in folder.glob(stem + end)
        if "-of-" not in path.name  # a shard, of which an index speaks
    )
    if len(variants) == 1:
        return variants[0]
    if not variants:
        raise CheckpointError(f"{folder}: there is no file of weights in it: fetch it again")
    names = ", ".join(path.name for path in variants)
    raise CheckpointError(f"{folder}: holds several variants ({names}): leave one of them there")


def one_file(path: Path) -> Path:
    """The weights of a folder that holds one network alone; any other path as it is.

    Raises:
        CheckpointError: there are none in it, or several variants.
    """
    alone = (path / _DESCRIPTIONS[0]).is_file() and not (path / MODEL_INDEX).exists()
    return within(path, weights_in(path)) if alone else path


_READ = (".safetensors", ".bin", ".json", ".txt", ".model")


def members(path: Path) -> list[Path]:
    """The files that a path stands for: those of a folder and of its parts that are read, or an
    index and its shards, or itself.

    Raises:
        CheckpointError: an index is damaged.
    """
    if path.is_dir():
        found = (file for pattern in ("*", "*/*") for file in path.glob(pattern))
        return sorted(file for file in found if file.suffix in _READ and file.is_file())
    if _INDEX.search(path.name):
        return [path, *_shards(path, _weight_map(path))]
    return [path]


def open_folder(path: str | os.PathLike[str]) -> Folder:
    """A folder with a ``model_index.json``, and what its parts say of themselves.

    Raises:
        CheckpointError: it is no such folder, or a description is damaged.
    """
    path = Path(path)
    if not (path / MODEL_INDEX).exists():
        raise CheckpointError(
            f"{path}: a folder without {MODEL_INDEX}: give a whole pipeline's folder, or a file"
        )
    index = read_json(within(path, path / MODEL_INDEX))
    kind = index.get("_class_name")
    if not isinstance(kind, str) or not kind.isidentifier():
        raise CheckpointError(f"{path / MODEL_INDEX}: does not say which pipeline it is")
    configs: dict[str, dict[str, Any]] = {}
    networks: list[str] = []
    lacking: list[str] = []
    if len(index) > _MAX_PARTS:
        raise CheckpointError(f"{path / MODEL_INDEX}: {len(index)} parts are too many")
    for part, made_by in index.items():
        if part.startswith("_") or not isinstance(made_by, list) or None in made_by:
            continue
        if not part.isidentifier() or len(part) > _MAX_PART:
            raise CheckpointError(
                f"{path / MODEL_INDEX}: has a part with the odd name {shown(part)}"
            )
        name = next((name for name in _DESCRIPTIONS if (path / part / name).is_file()), None)
        if name is None:
            lacking.append(part)
            continue
        configs[part] = read_json(within(path, path / part / name))
        if name == _DESCRIPTIONS[0]:
            networks.append(part)
    return Folder(path, kind, configs, tuple(networks), tuple(lacking))
