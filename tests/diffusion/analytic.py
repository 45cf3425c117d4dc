"""Denoisers with closed forms, for any level, and levels of every kind of model."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mezzotint.diffusion.level import Conditioning, Denoiser, Estimate, Level, from_x0
from mezzotint.diffusion.prediction import Row, solve, target

CURVES: dict[str, Callable[[Tensor], Level]] = {
    "ve": lambda lam: Level(torch.ones_like(lam), torch.exp(-lam)),
    "vp": lambda lam: Level(torch.sigmoid(2 * lam).sqrt(), torch.sigmoid(-2 * lam).sqrt()),
    "flow": lambda lam: Level(torch.sigmoid(lam), torch.sigmoid(-lam)),
}
"""Half log-SNR -> level: variance exploding, variance preserving, rectified flow."""


def path(curve: str, steps: int, low: float, high: float, grade: float = 1.0) -> Level:
    """``steps + 1`` levels with half log-SNR from ``low`` to ``high``, first steps shorter if
    ``grade > 1``."""
    u = torch.linspace(0, 1, steps + 1, dtype=torch.float64) ** grade
    return CURVES[curve](low + (high - low) * u)


def closed(levels: Level) -> Level:
    """The path with clean data (alpha of the curve, sigma = 0) put at its end."""
    one, zero = torch.ones(1, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)
    return Level(torch.cat([levels.alpha, one]), torch.cat([levels.sigma, zero]))


def gaussian(mean: Tensor, covariance: Tensor) -> Denoiser:
    """The exact denoiser of data ``N(mean (D,), covariance (D, D))`` for ``x (B, D)``.

    With ``S = alpha^2 C + sigma^2 I``: ``x0 = m + alpha C S^-1 (x − alpha m)`` and
    ``eps = sigma S^-1 (x − alpha m)``, defined at both ends of the path.
    """
    identity = torch.eye(len(mean), dtype=mean.dtype)

    def denoise(x: Tensor, level: Level, conditioning: Conditioning) -> Estimate:
        alpha, sigma = level
        total = alpha**2 * covariance + sigma**2 * identity
        white = torch.linalg.solve(total, (x - alpha * mean).T).T  # (B, D)
        return Estimate(mean + alpha * white @ covariance, sigma * white)

    return denoise


def gaussian_flow(mean: Tensor, covariance: Tensor, x: Tensor, start: Level, end: Level) -> Tensor:
    """The exact solution of the probability-flow ODE for Gaussian data.

    Along each eigenvector of C, ``(x − alpha m) / sqrt(alpha^2 c + sigma^2)`` is constant.
    """
    values, vectors = torch.linalg.eigh(covariance)
    before = (start.alpha**2 * values + start.sigma**2).sqrt()
    after = (end.alpha**2 * values + end.sigma**2).sqrt()
    white = (x - start.alpha * mean) @ vectors
    return end.alpha * mean + (white * (after / before)) @ vectors.T


def dataset(points: Tensor) -> Denoiser:
    """The exact denoiser of a finite data set ``points (K, D)``: a softmax over the points."""

    def denoise(x: Tensor, level: Level, conditioning: Conditioning) -> Estimate:
        alpha, sigma = level
        distance = (x[:, None] - alpha * points).square().sum(-1)  # (B, K)
        weights = torch.softmax(-distance / (2 * sigma**2), dim=1)
        return from_x0(x, level, weights @ points)

    return denoise


def constant(x0: Tensor) -> Denoiser:
    """Data that is one single point."""

    def denoise(x: Tensor, level: Level, conditioning: Conditioning) -> Estimate:
        return from_x0(x, level, x0.expand_as(x))

    return denoise


def through(row: Row, denoise: Denoiser) -> Denoiser:
    """The same denoiser by way of a network's output: ``F = p x0 + q eps``, then the solve."""

    def roundtrip(x: Tensor, level: Level, conditioning: Conditioning) -> Estimate:
        estimate = denoise(x, level, conditioning)
        output = target(row, estimate.x0, estimate.eps, level)
        return solve(row, x, output, level)

    return roundtrip
