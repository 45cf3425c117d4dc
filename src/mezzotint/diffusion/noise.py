"""Named, counter-based noise: sample 3 of a batch of 8 is sample 3 of a batch of 4.

``noise(seed, stream, index, shape)`` is a pure function: no generator, no state, no device.  The
bits are Philox-4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), the
key made of the seed and the stream's name, the counter of the index and the position of the
element; Box and Muller's transform turns them into normal numbers.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

_M0, _M1 = 0xD2511F53, 0xCD9E8D57  # the multipliers and key increments of Philox-4x32
_W0, _W1 = 0x9E3779B9, 0xBB67AE85
_LOW = 0xFFFFFFFF


def _multiply(constant: int, x: Tensor) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of ``constant * x`` for 32-bit unsigned ``x`` held in int64.

    The product may pass 2^63; int64 arithmetic wraps, so its 64 bits are right all the same (the
    known-answer test says so for every machine that it runs on).
    """
    product = constant * x
    return (product >> 32) & _LOW, product & _LOW


def philox(counter: tuple[Tensor, ...], key: tuple[int, int]) -> tuple[Tensor, ...]:
    """Philox-4x32-10: four 32-bit words (in int64 tensors) for each counter.

    Args:
        counter: four 32-bit words, int64 tensors of shapes that broadcast.
        key: two 32-bit words.
    """
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(10):
        high0, low0 = _multiply(_M0, c0)
        high1, low1 = _multiply(_M1, c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + _W0) & _LOW, (k1 + _W1) & _LOW
    return c0, c1, c2, c3


def _key(seed: int, stream: str) -> tuple[int, int]:
    digest = hashlib.sha256(f"{seed}/{stream}".encode()).digest()
    return int.from_bytes(digest[:4], "little"), int.from_bytes(digest[4:8], "little")


def _words(seed: int, stream: str, indices: Sequence[int], count: int) -> tuple[Tensor, ...]:
    """Four random 32-bit words, each ``(indices, count or a little more)``, of one stream."""
    if min(indices) < 0:
        raise ValueError(f"a noise index counts from 0, not {min(indices)}")
    # Box and Muller's cosine is vectorized; whole vectors keep every element's rounding the same
    # whatever the length, so a longer draw begins with the shorter one.
    first = torch.arange(-(-count // 64) * 64, dtype=torch.int64)
    index = torch.tensor(indices, dtype=torch.int64)[:, None]  # (S, 1)
    zero = torch.zeros_like(index)
    return philox((first, index & _LOW, index >> 32, zero), _key(seed, stream))


def uniform(seed: int, stream: str, index: int, shape: Sequence[int] = ()) -> Tensor:
    """Uniform numbers in (0, 1), float64, a pure function of the arguments."""
    count = math.prod(shape)
    w0, w1, w2, w3 = _words(seed, stream, [index], -(-count // 2))
    pairs = torch.stack([_unit(w0, w1), _unit(w2, w3)], dim=2)
    return pairs.flatten()[:count].view(tuple(shape))


def _unit(high: Tensor, low: Tensor) -> Tensor:
    """A double in (0, 1) from 53 of 64 random bits; never 0 or 1."""
    return ((high << 21 | low >> 11).double() + 0.5) * 2.0**-53


def noise(seed: int, stream: str, index: int, shape: Sequence[int]) -> Tensor:
    """Standard normal noise, float32 on the CPU, a pure function of the arguments.

    Args:
        seed: any integer.
        stream: what the noise is for ("start", "step", "train", …); streams are independent.
        index: which draw of the stream (the step of a sampler, the sample of an epoch …), ≥ 0.
        shape: of one sample, without the batch.
    """
    return draws(seed, stream, [index], shape)[0]


def draws(seed: int, stream: str, indices: Sequence[int], shape: Sequence[int]) -> Tensor:
    """``(len(indices), *shape)``: :func:`noise` of each index, made at once."""
    count = math.prod(shape)
    w0, w1, w2, w3 = _words(seed, stream, indices, -(-count // 2))
    radius = (-2 * _unit(w0, w1).log()).sqrt()
    angle = 2 * math.pi * _unit(w2, w3)
    pairs = torch.stack([radius * angle.cos(), radius * angle.sin()], dim=2)
    return pairs.flatten(1)[:, :count].float().view(len(indices), *shape)


def batch(seeds: Sequence[int], stream: str, index: int, shape: Sequence[int]) -> Tensor:
    """``(len(seeds), *shape)``: one sample's noise a seed, so no sample knows its batch."""
    return torch.stack([noise(seed, stream, index, shape) for seed in seeds])


Noise = Callable[[int], Tensor]
"""What a sampler draws from: the number of the draw -> normal noise of the shape of ``x``."""


def stream(seeds: Sequence[int], name: str, like: Tensor) -> Noise:
    """The noise of a sampler: draw ``i`` of stream ``name`` for each seed, shaped as ``like``.

    Raises:
        ValueError: the number of seeds is not the batch size of ``like``.
    """
    if len(seeds) != like.shape[0]:
        raise ValueError(f"{len(seeds)} seeds for a batch of {like.shape[0]}: give one a sample")

    def draw(index: int) -> Tensor:
        return batch(seeds, name, index, like.shape[1:]).to(like)

    return draw


def between(a: Tensor, b: Tensor, share: float) -> Tensor:
    """On the great circle from ``a`` to ``b``: ``(sin((1 − s) w) a + sin(s w) b) / sin w``, with
    ``w`` the angle between the two samples (Shoemake 1985).

    Two independent noises are nearly orthogonal, so what lies between is as long as they are:
    noise again.  Share 0 is ``a`` and 1 is ``b``, to the last bit.

    Args:
        a, b: ``(B, …)``, each sample by itself.
    """
    if share in (0, 1):
        return (a, b)[int(share)]
    made: list[Tensor] = []
    for one, other in zip(a, b, strict=True):
        flat, across = one.double().flatten(), other.double().flatten()
        lengths = torch.dot(flat, flat) * torch.dot(across, across)
        cosine = float(torch.dot(flat, across)) / math.sqrt(float(lengths))
        angle = math.acos(min(max(cosine, -1.0), 1.0))
        if math.sin(angle) < 1e-6:  # one line: there is no circle to go along
            mixed = torch.lerp(flat, across, share)
        else:
            left, right = math.sin((1 - share) * angle), math.sin(share * angle)
            mixed = (left * flat + right * across) / math.sin(angle)
        made.append(mixed.view(one.shape).to(one))
    return torch.stack(made)
