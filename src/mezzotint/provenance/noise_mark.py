"""A watermark in the noise that a picture is made of, which leaves that noise normal.

A normal number's sign and size are independent, and the sign is a fair coin.  So each element of a
draw keeps its size ``|z|`` and gets the sign ``(−1)^(s + <g, m>)``: ``s`` a bit of a keystream,
``m`` a word of 16 message bits and ``g`` that element's own row of 16 bits, both fixed by the key.
For whoever lacks the key the signs are coins (Gaussian Shading, Yang et al. 2024).  Who compares
many pictures of one key sees more, unless the message looks random: it is the payload enciphered
by the key (a Feistel network, Luby and Rackoff 1988).  The rows are different and not 0, so over
messages any two elements that share a word are independent, and any two that do not, of course;
where a word has more than 65,535 elements the rows begin again.

**Capacity.**  A draw of at least :data:`LARGE` elements carries four words, which are the payload.
A smaller one carries the first word alone: what is read is then a tag of 16 bits, which tells
whether a known payload fits (:func:`fits`), not what the payload was.

**Reading** takes soft evidence: for each draw an estimate, up to a factor, of its noise.  A word's
correlation with all 65,536 codewords is one Walsh–Hadamard transform, so the best one is found
exactly.

**The p-value.**  Under H0 the estimate was made without the key.  Given the estimate's sizes, each
codeword's correlation is a sum of signed sizes with coin signs: mean 0, variance ``sum l^2``, and
tails lighter than a normal's (Hoeffding 1963), about normal unless few sizes are most of it.  A
word's best correlation is taken as the largest of 65,536 independent ones, which in the tail is
the union bound, and the words' sums are convolved.  So calling marked all that is at or below 1e-6
has a false-positive rate of 1e-6, over keys, whatever the picture.
"""

from __future__ import annotations

import hashlib
import hmac
import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

WORD = 16
"""Bits of a word."""
WORDS = 4
"""Words of a payload."""
LARGE = 8192
"""From so many elements a sample on, a draw carries the whole payload."""
_CODEWORDS = 1 << WORD
_ROUNDS = 8
_CELL = 0.02  # of the p-value's grid, in standard deviations
_FAR = 45.0  # there a normal's tail leaves float64


class MarkError(ValueError):
    """A mark that cannot be set or looked for; one line that says why."""


class NoiseMark(NamedTuple):
    """What a picture's noise is to carry: a payload of 64 bits, under a key."""

    payload: int
    key: bytes

    def __repr__(self) -> str:
        return f"NoiseMark(payload={self.payload:#018x}, key=…)"  # keys stay out of logs


class Evidence(NamedTuple):
    """An estimate, up to a positive factor, of one draw's noise, ``(C, *spatial)``.

    All of one reading must be in one unit: the posterior mean is what the correlation wants.
    """

    draw: str  # the noise's stream: "start", "step"
    number: int  # of the draw, in its stream
    noise: Tensor


class Found(NamedTuple):
    """What was read.

    payload: the likeliest payload; None where only a tag is carried.
    tag: the first word of the enciphered payload, likeliest.
    p_value: how often unmarked pictures look as marked as this one, or more.
    """

    payload: int | None
    tag: int
    p_value: float


def check(mark: NoiseMark) -> None:
    """Raises MarkError: the payload has not 64 bits, or the key is shorter than 16 bytes."""
    if not 0 <= mark.payload < 1 << WORD * WORDS:
        raise MarkError(f"a noise mark's payload has {WORD * WORDS} bits: {mark.payload} has not")
    _check_key(mark.key)


def _check_key(key: bytes) -> None:
    if len(key) < 16:
        raise MarkError(f"a mark's key has at least 16 bytes, not {len(key)}")


# --- the message ------------------------------------------------------------------------------


def _round(key: bytes, number: int, half: int) -> int:
    text = b"noise mark/cipher" + bytes([number]) + half.to_bytes(4, "big")
    return int.from_bytes(hmac.digest(key, text, "sha256")[:4], "big")


def encipher(payload: int, key: bytes) -> int:
    """A permutation of the 64-bit numbers that is random for all who lack the key."""
    left, right = payload >> 32, payload & 0xFFFFFFFF
    for number in range(_ROUNDS):
        left, right = right, left ^ _round(key, number, right)
    return left << 32 | right


def decipher(message: int, key: bytes) -> int:
    """The inverse of :func:`encipher`."""
    left, right = message >> 32, message & 0xFFFFFFFF
    for number in reversed(range(_ROUNDS)):
        left, right = right ^ _round(key, number, left), left
    return left << 32 | right


def words(payload: int, key: bytes) -> tuple[int, ...]:
    """The words of an enciphered payload, the first one first."""
    message = encipher(payload, key)
    return tuple(message >> WORD * (WORDS - 1 - at) & _CODEWORDS - 1 for at in range(WORDS))


# --- the code ---------------------------------------------------------------------------------


def _stream(key: bytes, what: str, count: int) -> bytearray:
    """``count`` bytes of a keystream."""
    secret = hmac.digest(key, f"noise mark/{what}".encode(), "sha256")
    return bytearray(hashlib.shake_256(secret).digest(count))


@lru_cache(maxsize=8)
def _rows(key: bytes, word: int) -> Tensor:
    """All rows but 0, in a keyed order, ``(65535,)``."""
    drawn = torch.frombuffer(_stream(key, f"rows/{word}", 8 * _CODEWORDS), dtype=torch.int64)
    return drawn[1:].argsort(stable=True) + 1


class _Code(NamedTuple):
    """Of each element of a draw, ``(n,)``: its word, its row and its keystream's sign."""

    word: Tensor
    row: Tensor
    sign: Tensor


def carried(count: int) -> int:
    """How many words a draw of ``count`` elements carries."""
    return WORDS if count >= LARGE else 1


def _code(key: bytes, draw: str, index: int, count: int) -> _Code:
    name, parts = f"{draw}/{index}", carried(count)
    drawn = torch.frombuffer(_stream(key, f"places/{name}", 8 * count), dtype=torch.int64)
    place = torch.empty(count, dtype=torch.int64)
    place[drawn.argsort(stable=True)] = torch.arange(count)
    word, within = place % parts, place // parts
    # The draws of a picture take turns with the rows, so that signs of different draws differ too.
    turn = int.from_bytes(hmac.digest(key, draw.encode(), "sha256")[:4], "big")
    first = turn + index * -(-count // parts)
    row = torch.empty(count, dtype=torch.int64)
    for each in range(parts):
        here = word == each
        row[here] = _rows(key, each)[(first + within[here]) % (_CODEWORDS - 1)]
    bits = torch.frombuffer(_stream(key, f"signs/{name}", count), dtype=torch.uint8) & 1
    return _Code(word, row, 1.0 - 2.0 * bits.double())


def _parity(x: Tensor) -> Tensor:
    for shift in (8, 4, 2, 1):
        x = x ^ (x >> shift)
    return x & 1


def signs(mark: NoiseMark, draw: str, index: int, count: int) -> Tensor:
    """The signs of a draw of ``count`` elements, ±1 in float64, ``(count,)``."""
    code = _code(mark.key, draw, index, count)
    message = torch.tensor(words(mark.payload, mark.key))[code.word]
    return code.sign * (1 - 2 * _parity(code.row & message))


def marked(noise: Tensor, mark: NoiseMark, draw: str = "start", index: int = 0) -> Tensor:
    """The noise with the mark's signs and its own sizes; every sample gets the same signs.

    Args:
        noise: standard normal, ``(N, C, *spatial)``.
        draw, index: which draw it is; each has a keystream of its own.

    Raises:
        MarkError: the payload or the key is none.
    """
    check(mark)
    pattern = signs(mark, draw, index, math.prod(noise.shape[1:]))
    return noise.abs() * pattern.view(noise.shape[1:]).to(noise)


# --- reading ----------------------------------------------------------------------------------


def _correlations(evidence: Sequence[Evidence], key: bytes) -> tuple[Tensor, Tensor]:
    """Of each word the correlation with every codeword, ``(W, 65536)``, and their variance under
    H0, ``(W,)``."""
    parts = {carried(each.noise.numel()) for each in evidence}
    if len(parts) != 1:
        raise MarkError("a noise mark is read of draws of one size, at least one")
    count = parts.pop()
    sums = torch.zeros(count * _CODEWORDS, dtype=torch.float64)
    power = torch.zeros(count, dtype=torch.float64)
    for each in evidence:
        soft = each.noise.detach().cpu().double().flatten()
        if not bool(soft.isfinite().all()):
            raise MarkError("the estimate of the noise has numbers that are not finite")
        code = _code(key, each.draw, each.number, soft.numel())
        sums.index_add_(0, code.word * _CODEWORDS + code.row, code.sign * soft)
        power.index_add_(0, code.word, soft**2)
    return _walsh(sums.view(count, _CODEWORDS)), power


def _walsh(x: Tensor) -> Tensor:
    """The Walsh–Hadamard transform of the last axis: ``sum_g (−1)^<g, m> x_g``."""
    shape, width = x.shape, x.shape[-1]
    step = 1
    while step < width:
        pairs = x.reshape(-1, width // (2 * step), 2, step)
        a, b = pairs[:, :, 0], pairs[:, :, 1]
        x = torch.stack([a + b, a - b], dim=2)
        step *= 2
    return x.reshape(shape)


def read(evidence: Sequence[Evidence], key: bytes) -> Found:
    """The likeliest message, and how likely unmarked pictures are to look so marked.

    Raises:
        MarkError: there is no evidence, it is of draws of several sizes or not finite, or the key
            is none.
    """
    _check_key(key)
    found, power = _correlations(evidence, key)
    best = found.max(dim=1)
    message = best.indices.tolist()
    payload = None
    if len(message) == WORDS:
        payload = decipher(sum(w << WORD * (WORDS - 1 - at) for at, w in enumerate(message)), key)
    total = float(power.sum())
    if total == 0:  # nothing was seen
        return Found(payload, message[0], 1.0)
    shares = (power / total).sqrt().tolist()
    return Found(payload, message[0], _tail(float(best.values.sum()) / total**0.5, shares))


def fits(evidence: Sequence[Evidence], mark: NoiseMark) -> float:
    """The p-value of one payload that is known beforehand: nothing is searched, so far less
    evidence is enough.  Of several candidates multiply it by their number.

    Raises:
        MarkError: as in :func:`read`, or the payload is none.
    """
    check(mark)
    found, power = _correlations(evidence, mark.key)
    sent = words(mark.payload, mark.key)
    total = float(power.sum())
    if total == 0:
        return 1.0
    score = sum(float(found[at, sent[at]]) for at in range(len(found)))
    return math.erfc(score / math.sqrt(2 * total)) / 2


def _tail(score: float, shares: Sequence[float]) -> float:
    """``P(sum_w shares_w M_w >= score)``, each ``M`` the largest of 65,536 normal numbers.

    Masses on a grid, each in the middle of its cell; rounded to rather more.  Only sums of positive
    numbers: small tails keep their digits.
    """
    if len(shares) == 1:
        return float(_largest(torch.tensor(score, dtype=torch.float64)))
    cells = int(_FAR * math.sqrt(len(shares)) / _CELL)
    mass = torch.ones(1, dtype=torch.float64)
    for share in shares:
        edges = torch.arange(int(_FAR * share / _CELL) + 2, dtype=torch.float64) * _CELL
        if share == 0:
            continue
        tail = _largest(edges / share)
        own = torch.cat([1 - tail[:1], tail[:-1] - tail[1:]])  # of the cell that ends there
        mass = _convolved(mass, own)[:cells]
    first = max(0, math.floor(score / _CELL + len(shares) / 2))
    return min(1.0, float(mass[first:].flip(0).cumsum(0)[-1])) if first < len(mass) else 0.0


def _largest(score: Tensor) -> Tensor:
    """``P(M >= score)`` of the largest of 65,536 independent normal numbers."""
    single = torch.special.erfc(score / math.sqrt(2)) / 2
    return -torch.expm1(_CODEWORDS * torch.log1p(-single))


def _convolved(a: Tensor, b: Tensor) -> Tensor:
    """The convolution of two positive sequences, without a Fourier transform's rounding."""
    made = torch.zeros(len(a) + len(b) - 1, dtype=torch.float64)
    for at in (a > 0).nonzero().flatten().tolist():
        made[at : at + len(b)] += a[at] * b
    return made
