"""The watermark in the pixels of a clip: that of pictures, the same in every frame.

Frames of a clip are alike, so what chance does in one it does in all: their p-values are not
multiplied.  Each is an own look, and so is the mean of them, in which what the codec did to each is
less and the mark is as strong; the bound of all looks together is Bonferroni's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from PIL import Image

from mezzotint.provenance import blind

FRAMES = 4
"""So many frames at least are looked at, of a clip that has them."""


def embed(frames: Iterable[Image.Image], payload: int, key: bytes) -> Iterator[Image.Image]:
    """The frames with a payload of 64 bits in each: see :func:`mezzotint.provenance.blind.embed`.

    Raises:
        WatermarkError: they are too small or too large.
    """
    for frame in frames:
        yield blind.embed(frame, payload, key)


def detect(frames: Sequence[Image.Image], key: bytes) -> blind.Found:
    """What is seen in the frame, or in the mean of all, that shows most.

    Raises:
        WatermarkError: they are too small or too large, or there are none.
    """
    if not frames:
        raise blind.WatermarkError("a clip without frames has no watermark")
    looks = [*frames, _mean(frames)] if len(frames) > 1 else list(frames)
    best = min((blind.detect(look, key) for look in looks), key=lambda found: found.p_value)
    return best._replace(p_value=min(1.0, len(looks) * best.p_value))


def _mean(frames: Sequence[Image.Image]) -> Image.Image:
    """The mean of those that have the size of the first, as RGB."""
    first = frames[0].size
    same = [np.asarray(each.convert("RGB"), np.float32) for each in frames if each.size == first]
    return Image.fromarray(np.rint(np.mean(same, axis=0)).astype(np.uint8))
