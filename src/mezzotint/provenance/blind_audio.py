"""A watermark in the samples of a sound, found again without the sound and without a model.

The mark is a keyed pattern of gains: the loudness of ``BANDS`` bands between 0.4 and 6 kHz goes up
and down a little in slots of 32 ms (a multiplicative spread spectrum; Kirovski & Malvar 2003), as
much as it moves by itself, so that the sound masks it and silence stays silence.  The pattern
repeats after ``PERIOD`` slots; of its cells some are pilots, whose sign is the key's, the others
carry the symbols of a codeword with the payload.  What the sound itself does to a symbol is
measured while embedding and partly cancelled (informed embedding; Malvar & Florêncio 2003).  Bands
that louder ones drown get a little noise in place of gains.

Only loudness is looked at, so gain, phase, resampling and most of what a codec does leave the mark.
A detector whitens the bands' logarithms in time, folds them onto one period, and correlates with
the pilots at all shifts.

The p-value is a bound, not a fit.  Whatever the sound is, the signs s of the pilots are independent
of it, so for the folded values x P(Σ s x ≥ t) ≤ exp(−t² / 2 Σ x²) (Hoeffding 1963, theorem 2).
Over all shifts, speeds and excerpts that are tried the bounds add up (Bonferroni).
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from mezzotint.provenance.codeword import (
    LENGTH,
    Floats,
    WatermarkError,
    decode,
    encode,
    shuffle,
    stream,
)

LOWEST_RATE, HIGHEST_RATE = 8000, 192_000
"""Samples a second."""
CHANNELS = 16
"""At most."""
SHORTEST = 0.25
"""Seconds; with less there is no pattern at all."""
PERIOD, BANDS = 64, 32
"""Of the pattern: slots of time, and bands."""

_HOP = 0.008  # seconds between two frames
_SLOT = 4  # frames
_WINDOW = 0.040  # seconds that a detector's frame sees
_GRAIN = 0.032  # seconds that the embedder's frame changes
_LOW, _HIGH, _BEND = 400.0, 6000.0, 1600.0  # Hz; bands are even in log(1 + f / _BEND)
_PILOTS = PERIOD * BANDS // 4
_TURN = _SLOT * PERIOD  # frames of a period
_AT_ONCE = 256  # frames in memory


class Found(NamedTuple):
    """What a detector saw.

    payload: None if it cannot be read; p_value: the probability at most that a sound without this
    key's mark gives as much; speed: of the sound against the marked one, a factor; start: seconds
    until the mark's period begins in the sound.
    """

    payload: int | None
    p_value: float
    speed: float
    start: float


# --- what is seen -----------------------------------------------------------------------------


def _floats(values: NDArray[np.floating]) -> Floats:
    return values.astype(np.float32, copy=False)


def _checked(samples: Floats, rate: int) -> Floats:
    if samples.ndim != 2 or not 1 <= samples.shape[0] <= CHANNELS:
        raise WatermarkError(
            f"samples of shape {samples.shape}: give (channels, samples), 1 to {CHANNELS} channels"
        )
    if samples.dtype.kind != "f":
        raise WatermarkError(f"samples of type {samples.dtype}: give floats in [-1, 1]")
    if not LOWEST_RATE <= rate <= HIGHEST_RATE:
        raise WatermarkError(
            f"{rate} samples a second: a watermark takes {LOWEST_RATE} to {HIGHEST_RATE}"
        )
    if samples.shape[1] < SHORTEST * rate:
        raise WatermarkError(
            f"a sound of {samples.shape[1] / rate:.2f} s carries no watermark: "
            f"it must have {SHORTEST} s"
        )
    if not np.isfinite(samples).all():
        raise WatermarkError("a sound with samples that are no numbers carries no watermark")
    return _floats(samples)


@lru_cache(maxsize=8)
def _bands(rate: int, size: int) -> Floats:
    """``(size / 2 + 1, BANDS)``: the share of each bin of a transform that lies in each band."""
    even = np.linspace(np.log1p(_LOW / _BEND), np.log1p(_HIGH / _BEND), BANDS + 1)
    edges = np.expm1(even) * _BEND * size / rate  # in bins
    bins = np.arange(size // 2 + 1)[:, None]
    top = np.minimum(bins + 0.5, edges[1:])
    return _floats(np.clip(top - np.maximum(bins - 0.5, edges[:-1]), 0, 1))


def _frames(length: int, rate: int) -> int:
    return int(length / rate / _HOP) + 1


def _power(samples: Floats, rate: int) -> Floats:
    """``(frames, BANDS)``: the power of each band around each multiple of ``_HOP``."""
    wide = round(_WINDOW * rate)
    size = 1 << (wide - 1).bit_length()
    window = _floats(np.hanning(wide + 2)[1:-1])
    bands = _bands(rate, size)
    padded = np.pad(samples, ((0, 0), (wide // 2, wide)))
    starts = np.rint(np.arange(_frames(samples.shape[1], rate)) * (_HOP * rate)).astype(np.int64)
    power = np.empty((len(starts), BANDS), np.float32)
    for first in range(0, len(starts), _AT_ONCE):
        places = starts[first : first + _AT_ONCE, None] + np.arange(wide)
        total = np.zeros((len(places), BANDS), np.float32)
        for channel in padded:
            seen = np.fft.rfft(channel[places] * window, size)
            total += _floats(seen.real**2 + seen.imag**2) @ bands
        power[first : first + _AT_ONCE] = total
    return power


def _mean(values: Floats, reach: int, axis: int) -> Floats:
    """Running mean over 2·reach + 1 places; outside is zero."""
    count = 2 * reach + 1
    pads = [(0, 0)] * values.ndim
    pads[axis] = (reach + 1, reach)
    total = np.cumsum(np.pad(values, pads).astype(np.float64), axis)
    ahead = np.take(total, range(count, total.shape[axis]), axis)
    behind = np.take(total, range(total.shape[axis] - count), axis)
    return _floats((ahead - behind) / count)


def _apart(values: Floats) -> Floats:
    """Each frame less the mean of the ``_REACH`` slots before and after it."""
    total = np.zeros_like(values)
    count = np.zeros((len(values), 1), np.float32)
    for slot in range(1, _REACH + 1):
        away = slot * _SLOT
        if len(values) > 2 * away:  # in pairs, so that what only rises or falls is nothing
            total[away:-away] += values[: -2 * away] + values[2 * away :]
            count[away:-away] += 2
    return np.where(count > 0, values - total / np.maximum(count, 1), 0)


_REACH = 3  # slots each way that a slot is compared to
_ACROSS, _BESIDE = 16, 2  # bands each way
_LONG = 5  # slots each way that say what is usual
_SILENCE = np.float32(1e-10)  # power
_DEPTH = np.float32(1e-5)  # of the power some seconds around, below which nothing is heard
_QUIET = np.float32(0.08)  # nepers of power: a tone that stands still
_CLIP = np.float32(2.0)


def _leak() -> Floats:
    """``(BANDS, BANDS)``: how much of a band's power hides what is in another one.

    A simple spreading function: −30 dB next to it, 4 dB less each band further, at least −50 dB.
    """
    apart = np.abs(np.arange(BANDS)[:, None] - np.arange(BANDS))
    level = np.maximum(-30.0 - 4.0 * (apart - 1), -50.0)
    return _floats(np.where(apart == 0, 0, 10.0 ** (level / 10)))


_LEAK = _leak()


class _Seen(NamedTuple):
    evidence: Floats
    """``(frames, BANDS)``: how much louder than its surroundings, in what is usual there."""
    spread: Floats
    """``(frames, BANDS)``: what is usual there, in nepers of power."""
    hidden: Floats
    """``(frames, BANDS)``: the power that louder bands hide, where there is less."""


def _seen(power: Floats) -> _Seen:
    """What a detector makes of the power of the bands, ``(frames, BANDS)``."""
    flat = power.copy()
    flat[1:-1] += power[:-2] + power[2:]
    power = _floats(flat / 3)
    hidden = _floats(power @ _LEAK)
    around = _mean(power.max(1, keepdims=True), 40 * _SLOT, 0)
    floor = hidden + around * _DEPTH + _SILENCE
    trust = power / (power + floor)
    change = _apart(np.log(power + floor))
    change = change - _mean(change, _ACROSS, 1)
    usual = _mean(_mean(np.minimum(change * change, 4), _LONG * _SLOT, 0), _BESIDE, 1)
    spread = np.sqrt(usual + _QUIET**2)
    steps = np.clip(change / spread, -_CLIP, _CLIP)
    return _Seen(_floats(steps), _floats(spread), _floats(hidden * (1 - trust)))


# --- the pattern ------------------------------------------------------------------------------


class _Pattern(NamedTuple):
    """What a key makes of a period's cells, in their order in ``(PERIOD, BANDS)``."""

    signs: Floats
    """``(PERIOD · BANDS,)`` of ±1."""
    symbol: NDArray[np.int64]
    """``(PERIOD · BANDS,)``: the symbol of the codeword that each carries; LENGTH: a pilot."""


@lru_cache(maxsize=64)
def _pattern(key: bytes) -> _Pattern:
    count = PERIOD * BANDS
    signs = _floats(1 - 2.0 * (stream(key, "sound/signs", count) >> 31))
    order = shuffle(key, "sound/cells", count)
    symbol = np.full(count, LENGTH)
    symbol[order[_PILOTS:]] = np.arange(count - _PILOTS) % LENGTH
    return _Pattern(signs, symbol)


def _signs(key: bytes, payload: int) -> Floats:
    """``(PERIOD, BANDS)`` of ±1 for a payload."""
    made = _pattern(key)
    word = np.append(encode(payload), np.float32(1))
    return (made.signs * word[made.symbol]).reshape(PERIOD, BANDS)


# --- embedding --------------------------------------------------------------------------------

QUALITY = 25.0
"""Least segmental signal-to-noise ratio, dB; where little can be hidden it is better."""

_STRENGTH = np.float32(0.4)  # of a cell's gain, in what is usual there
_MOST = np.float32(0.6)  # nepers of power
_FILL = np.float32(1.5)  # of the power that is hidden
_LEAST, _LOUDEST = 0.3, 2.5  # of a symbol, in the mean of all
_ROUNDS = 3


class _Mark(NamedTuple):
    """What is done to a sound, frame by frame and band by band: ``(frames, BANDS)`` each."""

    gains: Floats
    """Nepers of power."""
    fill: Floats
    """Power that is added where louder bands hide it."""


class _Grains(NamedTuple):
    """Overlapping pieces of a sound: where they begin, and how they are faded."""

    starts: NDArray[np.int64]
    window: Floats
    size: int
    """Of the transform."""


def _grains(frames: int, rate: int) -> _Grains:
    wide = round(_GRAIN * rate)
    window = np.sin(np.pi * (np.arange(wide) + 0.5) / wide)
    starts = np.rint(np.arange(frames) * (_HOP * rate)).astype(np.int64)
    return _Grains(starts, _floats(window), 1 << (wide - 1).bit_length())


def _hiss(key: bytes) -> Floats:
    """Some seconds of white noise of variance 1."""
    return _floats((stream(key, "sound/fill", 1 << 17) / 2.0**31 - 1) * 3**0.5)


def _amplitude(fill: Floats, rate: int) -> Floats:
    """Of white noise that has these powers in the bands of ``_power``."""
    wide = round(_WINDOW * rate)
    energy = float((np.hanning(wide + 2) ** 2).sum())
    bins = _bands(rate, 1 << (wide - 1).bit_length()).sum(0)
    return _floats(np.sqrt(fill / (energy * np.maximum(bins, np.float32(1e-6)))))


def _changed(samples: Floats, rate: int, mark: _Mark, hiss: Floats) -> Floats:
    """The sound with the mark; what is exactly zero stays so."""
    starts, window, size = _grains(len(mark.gains), rate)
    wide = len(window)
    spread = _bands(rate, size).T
    fill = _amplitude(mark.fill, rate)
    padded = np.pad(samples, ((0, 0), (wide // 2, wide)))
    added, weight = np.zeros_like(padded), np.zeros(padded.shape[1], np.float32)
    for first in range(0, len(starts), _AT_ONCE):
        block = slice(first, first + _AT_ONCE)
        places = starts[block, None] + np.arange(wide)
        factor = np.exp(mark.gains[block] @ spread / 2) - 1
        noise = np.fft.rfft(hiss[places % len(hiss)] * window, size) * (fill[block] @ spread)
        pieces = padded[:, places]  # (C, frames, wide)
        loud = (pieces * pieces).sum(2)
        share = np.sqrt(loud / np.maximum(loud.sum(0), np.float32(1e-12)))
        for channel, piece in enumerate(pieces):
            made = np.fft.rfft(piece * window, size) * factor + noise * share[channel, :, None]
            faded = _floats(np.fft.irfft(made, size)[:, :wide]) * window
            for start, grain in zip(starts[block], faded, strict=True):
                added[channel, start : start + wide] += grain
        for start in starts[block]:
            weight[start : start + wide] += window * window
    added /= np.maximum(weight, np.float32(0.1))
    inside = slice(wide // 2, wide // 2 + samples.shape[1])
    peak = max(1.0, float(np.abs(samples).max()))
    made = np.where(samples == 0, samples, samples + added[:, inside])
    return _floats(np.clip(made, -peak, peak))


def segmental(samples: Floats, marked: Floats, rate: int) -> float:
    """Mean signal-to-noise ratio of pieces of 20 ms, dB: those within 50 dB of the loudest, each
    taken as at most 60 dB; infinite if nothing was changed."""
    wide = round(0.02 * rate)
    count = samples.shape[1] // wide
    pieces = (samples.shape[0], count, wide)
    signal, noise = (
        np.square(values[:, : count * wide], dtype=np.float64).reshape(pieces).sum((0, 2))
        for values in (samples, marked - samples)
    )
    heard = (signal > 1e-5 * signal.max(initial=0)) & (signal > 0)
    if not heard.any() or not noise[heard].any():
        return float("inf")
    ratio = 10 * np.log10(signal[heard] / np.maximum(noise[heard], 1e-6 * signal[heard]))
    return float(ratio.mean())


def _frames_of(slots: Floats, frames: int) -> Floats:
    """Each slot held for half its length, and from one to the next in the other half."""
    places = np.arange(frames) / _SLOT
    left = np.minimum(places.astype(np.int64), len(slots) - 1)
    right = np.minimum(left + 1, len(slots) - 1)
    part = np.clip(2 * _floats(places - left)[:, None] - np.float32(0.5), 0, 1)
    return _floats(slots[left] * (1 - part) + slots[right] * part)


def _groups(key: bytes, slots: int) -> NDArray[np.int64]:
    """``(slots, BANDS)``: cells that are lifted together have one number.

    They carry one symbol in one period; a pilot is alone.
    """
    symbol = _pattern(key).symbol.copy()
    pilots = symbol == LENGTH
    symbol[pilots] += np.arange(int(pilots.sum()))
    turns = -(-slots // PERIOD)
    step = LENGTH + _PILOTS
    group = symbol.reshape(PERIOD, BANDS) + step * np.arange(turns)[:, None, None]
    return group.reshape(-1, BANDS)[:slots]


def _needs(own: Floats) -> Floats:
    """Amounts of mean square 1 that lift ``own`` evenly, within limits.

    Symbols that the sound itself helps need less, those that it hinders more.
    """
    low, high = 0.0, 1e3
    made = own
    for _ in range(30):
        level = (low + high) / 2
        made = np.clip(level - own, _LEAST, _LOUDEST)
        low, high = (level, high) if float((made * made).mean()) < 1 else (low, level)
    return _floats(made)


def embed(samples: Floats, rate: int, payload: int, key: bytes) -> Floats:
    """The sound with a payload of 64 bits in it.

    samples: ``(channels, samples)`` of floats, full scale at ±1; rate: of them a second.  Shape
    and zeros stay; all channels are changed alike.  The same input gives the same samples.  A
    sound of less than some seconds carries the mark, but its payload may be unreadable: *detect*
    tells.

    Raises:
        WatermarkError: another shape, type or rate, a sound of less than ``SHORTEST`` seconds or
            with infinite samples, or a payload or a key that is none.
    """
    signs = _signs(key, payload)
    samples = _checked(samples, rate)
    seen = _seen(_power(samples, rate))
    frames = len(seen.evidence)
    slots = -(-frames // _SLOT)
    sign = np.tile(signs, (-(-slots // PERIOD), 1))[:slots]
    group = _groups(key, slots)
    count = np.maximum(np.bincount(group.ravel()), 1)

    def along(evidence: Floats) -> Floats:
        values = (evidence[::_SLOT] * sign).ravel()
        return _floats(np.bincount(group.ravel(), values, len(count)) / count)

    own = along(seen.evidence)
    usual = _STRENGTH * seen.spread[::_SLOT]
    amount, strength = np.ones(len(count), np.float32), np.float32(1)
    hiss = _hiss(key)
    marked = samples
    for turn in range(_ROUNDS):
        wanted = strength * amount[group]
        gains = _frames_of(sign * np.minimum(usual * wanted, _MOST), frames)
        fill = _FILL * seen.hidden * _frames_of((sign > 0) * wanted, frames)
        marked = _changed(samples, rate, _Mark(gains, fill), hiss)
        if turn + 1 == _ROUNDS:
            break
        now = along(_seen(_power(marked, rate)).evidence)
        slope = max(float((now - own).mean() / (strength * amount.mean())), 0.05)
        amount = _needs(now / (slope * strength) - amount)
        spare = segmental(samples, marked, rate) - QUALITY
        strength *= np.float32(10 ** (min(max(spare, -12), 3) / 20))
        strength = min(strength, np.float32(1.4))
    spare = segmental(samples, marked, rate) - QUALITY
    return marked if spare >= 0 else _floats(samples + (marked - samples) * 10 ** (spare / 20))


# --- detection --------------------------------------------------------------------------------


def _fold(evidence: Floats, speed: float) -> Floats:
    """``(_TURN, BANDS)``: the sum over all periods, as if at the speed at which it was marked."""
    count = int(len(evidence) * speed)
    places = np.minimum(np.rint(np.arange(count) / speed).astype(np.int64), len(evidence) - 1)
    turns = -(-count // _TURN)
    folded = np.zeros((turns * _TURN, BANDS), np.float32)
    folded[:count] = evidence[places]
    return folded.reshape(turns, _TURN, BANDS).sum(0)


class _Read(NamedTuple):
    exponent: float
    """The bound of one shift is exp of minus this, the payload's 2^64 ways counted."""
    shift: int
    """Frames."""
    payload: int | None


def _scored(key: bytes, folded: Floats) -> tuple[float, int]:
    """t² / 2 Σ x² of the pilots at the best of all shifts, and the shift."""
    made = _pattern(key)
    pilots = (made.symbol == LENGTH).reshape(PERIOD, BANDS)
    wanted = np.zeros((2, _TURN, BANDS))
    wanted[0, ::_SLOT] = made.signs.reshape(PERIOD, BANDS) * pilots
    wanted[1, ::_SLOT] = pilots
    given = np.fft.rfft(np.stack([folded, folded * folded]).astype(np.float64), axis=1)
    both = np.fft.irfft((given * np.fft.rfft(wanted, axis=1).conj()).sum(2), _TURN, axis=1)
    score = np.maximum(both[0], 0) ** 2 / (2 * np.maximum(both[1], 1e-6))
    shift = int(score.argmax())
    return float(score[shift]), shift


def _read(key: bytes, folded: Floats) -> _Read:
    """The best shift of one folded sound.

    The pilots speak for a mark; so do, if it can be read, all cells for a mark with this payload,
    one of 2^64 (each of which has its own signs, uniform as the key's).
    """
    pilots, shift = _scored(key, folded)
    if pilots < _WORTH:
        return _Read(pilots, shift, None)
    made = _pattern(key)
    cells = np.roll(folded, -shift, 0)[::_SLOT].ravel().astype(np.float64)
    soft = np.bincount(made.symbol, cells * made.signs, LENGTH + 1)[:LENGTH]
    payload = decode(soft.astype(np.float32))
    if payload is None:
        return _Read(pilots, shift, None)
    total = max(float((cells * _signs(key, payload).ravel()).sum()), 0)
    whole = total**2 / (2 * max(float((cells * cells).sum()), 1e-6)) - 64 * np.log(2)
    return _Read(max(pilots, whole), shift, payload)


_WORTH = 8.0  # exponent of the pilots below which no payload is looked for
_SURE = 1e-9
_EXCERPT = 3072  # frames: 24.6 s, which drift by less than half a slot between two speeds
_EXCERPTS = 12  # at most
_SPEEDS = tuple(1 + step / 1000 for step in range(-11, 12))


def _excerpts(frames: int) -> list[int]:
    """Where they begin: half over each other, or spread evenly over a long sound."""
    last = frames - _EXCERPT
    if last <= 0:
        return [0]
    count = min(-(-2 * last // _EXCERPT) + 1, _EXCERPTS)
    return [round(last * place / (count - 1)) for place in range(count)]


def detect(samples: Floats, rate: int, key: bytes) -> Found:
    """Look for this key's mark: in all of the sound as it is, then in excerpts, also faster and
    slower by up to 1.1 %.

    samples, rate: as in *embed*.  Half of the error is kept for the first, and for each of pilots
    and payload half of that.

    Raises:
        WatermarkError: another shape, type or rate, a sound of less than ``SHORTEST`` seconds or
            with infinite samples, or an empty key.
    """
    samples = _checked(samples, rate)
    evidence = _seen(_power(samples, rate)).evidence

    def found(read: _Read, ways: int, speed: float, begin: int) -> Found:
        chance = 4.0 * _TURN * ways * float(np.exp(-read.exponent))
        start = (read.shift + round(begin * speed)) % _TURN * _HOP / speed
        return Found(read.payload, min(1.0, chance), speed, start)

    best = found(_read(key, _fold(evidence, 1)), 1, 1.0, 0)
    if best.p_value < _SURE and best.payload is not None:
        return best
    begins = _excerpts(len(evidence))
    for begin in begins:
        for speed in _SPEEDS:
            read = _read(key, _fold(evidence[begin : begin + _EXCERPT], speed))
            seen = found(read, len(begins) * len(_SPEEDS), speed, begin)
            if _better(seen, best):
                best = seen._replace(p_value=min(seen.p_value, best.p_value))
        if best.p_value < _SURE and best.payload is not None:
            break
    return best


def _better(one: Found, other: Found) -> bool:
    """One that can be read goes before one that cannot, if it is sure."""
    if one.p_value <= 1e-6 and (one.payload is None) != (other.payload is None):
        return one.payload is not None
    return one.p_value < other.p_value
