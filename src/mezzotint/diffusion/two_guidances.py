"""Guidance by a text and by a picture, each with a scale of its own."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from mezzotint.diffusion.guidance import (
    Contrast,
    Rule,
    cat_conditioning,
    expand_conditioning,
    fits,
    led_away,
    linear,
)
from mezzotint.diffusion.level import Conditioning, Denoiser, Estimate, Level


def text_and_image(
    denoise: Denoiser,
    negative: Conditioning,
    neither: Conditioning,
    scale: float,
    image_scale: float,
    rule: Rule = linear,
    contrasts: Sequence[Contrast] = (),
    strong: Denoiser | None = None,
) -> Denoiser:
    """Classifier-free guidance by two conditionings (Brooks et al. 2023, eq. 3):

    ``e(0, 0) + s_I (e(0, c_I) − e(0, 0)) + s_T (e(c_T, c_I) − e(0, c_I))``,

    which is the guidance by the text with any rule, and the displacement
    ``(s_I − 1) (e(0, c_I) − e(0, 0))`` added to it.  Three evaluations, as one batch where the
    slots match.

    Args:
        negative: without the text, with the picture; neither: without both.
        scale: s_T; image_scale: s_I; 1 is off.
        contrasts: further guidances against the estimate with both.
        strong: what makes that estimate, where it is another (such as one of regions).
    """
    conditional = denoise if strong is None else strong

    def guided(x: torch.Tensor, level: Level, conditioning: Conditioning) -> Estimate:
        told = [conditioning, negative, neither]
        if strong is None and fits(conditioning, negative) and fits(negative, neither):
            each = [expand_conditioning(one, x.shape[0]) for one in told]
            both = cat_conditioning(cat_conditioning(each[0], each[1]), each[2])
            estimate = denoise(torch.cat([x] * 3), _thrice(level), both)
            parts = [(None,) * 3 if part is None else part.chunk(3) for part in estimate]
            best, weak, weakest = (Estimate(*third) for third in zip(*parts, strict=True))
        else:
            best = conditional(x, level, conditioning)
            weak, weakest = (denoise(x, level, one) for one in told[1:])
        by_text = rule(best, weak, scale, level)
        by_image = linear(weak, weakest, image_scale, level)
        start = Estimate(
            by_text.x0 + (by_image.x0 - weak.x0),
            by_text.eps + (by_image.eps - weak.eps),
            best.variance_mix,
        )
        return led_away(best, x, level, conditioning, contrasts, start)

    return guided


def _thrice(level: Level) -> Level:
    if level.alpha.ndim == 0:
        return level
    return Level(torch.cat([level.alpha] * 3), torch.cat([level.sigma] * 3))
