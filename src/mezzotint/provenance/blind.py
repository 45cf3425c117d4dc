"""A watermark in the pixels of a picture, found again without the picture and without a model.

The mark is spread-spectrum with informed embedding (Cox et al. 1997; Malvar & Florêncio 2003): a
keyed periodic pattern (:mod:`mezzotint.provenance.pattern`), added to the luminance, more of it in
texture than in flats.  Being periodic it folds onto one tile whatever was cut off; its lattice of
frequencies shows scale and angle; its phases, known to the key only, show the shift and carry the
payload.

The p-value is a bound, not a fit.  Whatever the picture is, the phases φ_k are independent of it
and uniform, so T = Re Σ a_k exp(i(θ_k − φ_k)) is sub-Gaussian: E exp(λT) = Π I₀(λ a_k) ≤
exp(λ² Σ a_k² / 4), hence P(T ≥ t) ≤ exp(−t² / Σ a_k²) (Chernoff).  What chooses the weights a_k
looks at magnitudes only.  There are two tests, each with half of the error: the pilots alone, and
the whole codeword of the payload that was read, times the 2^64 that could have been.  The bounds of
all shifts, turns and scales that are tried add up (Bonferroni).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mezzotint.provenance import lattice
from mezzotint.provenance.codeword import PAYLOAD, Floats, WatermarkError, decode
from mezzotint.provenance.pattern import (
    PERIOD,
    RADIUS,
    RING,
    Complexes,
    directions,
    pattern,
    soft_symbols,
)
from mezzotint.provenance.sight import (
    MARKED,
    Planes,
    check,
    floats,
    planes_of,
    strength_of,
    whitened,
)

QUALITY = 41.5
"""Peak signal-to-noise ratio of the marked picture over what is visible of it, dB."""
SMALL, SMALL_QUALITY = 1 << 15, 40.5
"""Up to so many visible pixels it is lower: otherwise too little of the mark is there."""

_PILOT = 1.2  # amplitude of a pilot, in that of another place


class Found(NamedTuple):
    """What a detector saw.

    payload: None if it cannot be read; p_value: the probability at most that a picture without
    this key's mark gives as much; scale, angle: of the picture against the marked one, a factor
    and degrees anticlockwise; mirrored: left and right have changed places.
    """

    payload: int | None
    p_value: float
    scale: float
    angle: float
    mirrored: bool


# --- embedding --------------------------------------------------------------------------------

_ROUNDS = 3
_LIFT = (0.4, 2.5)
"""Least and most of an amplitude, in that which all have on average."""


def _tile(amplitudes: Complexes) -> Floats:
    """``(PERIOD, PERIOD)`` of Σ Re a_k exp(2πi k·x / PERIOD)."""
    spectrum = np.zeros((PERIOD, PERIOD), np.complex64)
    spectrum[RING[:, 0], RING[:, 1]] = amplitudes
    return (np.fft.ifft2(spectrum).real * PERIOD**2).astype(np.float32)


def _repeated(tile: Floats, shape: tuple[int, ...]) -> Floats:
    rows, columns = (-(-edge // PERIOD) for edge in shape)
    return np.tile(tile, (rows, columns))[: shape[0], : shape[1]]


def _needs(seen: Floats, height: Floats, budget: float) -> Floats:
    """Amplitudes ``(K, 2)`` of mean square ``budget`` that lift the projections ``seen`` evenly.

    Those that the picture itself helps need less, those that it hinders more, within limits: the
    least total interference for the energy is between adding blindly and cancelling all.
    """

    def at(level: float) -> Floats:
        return np.clip(level * height - seen, _LIFT[0] * level, _LIFT[1] * level)

    low, high = 0.0, 1e4
    for _ in range(40):
        level = (low + high) / 2
        low, high = (level, high) if float((at(level) ** 2).sum()) < budget else (low, level)
    return at(low).astype(np.float32)


Where = NDArray[np.bool_]
"""``(H, W)``: the pixels that may be changed."""


def embed(image: Image.Image, payload: int, key: bytes, where: Where | None = None) -> Image.Image:
    """The picture with a payload of 64 bits in it, of about ``QUALITY`` dB.

    Colour of transparent pixels, alpha, size and mode stay; what the picture carried in ``info``
    is left out.  The same input gives the same bytes.

    where: of a part of the picture, what is outside stays exactly; None: all of it.

    Raises:
        WatermarkError: another mode than L, RGB, RGBA, a picture too small or too large, or a
            payload or a key that is none.
    """
    check(image, MARKED)
    phase, signs = directions(key, payload)
    canvas = _canvas(image, where)
    quality = SMALL_QUALITY if canvas.area <= SMALL else QUALITY
    wanted = 255**2 * 10 ** (-quality / 10)
    budget = 2 * wanted * canvas.area / float((canvas.strength**2).sum())
    height = np.ones((len(RING), 1), np.float32)
    height[pattern(key).pilots] = _PILOT
    own = _own(canvas, phase, signs, _needs(np.zeros_like(signs), height, budget))
    marked, scaled = canvas.colour, budget
    for turn in range(_ROUNDS):
        marked = _added(canvas, phase, _needs(own * signs, height, scaled) * signs)
        change = marked - canvas.colour
        change = change if canvas.visible is None else change[canvas.visible]
        spent = float((change * change).mean())
        if turn + 1 < _ROUNDS:
            scaled *= min(max(wanted / max(spent, 1e-6), 0.25), 4.0)
    return _image(canvas, marked)


class _Canvas(NamedTuple):
    pixels: NDArray[np.uint8]
    colour: Floats
    """``(H, W)`` or ``(H, W, 3)`` in [0, 255]."""
    planes: Planes
    strength: Floats
    """``(H, W)``; 0 where nothing is seen."""
    visible: Where | None
    area: int
    """Visible pixels."""


def _canvas(image: Image.Image, where: Where | None) -> _Canvas:
    planes = planes_of(image)
    strength = strength_of(planes)
    pixels = np.asarray(image)
    colour = (pixels if pixels.ndim == 2 else pixels[..., :3]).astype(np.float32)
    visible = None if planes.alpha is None else planes.alpha > 0
    if where is not None:
        visible = where if visible is None else visible & where
    if visible is not None:
        if not visible.any():
            raise WatermarkError("a picture that is all transparent carries no watermark")
        strength = floats(strength * visible)
    area = strength.size if visible is None else int(visible.sum())
    return _Canvas(pixels, colour, planes, strength, visible, area)


def _added(canvas: _Canvas, phase: Complexes, along: Floats) -> Floats:
    """The colour with the pattern of ``(K, 2)`` amplitudes, in whole steps of 8 bits."""
    wave = _repeated(_tile(_complex(along) * phase), canvas.strength.shape)
    return _rounded(canvas.colour, canvas.strength * wave)


def _own(canvas: _Canvas, phase: Complexes, signs: Floats, even: Floats) -> Floats:
    """``(K, 2)``: what a detector sees of the picture itself, in amplitudes of the mark.

    What an amplitude makes there is measured on a trial with ``even`` ones: no detector that
    knows edges is linear, and colours go in steps of 8 bits.
    """
    along = even * signs
    before = _projected(canvas.planes, phase)
    seen = _projected(planes_of(_image(canvas, _added(canvas, phase, along))), phase)
    gain = _rings(((seen - before) * signs).sum(1) / even.sum(1))
    return floats(seen / np.maximum(gain, 0.1 * gain.mean() + 1e-9)[:, None] - along)


def _projected(planes: Planes, phase: Complexes) -> Floats:
    along = lattice.at(lattice.fold(whitened(planes)), RING) * phase.conj()
    return np.stack([along.real, along.imag], 1)


def _complex(pairs: Floats) -> Complexes:
    return (pairs[:, 0] + 1j * pairs[:, 1]).astype(np.complex64)


def _rounded(colour: Floats, added: Floats) -> Floats:
    wide = added if colour.ndim == 2 else added[..., None]
    return np.clip(np.rint(colour + wide), 0, 255)


def _image(canvas: _Canvas, marked: Floats) -> Image.Image:
    made, visible = canvas.pixels.copy(), canvas.visible
    if made.ndim == 2:
        made[...] = marked
    elif visible is None:
        made[..., :3] = marked
    else:
        made[..., :3][visible] = marked[visible]
    return Image.fromarray(made)


# --- detection --------------------------------------------------------------------------------

_AT_HOME, _AS_IT_IS, _SCALED, _TURNED = 0.25, 0.25, 0.25, 0.25
"""The shares of the error: of the picture as it was made; of the same cut off, turned by quarters
or mirrored; of the scales that the key chooses; of the geometries that are chosen without it."""

_FINE = 8  # shifts a pixel, each way
_TURNS = len(lattice.TURNS)
_PLACES, _FINE_PLACES = _TURNS * PERIOD**2, _TURNS * (_FINE * PERIOD) ** 2
"""Shifts and turns at which the pilots are compared, and then all."""
_WORDS = PAYLOAD * math.log(2)
"""The logarithm of how many payloads there are: each has its codeword."""


class _Read(NamedTuple):
    chance: float
    """Natural logarithm of the p-value's bound, over the shifts, turns and payloads."""
    payload: int | None
    turn: int


def _weighted(folded: Complexes, matrix: NDArray[np.int64]) -> Complexes:
    """The coefficients in one of the eight positions, weighted by magnitudes only.

    Weight: expected amplitude over variance of the noise (maximal ratio), clipped against outliers.
    """
    places = RING @ matrix.T
    values = lattice.at(folded, places)
    noise = lattice.noise(folded, places)
    power = values.real**2 + values.imag**2
    signal = np.maximum(_rings(np.maximum(power / noise - 1, -0.9)), 0.05) * noise
    most = 9 * (signal + noise)
    values = values * np.minimum(1, np.sqrt(most / np.maximum(power, 1e-20)))
    return (values * np.sqrt(signal) / noise).astype(np.complex64)


def _rings(values: Floats) -> Floats:
    """Means over neighbouring radii."""
    places = RADIUS.astype(np.int64)
    total = np.bincount(places, values)
    count = np.bincount(places)
    wide = np.convolve(total, [1, 2, 1], "same") / np.maximum(
        np.convolve(count, [1, 2, 1], "same"), 1
    )
    return wide[places].astype(np.float32)


def _bound(along: Complexes) -> float:
    """log exp(−T² / Σ a²) of coefficients turned by the phases that they are thought to have."""
    total = max(float(along.real.sum()), 0.0)
    return -(total**2) / max(float((along.real**2 + along.imag**2).sum()), 1e-20)


def _chance(along: Complexes, tests: int) -> float:
    """One of two tests that share an error: the logarithm of the bound over so many tries."""
    return _bound(along) + math.log(2 * tests)


def _of_word(key: bytes, values: Complexes, turn: int, tests: int, chance: float) -> _Read:
    """The payload, and the better one of the chances by the pilots and by the whole codeword.

    chance: by the pilots; tests: shifts and turns of which the values have the best.
    """
    payload = decode(soft_symbols(key, values))
    if payload is not None:
        phase, signs = directions(key, payload)
        along = values * (_complex(signs) * phase).conj() / np.sqrt(np.float32(2))
        chance = min(chance, _chance(along, tests) + _WORDS)
    return _Read(chance, payload, turn)


def _read_home(key: bytes, folded: Complexes) -> _Read:
    """Nothing shifted or turned."""
    made, values = pattern(key), _weighted(folded, lattice.TURNS[0])
    pilots = _chance(values[made.pilots] * made.known.conj(), 1)
    return _of_word(key, values, 0, 1, pilots)


def _read(key: bytes, folded: Complexes) -> _Read:
    """The best of all shifts and turns of one geometry."""
    made = pattern(key)
    rows, columns = RING[made.pilots].T
    best = _Read(math.inf, None, 0)
    for turn, matrix in enumerate(lattice.TURNS):
        values = _weighted(folded, matrix)
        along = values[made.pilots] * made.known.conj()
        grid = np.zeros((PERIOD, PERIOD), np.complex64)
        grid[rows, columns] = along
        score = np.fft.ifft2(grid).real
        peak = divmod(int(score.argmax()), PERIOD)
        there = along * np.exp(2j * np.pi / PERIOD * (RING[made.pilots] @ peak))
        chance = _chance(there, _PLACES)
        if chance < best.chance:
            home = _home(along, RING[made.pilots], peak)
            values = values * np.exp(2j * np.pi / PERIOD * (RING @ home))
            best = _of_word(key, values.astype(np.complex64), turn, _FINE_PLACES, chance)
    return best


def _home(
    along: Complexes, places: NDArray[np.int64], peak: tuple[int, int]
) -> NDArray[np.float64]:
    """The shift to a fraction of a pixel."""
    reach = _FINE // 2
    offsets = np.mgrid[-reach : reach + 1, -reach : reach + 1].reshape(2, -1).T / _FINE
    offsets = offsets + np.array(peak)
    scores = (np.exp(2j * np.pi / PERIOD * (offsets @ places.T)) * along).real.sum(1)
    return offsets[int(scores.argmax())]


def detect(image: Image.Image, key: bytes) -> Found:
    """Look for this key's mark, in the picture as it is and scaled, turned or mirrored.

    Raises:
        WatermarkError: another mode than L, RGB, RGBA, or a picture too small or too large.
    """
    check(image)
    seen = whitened(planes_of(image))
    folded = lattice.fold(seen)
    best = _costing(_read_home(key, folded), 1 / _AT_HOME)
    if not _is_sure(best):
        shifted = _costing(_read(key, folded), 1 / _AS_IT_IS)
        best = min(best, shifted, key=lambda read: read.chance)
    found = _found(best, lattice.Geometry(1, 1, 0))
    if _is_sure(best):
        return found
    for geometry, cost in _elsewhere(seen, key):
        read = _costing(_read(key, lattice.fold(lattice.undone(seen, geometry))), cost)
        if read.chance < best.chance:
            best, found = read, _found(read, geometry)
        if _is_sure(best):
            break
    return found


def _elsewhere(seen: Floats, key: bytes) -> Iterator[tuple[lattice.Geometry, float]]:
    """Other geometries, each with the factor that it costs in chance."""
    made = pattern(key)
    scales = lattice.scaled(seen, RING[made.pilots], made.known)
    for geometry in scales.geometries:
        yield geometry, scales.tried / _SCALED
    for geometry in lattice.candidates(seen):
        yield geometry, lattice.CANDIDATES / _TURNED


_SURE = math.log(1e-9)


def _costing(read: _Read, factor: float) -> _Read:
    return read._replace(chance=read.chance + math.log(factor))


def _is_sure(read: _Read) -> bool:
    return read.chance < _SURE and read.payload is not None


def _found(read: _Read, geometry: lattice.Geometry) -> Found:
    quarter, mirrored = lattice.told(read.turn)
    scale = float(np.sqrt(geometry.rows * geometry.columns))
    chance = min(1.0, math.exp(min(read.chance, 0)))
    return Found(read.payload, chance, scale, float(geometry.angle + quarter), mirrored)


def confirm(image: Image.Image, payload: int, key: bytes) -> float:
    """The p-value of a payload that is known beforehand, such as that of a recipe, in a picture
    that may be cut off, turned by quarters or mirrored: nothing is read, so less is enough.

    Only what carries the payload counts: another payload of this key is as far as half of its
    symbols are others.

    Raises:
        WatermarkError: as :func:`detect`, or the payload is none.
    """
    check(image)
    folded = lattice.fold(whitened(planes_of(image)))
    phase, signs = directions(key, payload)
    known = (_complex(signs) * phase / np.sqrt(np.float32(2))).conj()
    known[pattern(key).pilots] = 0
    least = _bound(_weighted(folded, lattice.TURNS[0]) * known) + math.log(2)
    for matrix in lattice.TURNS:
        along = _weighted(folded, matrix) * known
        grid = np.zeros((PERIOD, PERIOD), np.complex64)
        grid[RING[:, 0], RING[:, 1]] = along
        peak = divmod(int(np.fft.ifft2(grid).real.argmax()), PERIOD)
        there = along * np.exp(2j * np.pi / PERIOD * (RING @ peak))
        least = min(least, _chance(there, _PLACES))
    return math.exp(min(least, 0.0))


def calibration(image: Image.Image, keys: Sequence[bytes]) -> NDArray[np.float64]:
    """The bound of the pilots at one place for each of many keys, none of which marked the picture:
    of what is a p-value at most a share x is up to x.

    Raises:
        WatermarkError: as :func:`detect`.
    """
    check(image)
    values = _weighted(lattice.fold(whitened(planes_of(image))), lattice.TURNS[0])
    made = (pattern(key) for key in keys)
    return np.exp([_bound(values[each.pilots] * each.known.conj()) for each in made])
