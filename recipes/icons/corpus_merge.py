"""Two ways in which things are the same: pictures that look alike, concepts that mean alike."""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SAME_MEANING = 0.9  # cosine of the sentence embeddings
_HASH_BITS = 5  # of 128 that may differ between duplicates
_WORST_BLOCK = 12.0  # of 255: mean difference of the worst of 8 × 8 blocks

Embed = Callable[[Sequence[str]], NDArray[np.float32]]


# ---------------------------------------------------------------------------------- duplicates


def perceptual_hash(thumb: NDArray[np.uint8]) -> tuple[int, int]:
    """Difference hash of 64 bits across and 64 bits down, of opacity and lightness together."""
    grey = thumb[..., :3].astype(np.float32).mean(axis=-1) + thumb[..., 3]
    rows = np.asarray(Image.fromarray(grey).resize((9, 8), Image.Resampling.BOX))
    columns = np.asarray(Image.fromarray(grey).resize((8, 9), Image.Resampling.BOX))
    across = np.packbits(rows[:, 1:] > rows[:, :-1] + 1)
    down = np.packbits(columns[1:] > columns[:-1] + 1)
    return int.from_bytes(across.tobytes()), int.from_bytes(down.tobytes())


def _alike(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    gap = np.abs(one.astype(np.int16) - other.astype(np.int16))  # (32, 32, 4)
    blocks = gap.reshape(8, 4, 8, 4, 4).mean(axis=(1, 3))  # (8, 8, 4)
    return bool(blocks.max() <= _WORST_BLOCK)


def duplicates(thumbs: Sequence[NDArray[np.uint8]]) -> list[int | None]:
    """For each picture the earlier one that it repeats, or None.

    Candidates differ in at most a few bits of the hash; two pictures are the same if then no
    eighth-by-eighth block differs much in any channel, so that one small mark tells two apart.
    """
    hashes = np.array([perceptual_hash(thumb) for thumb in thumbs], np.uint64).reshape(-1, 2)
    first: list[int | None] = []
    for index in range(len(hashes)):
        bits = np.bitwise_count(hashes[:index] ^ hashes[index]).sum(axis=1)
        original = None
        for candidate in np.flatnonzero(bits <= _HASH_BITS).tolist():
            if first[candidate] is None and _alike(thumbs[candidate], thumbs[index]):
                original = candidate
                break
        first.append(original)
    return first


# ------------------------------------------------------------------------------------- concepts


def merge_concepts(counts: Counter[str], embed: Embed) -> dict[str, str]:
    """Each concept's representative: the most frequent of those that mean the same.

    Taken in order of frequency (ties by name), a concept joins the nearest representative whose
    cosine is above `SAME_MEANING`, else it becomes one. Joining representatives only, never other
    members, keeps chains from growing.
    """
    names = sorted(counts, key=lambda name: (-counts[name], name))
    vectors = embed(names)
    heads: list[int] = []
    result: dict[str, str] = {}
    table = np.empty_like(vectors)
    for index, name in enumerate(names):
        scores = table[: len(heads)] @ vectors[index]
        best = int(scores.argmax()) if heads else -1
        if heads and scores[best] > SAME_MEANING:
            result[name] = names[heads[best]]
        else:
            table[len(heads)] = vectors[index]
            heads.append(index)
            result[name] = name
    return result


def decode(picture: bytes) -> Image.Image:
    """A stored picture as RGBA."""
    return Image.open(io.BytesIO(picture)).convert("RGBA")
