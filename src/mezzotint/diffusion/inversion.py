"""Inversion: the noise from which a deterministic sampler makes given data.

A sampler's step is a map ``x' = Phi(x)`` from a level to a cleaner one.  Inverting it means
solving ``Phi(x) = x'`` for ``x``, from the last step to the first, by the fixed-point iteration

    x <- x + s (x' − Phi(x)),        s = sqrt(alpha^2 + sigma^2) / sqrt(alpha'^2 + sigma'^2),

(after Pan et al. 2023, "Accelerated iterative diffusion inversion", and Garibi et al. 2024,
"ReNoise").  With enough iterations inverting and sampling again returns the start to rounding
error, whatever the number of steps; the plain DDIM inversion stops after the first.  It converges
where ``s Phi'`` has its eigenvalues in (0, 2): a step in which the sampler pulls two close points
apart by more than 2 needs a finer path.  Sampling again from the result shows what is left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from torch import Tensor

from mezzotint.diffusion.level import Conditioning, Denoiser, Estimate, Level
from mezzotint.diffusion.steps import Span, Step, heun_step, spans, take

Phi = Callable[[Tensor, Span], tuple[Tensor, Estimate]]
"""``(x, span) -> (x', estimate at the span's start)``."""


def ddim_inversion(
    denoise: Denoiser,
    x: Tensor,
    levels: Level,
    conditioning: Conditioning,
    *,
    iterations: int = 8,
) -> Iterator[Step]:
    """The start from which :func:`~mezzotint.diffusion.samplers.ddim` (eta = 0) arrives at ``x``.

    Args:
        levels: the sampler's own path ``(N + 1,)``, from noise to data; it is walked backward.
        x: stands at ``levels.at(-1)``, clean data if its sigma is 0.
        iterations: calls of the denoiser a step.  1 is the plain DDIM inversion (Dhariwal &
            Nichol 2021, appendix F), with an error of first order in the step; each further one
            shrinks what is left by a factor.

    Yields:
        Steps with the noisier level, ``x`` there, and the last estimate at that level.

    Raises:
        ValueError: ``iterations`` is not positive; the path is none.
    """

    def phi(x: Tensor, span: Span) -> tuple[Tensor, Estimate]:
        estimate = denoise(x, span.start, conditioning)
        return take(estimate, span.end), estimate

    return _invert(phi, x, levels, iterations)


def heun_inversion(
    denoise: Denoiser,
    x: Tensor,
    levels: Level,
    conditioning: Conditioning,
    *,
    iterations: int = 8,
) -> Iterator[Step]:
    """The start from which :func:`~mezzotint.diffusion.samplers.heun` arrives at ``x``.

    Of second order: the noise found is that of the probability-flow ODE up to O(h^2).  Arguments
    and errors as in :func:`ddim_inversion`; an iteration calls the denoiser twice.
    """

    def phi(x: Tensor, span: Span) -> tuple[Tensor, Estimate]:
        return heun_step(denoise, x, span.start, span.end, conditioning, "eps")

    return _invert(phi, x, levels, iterations)


def _invert(phi: Phi, x: Tensor, levels: Level, iterations: int) -> Iterator[Step]:
    """Solve ``phi(x) = x'`` step by step, from the last span of the path to the first."""
    if iterations < 1:
        raise ValueError(f"an inversion needs at least one iteration, not {iterations}")
    path = list(spans(levels))
    for number, span in enumerate(reversed(path), 1):
        goal = x  # x', at the cleaner level
        scale = _norm(span.start) / _norm(span.end)
        arrived, estimate = phi(scale * goal, span)
        # The factor alpha / alpha' makes the first iteration of DDIM the textbook's, in which only
        # eps is taken from the guess: x = (alpha / alpha') x' + (sigma − alpha sigma' / alpha') eps
        factor = float(span.start.alpha) / float(span.end.alpha)
        x = scale * goal + factor * (goal - arrived)
        for _ in range(iterations - 1):
            arrived, estimate = phi(x, span)
            x = x + scale * (goal - arrived)
        yield Step(number, span.total, span.start, x, estimate)


def _norm(level: Level) -> float:
    """The deviation of x for data of unit variance."""
    return float(level.alpha**2 + level.sigma**2) ** 0.5
