"""The measures themselves: plain functions of features and pictures, no files, no networks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from quality.features import QualityError

TOP = 10
_BORDER_CLEAR = 0.95
_BIMODAL = 0.90


@dataclass(frozen=True)
class Kid:
    """The estimate from all pictures, and its standard error from disjoint blocks."""

    value: float
    error: float


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    """``k(x, y) = (x·y / d + 1)^3``, Bińkowski et al. 2018 (arXiv 1801.01401), section 4."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def mmd2(x: Tensor, y: Tensor) -> float:
    """Unbiased squared maximum mean discrepancy, Gretton et al. 2012, equation 3.

    ``Σ_{i≠j} k(x_i, x_j) / (m(m−1)) + Σ_{i≠j} k(y_i, y_j) / (n(n−1)) − 2 Σ k(x_i, y_j) / (mn)``

    Args:
        x, y: features ``(m, d)`` and ``(n, d)``; computed in float64.
    """
    x, y = x.double(), y.double()
    m, n = len(x), len(y)
    if m < 2 or n < 2:
        raise QualityError("the kernel distance needs two pictures on each side")
    xx, yy = _kernel(x, x), _kernel(y, y)
    within = (xx.sum() - xx.trace()) / (m * (m - 1)) + (yy.sum() - yy.trace()) / (n * (n - 1))
    return float(within - 2 * _kernel(x, y).mean())


def kid(x: Tensor, y: Tensor, blocks: int = 10) -> Kid:
    """Kernel distance between two sets of features, unbiased: it may come out below zero.

    The error is the standard deviation over ``blocks`` disjoint parts, divided by their square
    root; with fewer than 20 pictures a part, there are fewer parts.
    """
    blocks = max(1, min(blocks, len(x) // 20, len(y) // 20))
    order = [torch.arange(len(s)) for s in (x, y)]
    # Every b-th row, not b runs: lists are often ordered (seen first, then held-out).
    values = [mmd2(x[order[0] % blocks == b], y[order[1] % blocks == b]) for b in range(blocks)]
    spread = float(torch.tensor(values).std()) if blocks > 1 else float("nan")
    return Kid(mmd2(x, y), spread / blocks**0.5)


@dataclass(frozen=True)
class Recall:
    """Share of pictures whose own text is among the ``TOP`` nearest, and what chance gives.

    shuffled: the expectation of the same share when every picture is given another picture's
    text, exactly, over all such assignments.
    """

    value: float
    shuffled: float


def ranks(pictures: Tensor, texts: Tensor) -> Tensor:
    """``(N, M)``: 0 where a text is the nearest of all to a picture, by cosine of unit vectors."""
    return (-(pictures @ texts.T)).argsort(dim=1, stable=True).argsort(dim=1)


def recall(pictures: Tensor, texts: Tensor, truth: Tensor, top: int = TOP) -> Recall:
    """Retrieval of texts by pictures.

    Args:
        pictures: unit vectors ``(N, d)``; texts: unit vectors ``(M, d)``, the candidates.
        truth: ``(N,)``, which candidate each picture was made from.
    """
    hit = (ranks(pictures, texts) < top)[:, truth]  # (N, N): picture i, text of picture j
    count = len(pictures)
    own = float(hit.diagonal().sum())
    other = float(hit.sum()) - own
    return Recall(own / count, other / max(1, count * (count - 1)))


def clean(unit: Tensor) -> Tensor:
    """Which pictures have a really transparent background, ``(N,)`` bool.

    At least 95 % of the border pixels have alpha below 0.05, and at least 90 % of all pixels are
    either nearly clear (alpha below 0.1) or nearly solid (above 0.9); an empty picture is not
    clean.

    Args:
        unit: premultiplied RGBA in [0, 1], ``(N, 4, H, W)``.
    """
    alpha = unit[:, 3]
    edge = torch.cat([alpha[:, 0], alpha[:, -1], alpha[:, 1:-1, 0], alpha[:, 1:-1, -1]], dim=1)
    border = (edge < 0.05).float().mean(1) >= _BORDER_CLEAR
    sorted_out = ((alpha < 0.1) | (alpha > 0.9)).float().mean((1, 2)) >= _BIMODAL
    return border & sorted_out & (alpha > 0.9).any(2).any(1)


def nearest_cosine(x: Tensor, train: Tensor, chunk: int = 8192) -> tuple[Tensor, Tensor]:
    """Distance ``1 − cosine`` to the nearest training row, and which it is: ``(N,)`` each."""
    x = torch.nn.functional.normalize(x.float(), dim=1)
    best = torch.full((len(x),), float("inf"))
    where = torch.zeros(len(x), dtype=torch.long)
    for start in range(0, len(train), chunk):
        part = torch.nn.functional.normalize(train[start : start + chunk].float(), dim=1)
        value, index = (1 - x @ part.T).min(dim=1)
        where = torch.where(value < best, index + start, where)
        best = torch.minimum(best, value)
    return best, where


def nearest_pixels(x: Tensor, train: Tensor, chunk: int = 4096) -> tuple[Tensor, Tensor]:
    """Root mean square difference to the nearest training picture, in [0, 1], and which it is.

    Args:
        x, train: uint8 ``(N, d)`` and ``(M, d)``.
    """
    x = x.float() / 255
    best = torch.full((len(x),), float("inf"))
    where = torch.zeros(len(x), dtype=torch.long)
    for start in range(0, len(train), chunk):
        part = train[start : start + chunk].float() / 255
        square = (x**2).sum(1, keepdim=True) - 2 * x @ part.T + (part**2).sum(1)
        value, index = square.clamp_min(0).min(dim=1)
        where = torch.where(value < best, index + start, where)
        best = torch.minimum(best, value)
    return (best / x.shape[1]).sqrt(), where


def gaussian_pictures(unit: Tensor, count: int, seed: int = 0) -> Tensor:
    """The best linear model: pictures from the Gaussian with the data's mean and covariance.

    ``mean + Σ_n z_n (x_n − mean) / √(N − 1)`` with standard normal ``z`` has exactly the sample
    covariance, which therefore never has to be formed.  Clipped to valid premultiplied colours.
    """
    generator = torch.Generator().manual_seed(seed)
    flat = unit.flatten(1)
    mean = flat.mean(0)
    z = torch.randn(count, len(flat), generator=generator)
    made = mean + (z @ (flat - mean)) / (len(flat) - 1) ** 0.5
    made = made.view(count, *unit.shape[1:]).clamp(0, 1)
    return torch.cat([torch.minimum(made[:, :3], made[:, 3:]), made[:, 3:]], dim=1)


def blurred(unit: Tensor, sigma: float) -> Tensor:
    """Gaussian blur of canonical pictures, ``sigma`` in pixels."""
    radius = max(1, round(3 * sigma))
    grid = torch.arange(-radius, radius + 1, dtype=unit.dtype)
    kernel = torch.exp(-(grid**2) / (2 * sigma**2))
    kernel = (kernel / kernel.sum()).repeat(unit.shape[1], 1, 1, 1)  # (C, 1, 1, K)
    channels = unit.shape[1]
    out = torch.nn.functional.conv2d(unit, kernel, padding=(0, radius), groups=channels)
    kernel = kernel.transpose(2, 3)
    return torch.nn.functional.conv2d(out, kernel, padding=(radius, 0), groups=channels)
