"""Find the watermark in a picture's noise again, with the model that made the picture.

The picture is coded, and from the code ``y`` what the sampler drew is estimated in two ways.

**The start**, of a deterministic sampler: the path is walked backward
(:mod:`mezzotint.diffusion.inversion`).

**What the steps drew**, of a stochastic one, which washes the start out.  A step
``x' = alpha' x0 + sqrt(sigma'^2 − c^2) eps + c z`` with ``c^2 = sigma'^2 (1 − r^2)`` and
``r = alpha sigma' / (alpha' sigma)`` is, for an ideal denoiser D, the reverse of the forward
process, so given ``x0`` alone ``x`` and ``x'`` are forward noisings of it.  Then

    E[z | x0] = (alpha' / sigma') sqrt(1 − r^2) (x0 − E_n D(alpha x0 + sigma n)):

the picture less what the model makes of it, on average, when it is noised to where the step began.
That is what the step's noise brought.  A code out of a stored picture is a little wrong, by
``e``; and early steps, for which the model is told less than it was, are believed less: each
estimate is multiplied by ``rho / (1 + e^2 alpha'^2 / sigma'^2)`` with
``rho^2 = alpha'^2 / (alpha'^2 + sigma'^2)``, which fits what was measured of the model ``icons``
(docs/watermark/noise.md).  The weights change what is found, never what a p-value means.

Found is the better of the two, at twice its p-value.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from mezzotint.diffusion.guidance import expand_conditioning
from mezzotint.diffusion.inversion import ddim_inversion
from mezzotint.diffusion.level import Conditioning, Level
from mezzotint.diffusion.noise import draws, noise
from mezzotint.diffusion.steps import spans
from mezzotint.engine.generate import device, plan, told_of
from mezzotint.engine.request import Guidance, Request, RequestError
from mezzotint.families.code_readers import reader_for
from mezzotint.families.model import Model
from mezzotint.provenance.noise_mark import Evidence, Found, NoiseMark, fits, read

_ERROR = 0.2  # e: of a code, in standard deviations of the data
_LOOKED = 2  # ways in which a mark is looked for


@dataclass(frozen=True)
class Search:
    """How a mark is looked for.

    prompt, seed: of the picture, if they are known.  A model with a prior is told both; and of a
        seed the noise is known, sizes and all, so that a mark in it is confirmed with less.
    steps, spacing: of its sampler; None values take the model's defaults.
    draws: noises a level, even: the more, the surer, and the slower.
    iterations: of the inversion, a step (:func:`~mezzotint.diffusion.inversion.ddim_inversion`).
    refine: steps in which the code is led to decode to the picture, so that a picture that is
        stored without loss is read better.  It takes an autoencoder's gradients.
    """

    prompt: str = ""
    seed: int | None = None
    steps: int | None = None
    spacing: str | None = None
    draws: int = 8
    iterations: int = 2
    refine: int = 60

    def check(self) -> None:
        """Raises RequestError: a number is none that can be worked with."""
        if self.draws < 2 or self.draws % 2:
            raise RequestError(f"noises go in pairs: draws is 2, 4, …, not {self.draws}")
        if self.iterations < 1:
            raise RequestError(f"iterations must be 1 or more, not {self.iterations}")
        if self.refine < 0:
            raise RequestError(f"refine must be 0 or more, not {self.refine}")


def detect(model: Model, picture: Tensor, key: bytes, search: Search | None = None) -> Found:
    """The mark that is likeliest in a picture, with its p-value.

    Args:
        picture: ``(C, *spatial)`` in [−1, 1], of the model's channels.  Of a model with
            transparency three channels will do, or four of which nothing is transparent: what was
            laid on white, see :func:`cut_out`.

    Raises:
        RequestError: the picture or the search does not fit the model.
        MarkError: the key is none.
    """
    ways = evidence(model, picture, search)
    best = min((read(way, key) for way in ways), key=lambda found: found.p_value)
    return best._replace(p_value=min(1.0, _LOOKED * best.p_value))


def verify_mark(
    model: Model, picture: Tensor, mark: NoiseMark, search: Search | None = None
) -> float:
    """The p-value of one mark that is known beforehand, such as that of a recipe: see
    :func:`~mezzotint.provenance.noise_mark.fits`.  Arguments and errors as in :func:`detect`."""
    ways = evidence(model, picture, search)
    if search is not None and search.seed is not None:
        seed = search.seed
        ways = tuple([_sized(each, seed) for each in way] for way in ways)
    return min(1.0, _LOOKED * min(fits(way, mark) for way in ways))


def _sized(found: Evidence, seed: int) -> Evidence:
    """Each element's evidence times the size of the noise that the seed has there: the sign of a
    large one is seen better.  Sizes tell nothing of the key, so p-values stay what they are."""
    own = noise(seed, found.draw, found.number, found.noise.shape)
    return found._replace(noise=found.noise * own.abs().to(found.noise))


def evidence(
    model: Model, picture: Tensor, search: Search | None = None
) -> tuple[list[Evidence], list[Evidence]]:
    """What is believed of a picture's noise: of the steps, and of the start.

    Arguments and errors as in :func:`detect`.
    """
    search = search or Search()
    search.check()
    if model.codec.channels == 4 and picture.ndim == 3 and bool((picture[3:] == 1).all()):
        picture = picture[:3]
    flat = model.codec.channels == 4 and picture.ndim == 3 and picture.shape[0] == 3
    if not flat and (picture.ndim < 2 or picture.shape[0] != model.codec.channels):
        raise RequestError(
            f"the picture has shape {tuple(picture.shape)}, {model.name} makes "
            f"{model.codec.channels} channels"
        )
    if not bool(picture.isfinite().all()):
        raise RequestError("the picture has numbers that are not finite")
    request = Request(
        search.prompt,
        (0,),
        size=tuple(picture.shape[1:]),
        steps=search.steps,
        spacing=search.spacing,
        guidance=Guidance(scale=None if model.distilled else 1.0),
    )
    with torch.inference_mode():
        planned = plan(model, request)
        told = told_of(model, planned, search.seed or 0)
        seen = picture[None].to(device(model))
        cuts = (cut_out(picture), cut_out(picture, enclosed=True)) if flat else (picture,)
        codes = [_code(model, seen, cut[None].to(seen)) for cut in cuts]
        code = _likelier(model, codes, planned.path, told)
    if search.refine:
        code = _refined(model, code, seen, search.refine)
    with torch.inference_mode():
        return (
            _of_steps(model, code, planned.path, told, search.draws),
            _of_start(model, code, planned.path, told, search.iterations),
        )


def _code(model: Model, seen: Tensor, cut: Tensor) -> Tensor:
    """The likeliest code of a picture: by the model's encoder, and where a reader was trained for
    its codes, by that (:mod:`mezzotint.networks.code_reader`)."""
    code = model.codec.encode(cut)
    reader = reader_for(model.codec)
    if reader is None:
        return code
    return reader.to(cut.device)(_on_white(seen), cut, code)


def _likelier(model: Model, codes: Sequence[Tensor], path: Level, told: Conditioning) -> Tensor:
    """Of codes of one picture the one that the model believes more: from which it is less far when
    that is noised.  It knows no key, so p-values stay what they are."""
    denoise, far = model.denoise(), [0.0] * len(codes)
    inner = [span for span in spans(path) if not span.infinite]
    if not inner or all(torch.equal(code, codes[0]) for code in codes):
        return codes[0]
    for span in (inner[round(part * (len(inner) - 1))] for part in _LOOKED_AT):
        weight = float(span.start.alpha / span.start.sigma) ** 2
        half = draws(0, f"likelier/{span.index}", range(2), codes[0].shape[1:]).to(codes[0])
        for number, code in enumerate(codes):
            x = span.start.alpha * code + span.start.sigma * torch.cat([half, -half])
            believed = denoise(x, span.start, expand_conditioning(told, len(x))).x0
            far[number] += weight * float((believed - code).square().sum())
    return codes[far.index(min(far))]


_LOOKED_AT = (0.65, 0.9)  # of the path: where the drawing is settled and its ground is judged


def _on_white(picture: Tensor) -> Tensor:
    """``(B, 3, H, W)`` of premultiplied RGBA, or of what is on white already; in [−1, 1]."""
    return picture if picture.shape[1] == 3 else picture[:, :3] - picture[:, 3:] + 1


def _of_steps(
    model: Model, code: Tensor, path: Level, told: Conditioning, count: int
) -> list[Evidence]:
    denoise, made = model.denoise(), list[Evidence]()
    for span in spans(path):
        alpha, sigma = float(span.end.alpha), float(span.end.sigma)
        if sigma == 0:  # such a step draws nothing
            continue
        half = draws(0, f"detect/{span.index}", range(count // 2), code.shape[1:]).to(code)
        mean = torch.zeros_like(code)
        for eps in torch.cat([half, -half]).split(_BATCH):
            x = span.start.alpha * code + span.start.sigma * eps
            believed = denoise(x, span.start, expand_conditioning(told, len(eps))).x0
            mean += believed.sum(0, keepdim=True) / count
        ratio = alpha / sigma
        weight = ratio * math.sqrt(1 - span.decay**2)
        weight *= alpha / math.hypot(alpha, sigma) / (1 + (_ERROR * ratio) ** 2)
        made.append(Evidence("step", span.index, weight * (code - mean)[0]))
    return made


_BATCH = 8  # noises that are denoised at once


def _of_start(
    model: Model, code: Tensor, path: Level, told: Conditioning, iterations: int
) -> list[Evidence]:
    x = float(path.alpha[-1]) * code
    for step in ddim_inversion(model.denoise(), x, path, told, iterations=iterations):
        x = step.x
    return [Evidence("start", 0, x[0])]


def _refined(model: Model, code: Tensor, seen: Tensor, steps: int) -> Tensor:
    """The code near the encoder's that decodes to the picture: ``argmin |decode(c) − picture|^2 +
    |c − code|^2`` by Adam, where the picture is flat with what is decoded laid on white."""
    begun = code.clone()
    guess = begun.clone().requires_grad_()
    descent = torch.optim.Adam([guess], lr=_RATE, betas=(0.9, 0.99))
    for step in range(steps):
        for group in descent.param_groups:
            group["lr"] = _RATE * (1 - step / steps)
        decoded = model.codec.decode(guess).clamp(-1, 1)
        if decoded.shape[1] != seen.shape[1]:
            decoded = _on_white(decoded)
        lost = (decoded - seen).square().sum() + (guess - begun).square().sum()
        (guess.grad,) = torch.autograd.grad(lost, guess)
        descent.step()
    return guess.detach()


_RATE = 0.02
_WHITE = 0.92  # so light is a white ground that was compressed


def cut_out(picture: Tensor, enclosed: bool = False) -> Tensor:
    """What lies on a white ground, ``(3, H, W)`` in [−1, 1], as premultiplied RGBA.

    The ground is all that is nearly white and joined to the border by such; two pixels beside it
    are as clear as their darkest channel allows.  White that touches the ground goes with it.

    enclosed: white that the drawing surrounds goes too, as a drawing of lines alone needs it.
    """
    unit = (picture + 1) / 2
    light = unit.amin(0)[None]  # (1, H, W)
    near = (light > _WHITE).float()
    ground = torch.zeros_like(near)
    ground[:, [0, -1]], ground[:, :, [0, -1]] = near[:, [0, -1]], near[:, :, [0, -1]]
    if enclosed:
        ground = near
    while not enclosed:
        wider = F.max_pool2d(ground, 3, 1, 1) * near
        if torch.equal(wider, ground):
            break
        ground = wider
    beside = F.max_pool2d(ground, 5, 1, 2) > 0
    alpha = torch.where(beside, 1 - light, torch.ones_like(light))
    alpha = torch.where(ground > 0, torch.zeros_like(light), alpha)
    colour = torch.minimum((unit - (1 - alpha)).clamp_min(0), alpha)
    return torch.cat([colour, alpha]) * 2 - 1
