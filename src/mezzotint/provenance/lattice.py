"""The lattice of a periodic mark: folding, and how a picture was scaled and turned since."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mezzotint.provenance.codeword import Floats
from mezzotint.provenance.pattern import PERIOD, RADIUS, RING, Complexes

CANDIDATES = 16
"""Geometries that are tried beside the one in which the picture stands."""

_FOLD = 2 * PERIOD  # between two frequencies of the mark lies one that has noise alone
_SCALES, _ANGLE = (0.4, 2.6), 10.0  # what is searched: factors, degrees either way

TURNS = tuple(
    np.array(matrix)
    for matrix in (
        ((1, 0), (0, 1)),
        ((0, 1), (-1, 0)),
        ((-1, 0), (0, -1)),
        ((0, -1), (1, 0)),
        ((1, 0), (0, -1)),
        ((0, 1), (1, 0)),
        ((-1, 0), (0, 1)),
        ((0, -1), (-1, 0)),
    )
)
"""The eight positions of a square, as matrices of (row, column)."""


class Geometry(NamedTuple):
    """How a picture lies against the one that was marked: factors and degrees anticlockwise."""

    rows: float
    columns: float
    angle: float


def told(turn: int) -> tuple[int, bool]:
    """A turn in words: degrees anticlockwise, and whether it is mirrored."""
    return 90 * (turn % 4), turn >= 4


# --- folding ----------------------------------------------------------------------------------


def fold(seen: Floats) -> Complexes:
    """``(2 PERIOD, 2 PERIOD)`` spectrum of a picture of any size, all its tiles added up."""
    height, width = seen.shape
    rows, columns = -(-height // _FOLD), -(-width // _FOLD)
    whole = np.zeros((rows * _FOLD, columns * _FOLD), np.float32)
    whole[:height, :width] = seen
    tiles = whole.reshape(rows, _FOLD, columns * _FOLD).sum(0)
    tiles = tiles.reshape(_FOLD, columns, _FOLD).sum(1)
    return np.fft.fft2(tiles).astype(np.complex64)


def at(folded: Complexes, places: NDArray[np.int64]) -> Complexes:
    """The coefficients at frequencies k / PERIOD."""
    return folded[2 * places[:, 0], 2 * places[:, 1]]


def noise(folded: Complexes, places: NDArray[np.int64]) -> Floats:
    """``(K,)``: mean power around each frequency, between those of the mark."""
    power = folded.real**2 + folded.imag**2
    power[::2, ::2] = 0
    wide = np.zeros_like(power)
    for row in range(-3, 4):
        for column in range(-3, 4):
            wide += np.roll(power, (row, column), (0, 1))
    full = power.mean() * 1e-3 + 1e-12
    return wide[2 * places[:, 0], 2 * places[:, 1]] / 40 + full


# --- scale and angle --------------------------------------------------------------------------

_WINDOW = 1024  # pixels of the parts that a large picture is searched in


def _spectrum(seen: Floats) -> tuple[Floats, int]:
    """Power at frequencies n / size, flat apart from lines: ``(size, size)``, and size."""
    edge = max(seen.shape)
    size = 1 << max(8, int(np.ceil(np.log2(2 * min(edge, _WINDOW)))))
    total = np.zeros((size, size // 2 + 1), np.float32)
    for part in _parts(seen):
        tapered = part * _taper(part.shape[0])[:, None] * _taper(part.shape[1])
        values = np.fft.rfft2(tapered, (size, size))
        total += (values.real**2 + values.imag**2).astype(np.float32)
    level = _smooth(total, size // 32)
    return np.minimum(total / np.maximum(level, 1e-12), 8), size


def _smooth(power: Floats, reach: int) -> Floats:
    """Mean over (2 reach + 1)² neighbours; rows are cyclic, the edges of columns repeat."""
    padded = np.pad(power, ((reach, reach), (0, 0)), "wrap")
    padded = np.pad(padded, ((0, 0), (reach, reach)), "reflect")
    width = 2 * reach + 1
    for axis in (0, 1):
        total = np.cumsum(padded, axis, dtype=np.float64)
        total = np.insert(total, 0, 0, axis)
        ahead, behind = np.split(total, [width], axis)[1], np.split(total, [-width], axis)[0]
        padded = (ahead - behind) / width
    return padded.astype(np.float32)


def _taper(length: int) -> Floats:
    ramp = max(1, length // 8)
    rise = 0.5 - 0.5 * np.cos(np.pi * (np.arange(ramp) + 0.5) / ramp)
    return np.concatenate([rise, np.ones(length - 2 * ramp), rise[::-1]]).astype(np.float32)


def _parts(seen: Floats) -> list[Floats]:
    """The picture, or up to four parts of a large one."""
    starts = [[0] if edge <= _WINDOW else sorted({0, edge - _WINDOW}) for edge in seen.shape]
    return [
        seen[row : row + _WINDOW, column : column + _WINDOW]
        for row in starts[0]
        for column in starts[1]
    ]


def _scores(power: Floats, size: int, rows: Floats, columns: Floats, angles: Floats) -> Floats:
    """``(G,)``: how far the lattice of each geometry stands above the rest, in deviations."""
    made = np.empty(len(rows), np.float32)
    block = 2048
    for start in range(0, len(rows), block):
        part = slice(start, start + block)
        turn = np.deg2rad(angles[part])[:, None]
        down = RING[:, 0] / rows[part, None] * np.float32(size / PERIOD)
        right = RING[:, 1] / columns[part, None] * np.float32(size / PERIOD)
        # rows count downwards: anticlockwise on the screen takes +column to −row
        row = down * np.cos(turn) - right * np.sin(turn)
        column = down * np.sin(turn) + right * np.cos(turn)
        inside = (np.abs(row) < size * 0.48) & (np.abs(column) < size * 0.48)
        sign = np.where(column < 0, -1, 1)
        row = np.rint(row * sign).astype(np.int64) % size
        column = np.minimum(np.rint(column * sign).astype(np.int64), size // 2)
        value = np.where(inside, power[row, column] - 1, 0)
        made[part] = value.sum(1) / np.sqrt(np.maximum(inside.sum(1), 1))
    return made


def candidates(seen: Floats) -> list[Geometry]:
    """Up to ``CANDIDATES`` geometries, the most likely first, from the power spectrum alone."""
    power, size = _spectrum(seen)
    reach = float(RADIUS.max()) / PERIOD * min(max(seen.shape), _WINDOW)  # bins of the picture
    step = min(0.02, 0.5 / reach)
    scales = np.exp(np.arange(np.log(_SCALES[0]), np.log(_SCALES[1]), step))
    turns = np.rad2deg(np.arange(-np.deg2rad(_ANGLE), np.deg2rad(_ANGLE) + step / 2, step * 1.5))
    turns -= turns[np.abs(turns).argmin()]
    grid = np.stack(np.meshgrid(scales, turns, indexing="ij"), -1).reshape(-1, 2).astype(np.float32)
    scores = _scores(power, size, grid[:, 0], grid[:, 0], grid[:, 1])
    made: list[Geometry] = []
    taken = np.zeros(len(grid), bool)
    for place in np.argsort(-scores, kind="stable"):
        if taken[place]:
            continue
        scale, angle = grid[place]
        near = np.abs(np.log(grid[:, 0] / scale)) < 2.5 * step
        taken |= near & (np.abs(grid[:, 1] - angle) < np.rad2deg(2.5 * step))
        made.append(_refined(power, size, Geometry(float(scale), float(scale), float(angle)), step))
        if len(made) == CANDIDATES:
            break
    return made


def _refined(power: Floats, size: int, first: Geometry, step: float) -> Geometry:
    """The best of the neighbourhood, finer than the grid."""
    best = np.array([np.log(first.rows), np.log(first.columns), np.deg2rad(first.angle)])
    for fine in (step / 2, step / 4):
        around = np.stack(np.meshgrid(*3 * [np.array([-1, 0, 1]) * fine], indexing="ij"), -1)
        tried = (best + around.reshape(-1, 3)).astype(np.float32)
        scores = _scores(
            power, size, np.exp(tried[:, 0]), np.exp(tried[:, 1]), np.rad2deg(tried[:, 2])
        )
        best = tried[int(scores.argmax())].astype(np.float64)
    return Geometry(float(np.exp(best[0])), float(np.exp(best[1])), float(np.rad2deg(best[2])))


# --- scale, by the key ------------------------------------------------------------------------

SCALES = 4
"""Geometries that :func:`scaled` gives."""

_ASPECTS = np.stack(np.meshgrid(*2 * [np.linspace(-1, 1, 5)], indexing="ij"), -1).reshape(-1, 2)
_SIDES = (TURNS[0], TURNS[4])  # as it was, and mirrored


class Scales(NamedTuple):
    """geometries: the most likely first; tried: of how many they were chosen."""

    geometries: list[Geometry]
    tried: int


class _Sight(NamedTuple):
    """A picture's middle as spectrum about its centre, ``(size / 2 + 1, size)``, over its noise."""

    values: Complexes
    size: int


def _sight(seen: Floats) -> _Sight:
    middle = tuple(slice((edge - min(edge, _WINDOW)) // 2, None) for edge in seen.shape)
    part = seen[middle][:_WINDOW, :_WINDOW]
    height, width = part.shape
    part = part * _taper(height)[:, None] * _taper(width)
    size = 1 << max(8, int(np.ceil(np.log2(2 * max(height, width)))))
    whole = np.zeros((size, size), np.float32)
    whole[:height, :width] = part
    whole = np.roll(whole, (-(height // 2), -(width // 2)), (0, 1))
    values = np.fft.rfft2(whole, axes=(1, 0)).astype(np.complex64)
    level = _smooth((values.real**2 + values.imag**2).T, size // 32).T
    return _Sight((values / np.maximum(level, 1e-12)).astype(np.complex64), size)


def scaled(seen: Floats, pilots: NDArray[np.int64], phase: Complexes) -> Scales:
    """Geometries without a turn, by how well the pilots' phases fit.

    Where the picture's own lines are louder than the mark's, :func:`candidates` is blind to it;
    the phases show it nonetheless.

    Args:
        pilots: ``(P, 2)`` frequencies; phase: ``(P,)``, theirs.
    """
    sight = _sight(seen)
    fine = PERIOD / 2 / (float(RADIUS.max()) * min(max(seen.shape), _WINDOW))
    scale, tried = _SCALES[0], list[Geometry]()
    while scale < _SCALES[1]:
        tried.append(Geometry(scale, scale, 0))
        scale *= 1 + fine * scale
    scores = np.array([_fit(sight, each, pilots, phase) for each in tried])
    made: list[Geometry] = []
    for place in np.argsort(-scores, kind="stable")[:SCALES]:
        steps = np.exp(_ASPECTS * fine * tried[place].rows)
        near = [Geometry(tried[place].rows * r, tried[place].columns * c, 0) for r, c in steps]
        made.append(max(near, key=lambda each: _fit(sight, each, pilots, phase)))
    return Scales(made, len(tried) * len(_ASPECTS))


def _fit(sight: _Sight, geometry: Geometry, pilots: NDArray[np.int64], phase: Complexes) -> float:
    """T² / Σ a² of the best shift (:mod:`mezzotint.provenance.blind`)."""
    factor = np.array([geometry.rows, geometry.columns]) * PERIOD / sight.size
    best = 0.0
    for matrix in _SIDES:
        places = np.rint(pilots @ matrix.T / factor).astype(np.int64)
        inside = (np.abs(places) < sight.size * 0.48).all(1)
        row, column = places.T * np.where(places[:, 0] < 0, -1, 1)
        values = np.where(inside, sight.values[row * inside, column % sight.size * inside], 0)
        along = np.where(places[:, 0] < 0, values.conj(), values) * phase.conj()
        grid = np.zeros((PERIOD, PERIOD), np.complex64)
        grid[pilots[:, 0], pilots[:, 1]] = along
        total = float(np.fft.ifft2(grid).real.max()) * PERIOD**2
        energy = float((along.real**2 + along.imag**2).sum())
        best = max(best, total**2 / max(energy, 1e-20))
    return best


def undone(seen: Floats, geometry: Geometry) -> Floats:
    """The picture as it lay when it was marked (bicubic), a large one's middle only."""
    height, width = seen.shape
    turn = np.deg2rad(geometry.angle)
    cos, sin = float(np.cos(turn)), float(np.sin(turn))
    # a marked picture's (x, y) about its middle → scaled → turned anticlockwise (y downwards)
    across = (cos * geometry.columns, sin * geometry.rows)
    along = (-sin * geometry.columns, cos * geometry.rows)
    size = (
        min(4096, int(width / geometry.columns) + 1),
        min(4096, int(height / geometry.rows) + 1),
    )
    middle = (size[0] / 2, size[1] / 2)
    shift = (
        width / 2 - across[0] * middle[0] - across[1] * middle[1],
        height / 2 - along[0] * middle[0] - along[1] * middle[1],
    )
    moved = Image.fromarray(seen).transform(
        size,
        Image.Transform.AFFINE,
        (across[0], across[1], shift[0], along[0], along[1], shift[1]),
        Image.Resampling.BICUBIC,
    )
    return np.asarray(moved)
