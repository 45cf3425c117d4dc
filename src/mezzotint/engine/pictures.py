"""The data set as the trainer reads it: one memory-mapped file of decoded pictures or of latents.

A cache is a plain ``.npy`` file, written under another name and renamed when it is whole, so a
cache that exists is complete.  Its name holds a hash of all that it was made from.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mezzotint.checkpoints.files import CheckpointError, load, load_into, save
from mezzotint.engine.config import DataConfig
from mezzotint.families.native import CHANNELS
from mezzotint.files import WriteError
from mezzotint.modalities.dataset import Dataset
from mezzotint.networks.autoencoder import Autoencoder, AutoencoderConfig

Note = Callable[[str], None]
KEY = "mezzotint-autoencoder"
_BATCH = 32  # pictures encoded at once; part of what the latents' bits depend on


# --- names of data ----------------------------------------------------------------------------


def fingerprint(dataset: Dataset) -> str:
    """A hash of what is learnt from: names, captions, labels and weights, in their order."""
    rows = [[i.name, i.captions, i.label, i.weight] for i in dataset.items]
    return hashlib.sha256(json.dumps([dataset.channels, rows]).encode()).hexdigest()


def _cache_key(data: DataConfig, dataset: Dataset, kind: str) -> str:
    """A hash of what a cache is made from: the files, by size and time, and what is done."""
    lines = [kind, str(data.size), data.channels, data.source]
    source = Path(data.source)
    whole = source.stat()
    lines.append(f"{whole.st_size} {whole.st_mtime_ns}" if source.is_file() else "")
    for item in dataset.items:
        lines.append(item.name)
        if source.is_dir():
            status = (source / item.name).stat()
            lines.append(f"{status.st_size} {status.st_mtime_ns}")
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]


# --- caches -----------------------------------------------------------------------------------


def write_cache(
    path: Path,
    shape: tuple[int, ...],
    dtype: type[np.generic],
    parts: Iterable[np.ndarray[Any, Any]],
    note: Note,
) -> None:
    """``parts`` one after the other into a new file, which takes its name when it is whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{secrets.token_hex(4)}.part")
    try:
        room = os.statvfs(path.parent) if hasattr(os, "statvfs") else None
        needed = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if room is not None and room.f_bavail * room.f_frsize < needed:
            # A full disk under a memory map is a crash (SIGBUS), not an error.
            raise WriteError(
                f"cannot write {path}: it needs {needed / 1e9:.2f} GB: free some space, or set "
                "data.cache_folder to a folder on another disk"
            )
        array = np.lib.format.open_memmap(part, mode="w+", dtype=dtype, shape=shape)
        done, kind = 0, path.name.partition("-")[0]
        for number, rows in enumerate(parts):
            array[done : done + len(rows)] = rows
            done += len(rows)
            if number % 100 == 0:
                note(f"caching {kind}: {done / shape[0]:.0%}")
        assert done == shape[0]
        array.flush()
        del array
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        with suppress(FileNotFoundError):
            part.unlink()


def open_cache(path: Path, shape: tuple[int, ...], dtype: type[np.generic]) -> Tensor:
    array = np.load(path, mmap_mode="c")  # copy on write: nobody writes, torch wants it writable
    if array.shape != shape or array.dtype != dtype:
        raise CheckpointError(f"{path}: is not the cache it should be: delete it and start again")
    return torch.from_numpy(array)


def _batches(count: int) -> list[range]:
    return [range(start, min(start + _BATCH, count)) for start in range(0, count, _BATCH)]


def picture_bytes(dataset: Dataset, index: int, size: int) -> Tensor:
    """A picture as ``(C, size, size)`` uint8: what 8-bit files hold, at half the error of one."""
    picture = dataset.picture(index, size)
    return ((picture + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)


def to_float(pictures: Tensor) -> Tensor:
    """uint8 to float32 in [−1, 1]."""
    return pictures.float() / 127.5 - 1


Reader = Callable[[Sequence[int]], Tensor]
"""Item numbers → ``(B, …)``, a new tensor."""


def pictures(
    data: DataConfig, dataset: Dataset, folder: Path, writes: bool, note: Note
) -> tuple[Reader, Callable[[], Reader]]:
    """How to read pictures: now, from their files, and (called later) from the cache.

    The cache is built by the process that ``writes``; the others call when it is there.
    """

    def read(indices: Sequence[int]) -> Tensor:
        return torch.stack([picture_bytes(dataset, index, data.size) for index in indices])

    def cached() -> Reader:
        if not data.cache:
            return read
        shape = (len(dataset.items), CHANNELS[data.channels], data.size, data.size)
        path = folder / f"pictures-{_cache_key(data, dataset, 'pictures')}.npy"
        if not path.exists() and writes:
            parts = (read(batch).numpy() for batch in _batches(shape[0]))
            write_cache(path, shape, np.uint8, parts, note)
        array = open_cache(path, shape, np.uint8)
        return lambda indices: array[torch.as_tensor(list(indices))]

    return read, cached


def latents(
    data: DataConfig,
    dataset: Dataset,
    read: Reader,
    autoencoder: Autoencoder,
    identity: str,
    folder: Path,
    writes: bool,
    note: Note,
) -> Tensor:
    """All latent means ``(N, V, C, h, w)`` float16, memory-mapped; V: as is, and mirrored.

    Args:
        read: uint8 pictures by number.
        identity: names the autoencoder's weights, such as their hash.
    """
    variants, edge = (2 if data.flip else 1), data.size // autoencoder.config.stride
    shape = (len(dataset.items), variants, autoencoder.config.latent_channels, edge, edge)
    kind = f"latents {identity} {variants}"
    path = folder / f"latents-{_cache_key(data, dataset, kind)}.npy"

    def rows(batch: range) -> np.ndarray[Any, Any]:
        media = to_float(read(batch))
        views = [media, media.flip(-1)][:variants]
        means = [autoencoder.encode(view)[0] for view in views]
        return torch.stack(means, dim=1).half().numpy()

    if not path.exists() and writes:
        with torch.no_grad():
            write_cache(path, shape, np.float16, map(rows, _batches(shape[0])), note)
    return open_cache(path, shape, np.float16)


def code_spread(read: Reader, count: int, autoencoder: Autoencoder, most: int = 1024) -> Tensor:
    """Standard deviation ``(C,)`` of each channel of the codes, over evenly spaced items."""
    items = list(range(0, count, -(-count // most)))
    with torch.no_grad():
        codes = [
            autoencoder.encode(to_float(read([items[n] for n in batch])))[0]
            for batch in _batches(len(items))
        ]
    return latent_statistics(torch.cat(codes)[:, None])[1].float()


def latent_statistics(stored: Tensor, most: int = 4096) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation ``(C,)`` of each latent channel, over evenly spaced items."""
    step = -(-len(stored) // most)
    channels = stored[::step].double().transpose(0, 2).flatten(1)  # (C, everything else)
    return channels.mean(1), channels.std(1).clamp_min(1e-6)


# --- the file of an autoencoder ---------------------------------------------------------------


def save_autoencoder(
    path: Path, config: AutoencoderConfig, state: dict[str, Tensor], notes: dict[str, str]
) -> None:
    """Write an autoencoder's file, atomically; ``notes`` say how it was made."""
    save(path, state, {KEY: json.dumps({"format": 1, "config": asdict(config), "notes": notes})})


def load_autoencoder(path: Path) -> tuple[Autoencoder, str]:
    """An autoencoder from its file, for use, and a hash of its weights.

    Raises:
        CheckpointError: the file is damaged, is no autoencoder's, or does not fit its description.
    """
    state, metadata = load(path)
    if KEY not in metadata:
        raise CheckpointError(
            f"{path}: not an autoencoder's file: model.latent names the model.safetensors of a run "
            "with [autoencoder]"
        )
    values = json.loads(metadata[KEY])["config"]
    values["multipliers"] = tuple(values["multipliers"])
    network = Autoencoder(AutoencoderConfig(**values))
    load_into(network, state, str(path))
    digest = hashlib.sha256()
    for name in sorted(state):
        digest.update(name.encode() + state[name].contiguous().view(torch.uint8).numpy().tobytes())
    return network.eval().requires_grad_(False), digest.hexdigest()[:16]
