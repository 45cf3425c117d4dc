"""The keyed pattern of the blind watermark of pictures: which frequencies carry what.

The mark is a tile of ``PERIOD`` × ``PERIOD`` pixels, repeated, with energy at the frequencies
k / PERIOD (cycles a pixel) of a ring.  Each k has a phase that only the key knows.  Each
carries two symbols, along that phase and across it: those of pilots are the key's too, those of
the others the payload's.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mezzotint.provenance.codeword import LENGTH, Floats, encode, shuffle, stream

PERIOD = 64
PILOTS = 64
_INNER, _OUTER = 2.5, 14.5
"""Of the ring, in periods a tile: 0.04 to 0.23 cycles a pixel, so that it outlives a halving."""

Complexes = NDArray[np.complex64]


def _ring() -> NDArray[np.int64]:
    """The half plane of the ring: ``(K, 2)`` of (row, column) frequencies."""
    reach = int(_OUTER)
    rows, columns = np.mgrid[0 : reach + 1, -reach : reach + 1]
    radius = np.hypot(rows, columns)
    inside = (radius > _INNER) & (radius < _OUTER) & ((rows > 0) | (columns > 0))
    return np.stack([rows[inside], columns[inside]], 1)


RING = _ring()
RADIUS = np.hypot(RING[:, 0], RING[:, 1]).astype(np.float32)


class Pattern(NamedTuple):
    """What a key makes of the ring."""

    phase: Complexes
    """``(K,)`` of modulus 1."""
    pilots: NDArray[np.int64]
    """Places in the ring."""
    known: Complexes
    """``(PILOTS,)``: what the pilots are along, of modulus 1."""
    carriers: NDArray[np.int64]
    """The other places."""
    symbol: NDArray[np.int64]
    """``(2 · carriers,)``: the symbol of the codeword that each real dimension carries."""


@lru_cache(maxsize=256)
def pattern(key: bytes) -> Pattern:
    """Raises WatermarkError if the key is empty."""
    angle = stream(key, "phase", len(RING)) * (2 * np.pi / 2**32)
    order = shuffle(key, "pilots", len(RING))
    pilots, carriers = np.sort(order[:PILOTS]), np.sort(order[PILOTS:])
    symbol = shuffle(key, "symbols", 2 * len(carriers)) % LENGTH
    phase = np.exp(1j * angle).astype(np.complex64)
    known = (phase[pilots] * np.exp(0.25j * np.pi)).astype(np.complex64)
    return Pattern(phase, pilots, known, carriers, symbol)


def directions(key: bytes, payload: int) -> tuple[Complexes, Floats]:
    """What the coefficients of the ring should be along, for a payload.

    Returns:
        ``(K,)`` the phase of each place, and ``(K, 2)`` the signs along and across it; a pilot has
        the signs 1 and 1.
    """
    made = pattern(key)
    signs = np.zeros((len(RING), 2), np.float32)
    signs[made.pilots] = 1
    signs[made.carriers] = encode(payload)[made.symbol].reshape(-1, 2)
    return made.phase, signs


def soft_symbols(key: bytes, coefficients: Complexes) -> Floats:
    """``(LENGTH,)`` soft values: of ``(K,)`` weighted coefficients, those of each symbol added."""
    made = pattern(key)
    along = (coefficients * made.phase.conj())[made.carriers]
    values = np.stack([along.real, along.imag], 1).ravel()
    return np.bincount(made.symbol, values, LENGTH).astype(np.float32)
