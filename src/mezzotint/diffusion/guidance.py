"""Guidance and constraints: functions from denoisers to denoisers.

Two estimates of one ``x`` differ by a displacement along which ``x = alpha x0 + sigma eps`` does
not change, ``alpha dx0 + sigma deps = 0``.  Every guidance adds such displacements and so keeps
the invariant; sums of them keep it too.  Scale 1 means off, everywhere.

A *rule* makes one estimate of a strong and a weak one:  ``(strong, weak, scale, level)``.
Classifier-free guidance, autoguidance, perturbed-attention and skip-layer guidance differ in what
the weak denoiser is, not in the rule; so any rule goes with any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from mezzotint.diffusion.level import Conditioning, Denoiser, Estimate, Level, Tokens
from mezzotint.diffusion.prediction import ROWS, Row, target

Rule = Callable[[Estimate, Estimate, float, Level], Estimate]
"""``(strong, weak, scale, level) -> guided``: keeps the invariant, gives ``strong`` at scale 1."""


def displace(estimate: Estimate, row: Row, change: Tensor, level: Level) -> Estimate:
    """The estimate whose output ``F = p x0 + q eps`` differs by ``change``, for the same ``x``.

    ``dx0 = −(sigma / det) dF``, ``deps = (alpha / det) dF``, ``det = alpha q − sigma p``.

    Raises:
        ValueError: the prediction type is undefined at this level (``det = 0``).
    """
    (alpha, sigma), (p, q) = level.to(change), Level(*row(level)).to(change)
    det = alpha * q - sigma * p
    if not bool((det != 0).all()):
        raise ValueError(
            "a guidance in this prediction type is undefined at this noise level "
            "(alpha q - sigma p = 0): choose another row, or limit it to an interval"
        )
    return Estimate(
        estimate.x0 - (sigma / det) * change,
        estimate.eps + (alpha / det) * change,
        estimate.variance_mix,
    )


def linear(strong: Estimate, weak: Estimate, scale: float, level: Level) -> Estimate:
    """``weak.lerp(strong, w)``, w = 1 + the paper's w (Ho & Salimans 2022, eq. 6)."""
    x0, eps = (torch.lerp(a, b, scale) for a, b in zip(weak[:2], strong[:2], strict=True))
    return Estimate(x0, eps, strong.variance_mix)


def rescale(phi: float = 0.7, rule: Rule = linear, row: Row = ROWS["v"]) -> Rule:
    """Give a rule's output the standard deviation of the strong one, by the share ``phi``.

    ``F' = phi F std(F_strong) / std(F) + (1 − phi) F`` (Lin et al. 2024, §3.4, eq. 14–16), the
    deviation over each sample.

    Args:
        row: the prediction type whose output is rescaled: the paper's networks predict v.
    """

    def rescaled(strong: Estimate, weak: Estimate, scale: float, level: Level) -> Estimate:
        guided = rule(strong, weak, scale, level)
        output = target(row, guided.x0, guided.eps, level)
        wanted = _std(target(row, strong.x0, strong.eps, level))
        actual = _std(output).clamp(min=torch.finfo(output.dtype).tiny)
        return displace(guided, row, phi * (wanted / actual - 1) * output, level)

    return rescaled


def _per_sample(values: list[Tensor], like: Tensor) -> Tensor:
    """One number a sample, shaped ``(B, 1, …)``.

    Callers reduce one sample at a time: the order of a batched sum may depend on the batch size,
    and a sample must not know its batch.
    """
    return torch.stack(values).view(-1, *(1,) * (like.ndim - 1))


def _std(x: Tensor) -> Tensor:
    """The standard deviation of each sample, shaped ``(B, 1, …)``."""
    return _per_sample([sample.std() for sample in x], x)


def _dot(a: Tensor, b: Tensor) -> Tensor:
    """The inner product of each sample, shaped ``(B, 1, …)``."""
    return _per_sample([sample.sum() for sample in a * b], a)


def apg(eta: float = 0.0, norm_threshold: float | None = None, momentum: float = 0.0) -> Rule:
    """Adaptive projected guidance (Sadat et al. 2024, alg. 1), on x0.

    The difference of the estimates is averaged over the steps (``momentum``, the paper's negative
    beta), shortened to ``norm_threshold`` (r), and its part along the strong estimate, which
    saturates colours, multiplied by ``eta``: ``x0 + (w − 1) (orthogonal + eta parallel)``.

    With a momentum the rule remembers its last difference: make a fresh one for each run.

    Raises:
        ValueError: in a run, when a rule with momentum meets another shape (it was reused).
    """
    running: list[Tensor] = []

    def projected(strong: Estimate, weak: Estimate, scale: float, level: Level) -> Estimate:
        difference = strong.x0 - weak.x0
        if momentum != 0:
            if running and running[0].shape != difference.shape:
                raise ValueError("an apg rule with momentum serves one run: make a fresh one")
            difference = difference + momentum * running[0] if running else difference
            running[:] = [difference]
        tiny = torch.finfo(difference.dtype).tiny
        if norm_threshold is not None:
            norm = _dot(difference, difference).sqrt().clamp(min=tiny)
            difference = difference * (norm_threshold / norm).clamp(max=1)
        along = _dot(difference, strong.x0) / _dot(strong.x0, strong.x0).clamp(min=tiny)
        parallel = along * strong.x0
        change = (scale - 1) * (difference - parallel + eta * parallel)
        return displace(strong, ROWS["x0"], change, level)

    return projected


def cfg_zero_star(zero_from: Level | None = None, row: Row = ROWS["flow"]) -> Rule:
    """CFG-Zero* (Fan et al. 2025): the weak velocity optimally scaled, the first steps zero.

    ``F = s F_weak + w (F_strong − s F_weak)``, ``s = <F_strong, F_weak> / |F_weak|^2`` for each
    sample.

    Args:
        zero_from: at this level and all noisier ones the velocity is 0 (zero-init): for the first
            k steps give ``path.at(k − 1)``; None for none.
        row: the prediction type that counts as velocity.
    """

    def combined(strong: Estimate, weak: Estimate, scale: float, level: Level) -> Estimate:
        f = target(row, strong.x0, strong.eps, level)
        g = target(row, weak.x0, weak.eps, level)
        share = _dot(f, g) / _dot(g, g).clamp(min=torch.finfo(g.dtype).tiny)
        output = torch.lerp(share * g, f, scale)
        if zero_from is not None:
            # sigma / alpha ≥ the threshold's, without dividing by an alpha of 0.
            noisy = level.sigma * zero_from.alpha >= zero_from.sigma * level.alpha
            keep = (~noisy).to(output.dtype)
            output = output * Level(keep, keep).to(output).alpha
        return displace(strong, row, output - f, level)

    return combined


class Contrast(NamedTuple):
    """A weak denoiser to be led away from.

    weak: called with the same x, level and conditioning.
    scale: w, 1 is off.
    """

    weak: Denoiser
    scale: float
    rule: Rule = linear


def led_away(
    strong: Estimate,
    x: Tensor,
    level: Level,
    conditioning: Conditioning,
    contrasts: Sequence[Contrast],
    start: Estimate,
) -> Estimate:
    """``start`` plus the displacement of each contrast against ``strong``."""
    x0, eps = start.x0, start.eps
    for weak, scale, rule in contrasts:
        if scale == 1:
            continue
        guided = rule(strong, weak(x, level, conditioning), scale, level)
        x0, eps = x0 + (guided.x0 - strong.x0), eps + (guided.eps - strong.eps)
    return Estimate(x0, eps, strong.variance_mix)


def contrast(denoise: Denoiser, contrasts: Sequence[Contrast]) -> Denoiser:
    """``strong + sum_i (rule_i(strong, weak_i, w_i) − strong)``: several guidances, added up.

    Contrasts of scale 1 are not evaluated.
    """

    def guided(x: Tensor, level: Level, conditioning: Conditioning) -> Estimate:
        strong = denoise(x, level, conditioning)
        return led_away(strong, x, level, conditioning, contrasts, strong)

    return guided


def autoguidance(denoise: Denoiser, weak: Denoiser, scale: float, rule: Rule = linear) -> Denoiser:
    """Guidance by a worse version of the model (Karras et al. 2024, autoguidance).

    ``weak`` may be a smaller or less trained network; the same network with its self-attention
    made the identity (perturbed-attention guidance, Ahn et al. 2024) or with layers left out
    (skip-layer guidance).  It is not called at scale 1.
    """
    return contrast(denoise, [Contrast(weak, scale, rule)])


def with_conditioning(denoise: Denoiser, conditioning: Conditioning) -> Denoiser:
    """The denoiser that is always told ``conditioning``; as a weak one, the unconditional."""

    def fixed(x: Tensor, level: Level, _: Conditioning) -> Estimate:
        return denoise(x, level, conditioning)

    return fixed


def in_turn(path: Level, turns: Mapping[int, Denoiser]) -> Denoiser:
    """One denoiser after the other: at a step, that of the last turn that has begun.

    Step n leaves level n of the path and walks up to level n + 1, which is step n + 1's: what a
    sampler evaluates there at the end of step n is told what the next step is told.

    Args:
        path: ``(steps + 1,)``, from noise to data.
        turns: by the step, from 0 on, that each begins with; 0 must be among them.

    Raises:
        ValueError: no turn begins with step 0; in a run, a batch whose levels lie in two steps.
    """
    if 0 not in turns:
        raise ValueError("the first turn must begin with step 0")
    ratios = path.sigma / path.alpha

    def turned(x: Tensor, level: Level, conditioning: Conditioning) -> Estimate:
        ratio = (level.sigma / level.alpha).to(ratios).flatten()
        begun = (ratios[:, None] >= ratio).sum(dim=0)  # levels of the path as noisy, or noisier
        if bool((begun != begun[0]).any()):
            raise ValueError("the levels of a batch lie in several steps: give it one level")
        step = max(int(begun[0]) - 1, 0)
        return turns[max(first for first in turns if first <= step)](x, level, conditioning)

    return turned


def classifier_free(
    denoise: Denoiser,
    negative: Conditioning,
    scale: float,
    rule: Rule = linear,
    contrasts: Sequence[Contrast] = (),
    together: bool = True,
    strong: Denoiser | None = None,
) -> Denoiser:
    """Classifier-free guidance (Ho & Salimans 2022, eq. 6) with any rule.

    Args:
        negative: the conditioning to be led away from: the empty or the negative prompt, of batch
            1 or of the batch of ``x``.
        scale: w; at 1 the negative is not evaluated.
        contrasts: further guidances against the same conditional estimate, added up.
        together: evaluate both in one call of twice the batch where their slots match (twice as
            many samples at a time: more memory, fewer calls); False always calls twice.
        strong: what makes the conditional estimate, where it is another (such as one of regions);
            the negative is then evaluated apart.
    """
    conditional = denoise if strong is None else strong

    def guided(x: Tensor, level: Level, conditioning: Conditioning) -> Estimate:
        if scale == 1:
            best = conditional(x, level, conditioning)
            return led_away(best, x, level, conditioning, contrasts, best)
        if together and strong is None and fits(conditioning, negative):
            both = cat_conditioning(
                expand_conditioning(conditioning, x.shape[0]),
                expand_conditioning(negative, x.shape[0]),
            )
            estimate = denoise(torch.cat([x, x]), _twice(level), both)
            parts = [(None, None) if part is None else part.chunk(2) for part in estimate]
            best, weak = (Estimate(*half) for half in zip(*parts, strict=True))
        else:
            best = conditional(x, level, conditioning)
            weak = denoise(x, level, negative)
        start = rule(best, weak, scale, level)
        return led_away(best, x, level, conditioning, contrasts, start)

    return guided


def _twice(level: Level) -> Level:
    if level.alpha.ndim == 0:
        return level
    return Level(torch.cat([level.alpha, level.alpha]), torch.cat([level.sigma, level.sigma]))


def _tokens_fit(a: Tokens | None, b: Tokens | None) -> bool:
    if a is None or b is None:
        return a is b
    return a.values.shape[2:] == b.values.shape[2:] and (a.ids is None) == (b.ids is None)


def fits(a: Conditioning, b: Conditioning) -> bool:
    """Whether two conditionings can share a batch: the same slots, of the same widths."""

    def same(one: Tensor | None, other: Tensor | None) -> bool:
        if one is None or other is None:
            return one is other
        return one.shape[1:] == other.shape[1:]

    residuals = (a.residuals or ()), (b.residuals or ())
    return (
        same(a.vector, b.vector)
        and _tokens_fit(a.context, b.context)
        and _tokens_fit(a.tokens, b.tokens)
        and same(a.concat, b.concat)
        and len(residuals[0]) == len(residuals[1])
        and all(same(one, other) for one, other in zip(*residuals, strict=True))
    )


def _pad(x: Tensor, length: int) -> Tensor:
    """Zeros behind the tokens of ``x (B, N, C)`` or ``(B, N)``, up to ``length``."""
    missing = length - x.shape[1]
    if missing == 0:
        return x
    return torch.cat([x, x.new_zeros(x.shape[0], missing, *x.shape[2:])], dim=1)


def _cat_tokens(a: Tokens | None, b: Tokens | None) -> Tokens | None:
    if a is None or b is None:
        return None
    length = max(a.values.shape[1], b.values.shape[1])
    values = torch.cat([_pad(a.values, length), _pad(b.values, length)])
    ids = None
    if a.ids is not None and b.ids is not None:
        ids = torch.cat([_pad(a.ids, length), _pad(b.ids, length)])
    if a.mask is None and b.mask is None and a.values.shape[1] == b.values.shape[1]:
        return Tokens(values, None, ids)
    masks = [
        torch.ones(part.values.shape[:2], dtype=torch.bool, device=part.values.device)
        if part.mask is None
        else part.mask.bool()
        for part in (a, b)
    ]
    return Tokens(values, torch.cat([_pad(mask, length) for mask in masks]), ids)


def _cat(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return None if a is None or b is None else torch.cat([a, b])


def cat_conditioning(a: Conditioning, b: Conditioning) -> Conditioning:
    """Two conditionings as one batch, ``a`` first.

    Token sequences of different length are padded at the end and the padding masked, so a
    network that minds its masks gives the same results as alone.

    Raises:
        ValueError: the slots differ, or their widths (see :func:`fits`).
    """
    if not fits(a, b):
        raise ValueError(
            "two conditionings with different slots or widths cannot share a batch: fill the same "
            "slots in both, or evaluate them apart"
        )
    residuals = None
    if a.residuals is not None and b.residuals is not None:
        residuals = tuple(_cat(*pair) for pair in zip(a.residuals, b.residuals, strict=True))
    return Conditioning(
        _cat(a.vector, b.vector),
        _cat_tokens(a.context, b.context),
        _cat_tokens(a.tokens, b.tokens),
        _cat(a.concat, b.concat),
        residuals,
    )


def expand_conditioning(conditioning: Conditioning, batch: int) -> Conditioning:
    """A conditioning of batch 1 repeated for ``batch`` samples; one of ``batch`` as it is.

    Raises:
        ValueError: a slot of another batch size.
    """

    def one(x: Tensor | None) -> Tensor | None:
        return None if x is None else sure(x)

    def sure(x: Tensor) -> Tensor:
        if x.shape[0] not in (1, batch):
            raise ValueError(f"a conditioning for {x.shape[0]} samples does not fit {batch}")
        return x.expand(batch, *x.shape[1:])

    def tokens(x: Tokens | None) -> Tokens | None:
        return None if x is None else Tokens(sure(x.values), one(x.mask), one(x.ids))

    vector, context, joined, concat, residuals = conditioning
    return Conditioning(
        one(vector),
        tokens(context),
        tokens(joined),
        one(concat),
        None if residuals is None else tuple(one(x) for x in residuals),
    )


def interval(guided: Denoiser, plain: Denoiser, low: float, high: float) -> Denoiser:
    """Guidance where ``low < sigma / alpha ≤ high`` only, the plain denoiser elsewhere.

    Kynkäänniemi et al. 2024, "Applying guidance in a limited interval"; the paper's sigma
    is our noise ratio.  Only the denoiser that applies is called; both, where the levels of a
    batch lie on both sides.
    """
    if not 0 <= low < high:
        raise ValueError(f"a guidance interval needs 0 <= low < high, not {low} and {high}")

    def limited(x: Tensor, level: Level, conditioning: Conditioning) -> Estimate:
        ratio = level.sigma / level.alpha
        inside = (ratio > low) & (ratio <= high)
        if bool(inside.all()):
            return guided(x, level, conditioning)
        if not bool(inside.any()):
            return plain(x, level, conditioning)
        yes, no = guided(x, level, conditioning), plain(x, level, conditioning)
        where = inside.to(x.device).view(-1, *(1,) * (x.ndim - 1))
        return Estimate(
            torch.where(where, yes.x0, no.x0), torch.where(where, yes.eps, no.eps), no.variance_mix
        )

    return limited


def classifier(
    denoise: Denoiser, log_prob: Callable[[Tensor, Level], Tensor], scale: float
) -> Denoiser:
    """Classifier guidance (Dhariwal & Nichol 2021, alg. 2), with scale 1 meaning off.

    ``eps − (w − 1) sigma grad_x log p(y | x)``, so the paper's s is ``w − 1``.

    Args:
        log_prob: ``(x, level) -> (B,)`` log probability of what is wanted, differentiable in x.

    Raises:
        ValueError: in a run, at pure noise (alpha = 0), where eps is x itself.
    """

    def guided(x: Tensor, level: Level, conditioning: Conditioning) -> Estimate:
        estimate = denoise(x, level, conditioning)
        if scale == 1:
            return estimate
        with torch.inference_mode(False), torch.enable_grad():
            point = x.detach().clone().requires_grad_(True)
            (gradient,) = torch.autograd.grad(log_prob(point, level).sum(), point)
        sigma = level.to(x).sigma
        return displace(estimate, ROWS["eps"], -(scale - 1) * sigma * gradient, level)

    return guided


Constrain = Callable[[Estimate, Level], Estimate]
"""``(estimate, level) -> estimate`` that keeps the invariant."""


def constrained(denoise: Denoiser, constrain: Constrain) -> Denoiser:
    """The denoiser whose every estimate is constrained; put it around all guidance."""

    def limited(x: Tensor, level: Level, conditioning: Conditioning) -> Estimate:
        return constrain(denoise(x, level, conditioning), level)

    return limited


def known_region(known: Tensor, mask: Tensor) -> Constrain:
    """Inpainting: ``x0 := mask x0 + (1 − mask) known``, and eps by the invariant.

    Args:
        known: the data that is known, ``(B, C, *spatial)`` or what broadcasts to it.
        mask: 1 where to generate, 0 where known; between, a soft edge.
    """

    def constrain(estimate: Estimate, level: Level) -> Estimate:
        change = (1 - mask.to(estimate.x0)) * (known.to(estimate.x0) - estimate.x0)
        return displace(estimate, ROWS["x0"], change, level)

    return constrain


def clamp(low: float = -1.0, high: float = 1.0) -> Constrain:
    """Estimates of data with a known range kept inside it (Ho et al. 2020's clipping)."""

    def constrain(estimate: Estimate, level: Level) -> Estimate:
        change = estimate.x0.clamp(low, high) - estimate.x0
        return displace(estimate, ROWS["x0"], change, level)

    return constrain
