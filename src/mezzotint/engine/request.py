"""What a person asks for, as data: one request type for every task."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from mezzotint.adapters.lora import Fitted
from mezzotint.adapters.strengths import Rule


class RequestError(ValueError):
    """A request that cannot be carried out; the message is one line with the remedy."""


@dataclass(frozen=True)
class Start:
    """Image to image: begin at ``media (C, *spatial)`` noised, not at pure noise.

    strength: share of the path that is walked, in (0, 1]; 1 keeps nothing but the size.
    """

    media: Tensor
    strength: float


@dataclass(frozen=True)
class Known:
    """Inpainting and outpainting: keep ``media (C, *spatial)`` where ``mask (1, *spatial)`` is 0.

    The mask is 1 where something new is to be made, and may be soft.  Where it is 0 the result
    has exactly the known values.
    """

    media: Tensor
    mask: Tensor


@dataclass(frozen=True)
class Guidance:
    """How strongly the prompt steers, and by which rules; they combine freely.

    scale: classifier-free guidance, 1 is off; None takes the model's default
    interval: ``(low, high)`` of the time t: guidance only there (Kynkäänniemi et al. 2024)
    rescale: share of the standard deviation taken back to the conditional's (Lin et al. 2023)
    apg: adaptive projected guidance instead of the plain rule (Sadat et al. 2024)
    cfg_zero_star: optimised unconditional scale and a zero first step (Fan et al. 2025)
    perturb, perturb_scale: blocks whose attention becomes the identity in a weaker self, and how
        far to move away from that self (perturbed-attention guidance, Ahn et al. 2024)
    skip, skip_scale: the same with whole blocks left out (skip-layer guidance)
    """

    scale: float | None = None
    interval: tuple[float, float] | None = None
    rescale: float = 0.0
    apg: bool = False
    cfg_zero_star: bool = False
    perturb: frozenset[int] = frozenset()
    perturb_scale: float = 1.0
    skip: frozenset[int] = frozenset()
    skip_scale: float = 1.0


class Attached(NamedTuple):
    """An adapter for the time of a request: its name, its deltas, and how strongly they act.

    rules: other strengths of some blocks (:mod:`mezzotint.adapters.strengths`).
    """

    name: str
    fitted: tuple[Fitted, ...]
    strength: float
    rules: tuple[Rule, ...] = ()

    def __str__(self) -> str:
        return ":".join([self.name, f"{self.strength:g}", *map(str, self.rules)])


@dataclass(frozen=True)
class Request:
    """One prompt, one or more seeds: a sample a seed, whatever else is in the request.

    size is ``(height, width)`` of a picture, in general the spatial size; None values take the
    model's defaults.  adapters: all that the prompt asks for (``<lora:name:0.8>``), or more.
    """

    prompt: str
    seeds: tuple[int, ...]
    negative: str = ""
    size: tuple[int, ...] | None = None
    steps: int | None = None
    guidance: Guidance = Guidance()
    sampler: str | None = None
    spacing: str | None = None
    start: Start | None = None
    known: Known | None = None
    adapters: tuple[Attached, ...] = ()


class Progress(NamedTuple):
    """Told to a listener after every step; ``preview()`` decodes what is believed now."""

    sample: int  # 0 … samples − 1
    samples: int
    step: int  # 1 … steps
    steps: int
    preview: Callable[[], Tensor]  # (C, *spatial) in [−1, 1]


MAX_STEPS = 10_000
MAX_ELEMENTS = 1 << 26  # of the spatial size


def _edges(size: tuple[int, ...]) -> str:
    """A size as people write it: width first."""
    return "x".join(str(edge) for edge in reversed(size))


def check(request: Request, channels: int, multiple: int, size: tuple[int, ...]) -> None:
    """Raise RequestError for what no model, or not this one, can do."""
    if min(size) < 1 or math.prod(size) > MAX_ELEMENTS:
        raise RequestError(
            f"impossible size {_edges(size)}: give 1 or more on each side and at most "
            f"{MAX_ELEMENTS:,} pixels"
        )
    if any(edge % multiple for edge in size):
        near = tuple(max(multiple, round(edge / multiple) * multiple) for edge in size)
        raise RequestError(
            f"impossible size {_edges(size)}: this model needs multiples of {multiple}; "
            f"nearest {_edges(near)}"
        )
    if not request.seeds:
        raise RequestError("no seed: a request makes one sample a seed")
    if request.steps is not None and not 1 <= request.steps <= MAX_STEPS:
        raise RequestError(f"steps must lie in 1…{MAX_STEPS}, not {request.steps}")
    scale = request.guidance.scale
    if scale is not None and not (math.isfinite(scale) and scale >= 0):
        raise RequestError(f"guidance must be a number of 0 or more (1 is off), not {scale}")
    wish = request.guidance
    low, high = wish.interval or (0.0, 1.0)
    if not 0 <= low < high <= 1:
        raise RequestError(
            f"a guidance interval is two times, 0 <= low < high <= 1, not {low} and {high}"
        )
    for name, numbers, far in (
        ("perturb", wish.perturb, wish.perturb_scale),
        ("skip", wish.skip, wish.skip_scale),
    ):
        if numbers and not (math.isfinite(far) and far > 0):
            raise RequestError(f"the scale of {name} must be a number above 0, not {far}")
    if request.start is not None:
        if not 0 < request.start.strength <= 1:
            raise RequestError(f"strength must lie in (0, 1], not {request.start.strength}")
        _check_media("the start image", request.start.media, channels, size)
    if request.known is not None:
        _check_media("the known image", request.known.media, channels, size)
        _check_media("the mask", request.known.mask, 1, size)


def _check_media(what: str, media: Tensor, channels: int, size: tuple[int, ...]) -> None:
    if tuple(media.shape) != (channels, *size):
        raise RequestError(
            f"{what} has shape {tuple(media.shape)}, this request needs {(channels, *size)} "
            "(channels, height, width)"
        )
