"""The 64-bit payload of a watermark as a codeword, and back from soft values.

A CRC of 16 bits is appended, and the 80 bits go through a tail-biting convolutional code of rate
1/4 and constraint length 9 (generators 463, 535, 733, 745 octal, free distance 24: Proakis &
Salehi, Digital Communications, table 8.3-3).  It is decoded by the Viterbi algorithm in three
turns around the circle, of which the middle one counts.
"""

from __future__ import annotations

import hashlib
from functools import cache

import numpy as np
from numpy.typing import NDArray

PAYLOAD = 64
"""Bits."""

_CHECK = 16
_BITS = PAYLOAD + _CHECK
_GENERATORS = (0o463, 0o535, 0o733, 0o745)
_MEMORY = 8
_STATES = 1 << _MEMORY
LENGTH = _BITS * len(_GENERATORS)
"""Symbols of a codeword."""

Floats = NDArray[np.float32]


class WatermarkError(ValueError):
    """A medium cannot carry a watermark, or a payload or key is none; one line that says why."""


def stream(key: bytes, name: str, count: int) -> NDArray[np.uint32]:
    """``count`` uniform 32-bit numbers of a key: SHAKE-256, the same in every version.

    Raises:
        WatermarkError: the key is empty.
    """
    if not key:
        raise WatermarkError("the key of a watermark is empty: give at least one byte")
    seed = len(key).to_bytes(8, "little") + key + name.encode()
    return np.frombuffer(hashlib.shake_256(seed).digest(4 * count), "<u4")


def shuffle(key: bytes, name: str, count: int) -> NDArray[np.int64]:
    """A permutation of ``count`` numbers that the key chooses."""
    return np.argsort(stream(key, name, count), kind="stable")


def _check(payload: int) -> int:
    """CRC-16/CCITT-FALSE of the 8 bytes of a payload."""
    crc = 0xFFFF
    for byte in payload.to_bytes(PAYLOAD // 8, "big"):
        crc ^= byte << 8
        for _ in range(8):
            crc = (crc << 1 ^ (0x1021 if crc & 0x8000 else 0)) & 0xFFFF
    return crc


@cache
def _branches() -> NDArray[np.float32]:
    """What each content of the register sends: ``(4, 512)`` of ±1."""
    registers = np.arange(2 * _STATES)
    parities = [np.bitwise_count(registers & generator) & 1 for generator in _GENERATORS]
    return (1 - 2 * np.stack(parities).astype(np.float32)).astype(np.float32)


def encode(payload: int) -> Floats:
    """A payload as ``(LENGTH,)`` symbols ±1.

    Raises:
        WatermarkError: the payload has more than 64 bits or is negative.
    """
    if not 0 <= payload < 1 << PAYLOAD:
        raise WatermarkError(f"a payload is a number of {PAYLOAD} bits, not {payload}")
    word = payload << _CHECK | _check(payload)
    bits = [word >> (_BITS - 1 - place) & 1 for place in range(_BITS)]
    state = 0
    for bit in bits[-_MEMORY:]:  # the state that the word ends in is the one it begins in
        state = (bit << _MEMORY | state) >> 1
    symbols: list[Floats] = []
    for bit in bits:
        register = bit << _MEMORY | state
        symbols.append(_branches()[:, register])
        state = register >> 1
    return np.concatenate(symbols)


def decode(soft: Floats) -> int | None:
    """The payload of the codeword that fits best; None if its check does not hold.

    soft: ``(LENGTH,)``, proportional to the log-likelihood ratios of the symbols.  Of noise one in
    65,536 passes the check: a payload means something only beside a small p-value.
    """
    scores = soft.reshape(_BITS, len(_GENERATORS)).astype(np.float32) @ _branches()  # (80, 512)
    metric = np.zeros(_STATES, np.float32)
    choices = np.empty((3 * _BITS, _STATES), bool)
    for step in range(3 * _BITS):
        both = (np.tile(metric, 2) + scores[step % _BITS]).reshape(_STATES, 2)
        choices[step] = both[:, 1] > both[:, 0]
        metric = both.max(1)
    state, word = int(metric.argmax()), 0
    for step in range(3 * _BITS - 1, _BITS - 1, -1):
        if step < 2 * _BITS:
            word |= (state >> (_MEMORY - 1)) << (2 * _BITS - 1 - step)
        state = (state << 1 | int(choices[step, state])) & (_STATES - 1)
    payload = word >> _CHECK
    return payload if _check(payload) == word & 0xFFFF else None
