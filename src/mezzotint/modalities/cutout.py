"""A picture without the ground behind what it shows, as large as it was.

Where the ground is one colour, or runs evenly from one to others, it is known everywhere, and a
pixel's alpha is how far its colour has gone from the ground's to that of what lies next to it.

Other grounds are told by their colours, as in GrabCut (Rother, Kolmogorov & Blake 2004): mixtures
of Gaussians for the ground and for the thing, learnt in turns with the segmentation.  That one is
a random walk with priors (Grady 2005): what is minimized is

    Σ_ij w_ij (a_i − a_j)² + Σ_i λ_i (a_i − p_i)²,  w_ij = exp(−β |c_i − c_j|²) + least

where p is what the mixtures say of a pixel's colour c; it is one linear system, solved by conjugate
gradients.  It begins with where a walk to the border takes long, for there are edges on the way
(p = 0 at the border, and with a very small λ 1 elsewhere), and that stays a part of what p says.
The edge is fitted to the picture's by a guided filter (He, Sun & Tang 2013).

In both the colours at the edge are freed of the ground's (Forte 2021).  Nothing has learnt from
pictures, and nothing is drawn by chance: the same picture gives the same.  It is for a thing that
lies whole in the picture: what reaches far along its border is taken for ground.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from mezzotint.modalities.ground import flooded
from mezzotint.modalities.image import ImageError, as_rgba

_WORK = 288  # pixels of the longer edge, on which the ground is told by colours
_EVEN = 0.09  # of 1 in each channel: how far a ground that runs evenly may be from what is foreseen
_LEAST = 0.02  # so far it may be at least
_MOSTLY = 0.9  # share of the border that has to be so
_FITTED = 1024  # pixels of the longer edge, on which the edges are fitted
_FLOODED = 640  # pixels of the longer edge, on which an even ground is followed from the border
_MOST = 24 * 2**20  # pixels
_OPAQUE = 250  # alpha from which a pixel counts as opaque


def cutout(image: Image.Image) -> Image.Image:
    """The picture with its ground made transparent: RGBA, of the same size.

    What is surely not ground keeps its bytes.

    Raises:
        ImageError: it is transparent already, or all of it is ground.
    """
    if image.width * image.height > _MOST:
        raise ImageError(f"is of more than {_MOST >> 20} megapixels: make it smaller first")
    whole = np.array(as_rgba(image))
    if whole[..., 3].min() < _OPAQUE:
        raise ImageError("is transparent already: there is no ground to remove")
    colours = torch.from_numpy(whole[..., :3].astype(np.float32) / 255).permute(2, 0, 1)[None]
    if min(colours.shape[-2:]) < 8:
        raise ImageError("is too small to tell its ground")
    ground = _even_ground(colours)
    alpha = _told_by_colours(colours) if ground is None else _unmixed(colours, *ground)
    alpha = ((alpha - 0.04) / 0.92).clamp(0, 1)
    if float(alpha.mean()) < 1e-3:
        raise ImageError("nothing stands out from its ground")
    freed = _freed(colours, alpha)
    kept = alpha > 0.99
    bytes_ = (torch.where(kept, colours, freed)[0].permute(1, 2, 0) * 255).round().byte().numpy()
    edge = (alpha[0, 0] * 255).round().byte().numpy()
    sure = kept[0, 0].numpy()
    whole[..., :3] = np.where(sure[..., None], whole[..., :3], bytes_)
    whole[..., 3] = np.where(sure, 255, edge)
    whole[whole[..., 3] == 0] = 0
    return Image.fromarray(whole)


# --- a ground that runs evenly ----------------------------------------------------------------


def _planes(height: int, width: int) -> Tensor:
    """1, x, y, x², xy, y² of each pixel, ``(6, H, W)``."""
    y, x = torch.meshgrid(
        torch.linspace(-1, 1, height), torch.linspace(-1, 1, width), indexing="ij"
    )
    return torch.stack([torch.ones_like(x), x, y, x * x, x * y, y * y])


def _border(of: Tensor, depth: int = 1) -> Tensor:
    """The pixels at the border of ``(C, H, W)``, ``(N, C)``."""
    inner = torch.zeros(of.shape[-2:], dtype=torch.bool)
    inner[depth:-depth, depth:-depth] = True
    return of[:, ~inner].T


def _even_ground(colours: Tensor) -> tuple[Tensor, float] | None:
    """The ground behind everything, ``(1, 3, H, W)``, fitted to the border, and how far from it
    ground is; None: it is not even.

    Least squares, over those that the last fit was near to.
    """
    planes = _planes(*colours.shape[-2:])
    at, seen = _border(planes), _border(colours[0])
    near = torch.ones(len(at), dtype=torch.bool)
    fit = torch.zeros(6, 3)
    for bound in (0.5, 0.25, _EVEN, _EVEN, _EVEN):
        if near.sum() < 12:
            return None
        fit = torch.linalg.lstsq(at[near], seen[near], driver="gelsd").solution
        near = (at @ fit - seen).abs().amax(1) <= bound
    if near.float().mean() < _MOSTLY:
        return None
    apart = (at @ fit - seen).abs().amax(1)[near]
    usual = float(apart.kthvalue(math.ceil(0.98 * len(apart))).values)
    return torch.einsum("phw,pc->chw", planes, fit)[None], min(max(2 * usual, _LEAST), _EVEN)


def _unmixed(colours: Tensor, ground: Tensor, near: float) -> Tensor:
    """Alpha before a known ground: with the colour F of what lies next to it, of
    C = a F + (1 − a) B the nearest a."""
    apart = (colours - ground).abs().amax(1, keepdim=True)
    empty = _reached((apart <= near).float())
    sure = 1 - F.max_pool2d(empty, 5, stride=1, padding=2)  # farther than two pixels from it
    weight = sure
    found, reach = torch.zeros_like(colours), torch.zeros_like(sure)
    for radius in (2, 4, 8):  # the nearest that there is
        share = _mean(weight, radius)
        here = (reach == 0) & (share > 1e-6)
        found = torch.where(here, _mean(colours * weight, radius) / share.clamp_min(1e-6), found)
        reach = torch.maximum(reach, here.float())
    way = found - ground
    alpha = ((colours - ground) * way).sum(1, keepdim=True) / way.square().sum(1, True).clamp_min(
        1e-4
    )
    # Thin lines have no inside: the strongest of their colours near by stands for it.
    strongest = F.max_pool2d(apart, 5, stride=1, padding=2)
    alpha = torch.where(reach > 0, alpha, apart / strongest.clamp_min(near)).clamp(0, 1)
    beside = F.max_pool2d(1 - empty, 5, stride=1, padding=2)  # the ground next to something
    return torch.where(sure > 0, torch.ones_like(alpha), alpha * beside)


def _reached(near: Tensor) -> Tensor:
    """What of a mask is connected to the border: of a large one as a smaller one tells."""
    small = flooded(_shrunk(near, _FLOODED)[0, 0] > 0.5)[None, None].float()
    if small.shape == near.shape:
        return small
    grown = F.max_pool2d(small, 3, stride=1, padding=1)
    return near * F.interpolate(grown, size=near.shape[-2:], mode="nearest")


def _mean(of: Tensor, radius: int) -> Tensor:
    """The mean of a square around each pixel, of what of it lies in the picture."""
    size = 2 * radius + 1
    rows = F.avg_pool2d(of, (1, size), 1, (0, radius), count_include_pad=False)
    return F.avg_pool2d(rows, (size, 1), 1, (radius, 0), count_include_pad=False)


# --- any ground -------------------------------------------------------------------------------


class _Mixture(NamedTuple):
    """Gaussians: logarithms of their weights and normalizations (K,), means (K, 3), precision
    factors (K, 3, 3) with |factor (c − mean)|² the squared distance of Mahalanobis."""

    logs: Tensor
    means: Tensor
    factors: Tensor

    def log_density(self, colours: Tensor) -> Tensor:
        """``(N, 3)`` → of each under each Gaussian, ``(N, K)``."""
        apart = torch.einsum("kij,nkj->nki", self.factors, colours[:, None] - self.means)
        return self.logs - apart.square().sum(2) / 2


_GAUSSIANS = 6
_LEARNT = 8000  # of so many pixels


def _learnt(colours: Tensor, weights: Tensor) -> _Mixture:
    """A mixture of Gaussians by expectation and maximization, from colours far from each other."""
    step = max(1, len(colours) // _LEARNT)
    colours, weights = colours[::step], weights[::step]
    first = (weights[:, None] * colours).sum(0) / weights.sum()
    centres = [colours[((colours - first).square().sum(1) * weights.sqrt()).argmax()]]
    for _ in range(_GAUSSIANS - 1):
        nearest = torch.stack([(colours - each).square().sum(1) for each in centres]).amin(0)
        centres.append(colours[(nearest * weights.sqrt()).argmax()])
    means = torch.stack(centres)
    shares = F.one_hot(torch.cdist(colours, means).argmin(1), _GAUSSIANS).float()
    mixture = _maximized(colours, shares * weights[:, None])
    for _ in range(8):
        shares = mixture.log_density(colours).softmax(1)
        mixture = _maximized(colours, shares * weights[:, None])
    return mixture


def _maximized(colours: Tensor, shares: Tensor) -> _Mixture:
    total = shares.sum(0).clamp_min(1e-3)
    means = shares.T @ colours / total[:, None]
    apart = colours[:, None] - means
    spread = torch.einsum("nk,nki,nkj->kij", shares, apart, apart) / total[:, None, None]
    spread = spread + torch.eye(3) * 3e-4  # no narrower than what JPEG does
    factors = torch.linalg.inv(torch.linalg.cholesky(spread))
    logs = (total / total.sum()).log() + factors.diagonal(dim1=1, dim2=2).log().sum(1)
    return _Mixture(logs, means, factors)


def _walked(colours: Tensor, prior: Tensor, trust: Tensor) -> Tensor:
    """What is minimized above, ``(H, W)``; trust: λ of each pixel."""
    right = (colours[..., 1:] - colours[..., :-1]).square().sum(0)
    down = (colours[:, 1:] - colours[:, :-1]).square().sum(0)
    steps = torch.cat([right.flatten(), down.flatten()])
    usual = steps[steps <= steps.kthvalue(int(0.995 * len(steps))).values].mean()
    beta = 1 / (2 * usual.clamp_min(2e-3))  # the sharpest edges do not say what is usual
    across, along = ((-beta * each).exp() + 1e-4 for each in (right, down))

    def system(a: Tensor) -> Tensor:
        made = trust * a
        flow = across * (a[:, 1:] - a[:, :-1])
        made[:, 1:] += flow
        made[:, :-1] -= flow
        flow = along * (a[1:] - a[:-1])
        made[1:] += flow
        made[:-1] -= flow
        return made

    a = prior.clone()
    residual = trust * prior - system(a)
    way, size = residual.clone(), residual.square().sum()
    for _ in range(300):
        if size < 1e-6:
            break
        moved = system(way)
        step = size / (way * moved).sum()
        a += step * way
        residual -= step * moved
        before, size = size, residual.square().sum()
        way = residual + size / before * way
    return a.clamp(0, 1)


def _shrunk(of: Tensor, edge: int) -> Tensor:
    height, width = of.shape[-2:]
    ratio = min(1.0, edge / max(height, width))
    size = (max(8, round(height * ratio)), max(8, round(width * ratio)))
    return F.interpolate(of, size=size, mode="area")


def _told_by_colours(colours: Tensor) -> Tensor:
    part = _segmented(_shrunk(colours, _WORK)[0])[None, None]
    fitted = _shrunk(colours, _FITTED)
    part = F.interpolate(part, size=fitted.shape[-2:], mode="bilinear")
    return _guided(colours, fitted, part, max(2, round(max(fitted.shape[-2:]) / 100)))


_AWAY = 1e-4  # λ of the first walk: a ground without edges is left in some √(1/λ) = 100 pixels


def _segmented(small: Tensor) -> Tensor:
    """What is not ground of a small picture ``(3, H, W)``: 1 there."""
    height, width = small.shape[1:]
    flat = small.flatten(1).T.contiguous()
    depth = max(2, round(0.025 * max(height, width)))
    frame = torch.ones(height, width)
    frame[depth:-depth, depth:-depth] = 0
    apart = _walked(small, 1 - frame, frame + _AWAY)
    odds = apart.clamp(1e-3, 1 - 1e-3).logit()
    part = apart
    for _ in range(5):
        thing = _learnt(flat, (part * (part > 0.5) + 1e-6).flatten())
        ground = _learnt(flat, ((1 - part) * (part < 0.5) + 1e-6).flatten())
        ratio = thing.log_density(flat).logsumexp(1) - ground.log_density(flat).logsumexp(1)
        prior = torch.sigmoid(ratio.view(height, width).clamp(-6, 6) + odds)
        prior = torch.where(frame > 0, prior * 0.3, prior)
        part = _walked(small, prior, 0.03 + 0.3 * frame)
        if float((part > 0.5).sum()) < 4:
            return torch.zeros(height, width)
    return _largest((part > 0.5).float())


def _largest(mask: Tensor) -> Tensor:
    """A mask without its specks: parts smaller than a twentieth of the largest one."""
    labels = torch.arange(1.0, mask.numel() + 1).view(mask.shape) * mask
    while True:
        grown = F.max_pool2d(labels[None], 3, stride=1, padding=1)[0] * mask
        if torch.equal(grown, labels):
            break
        labels = grown
    names, which, counts = labels.unique(return_inverse=True, return_counts=True)
    counts = torch.where(names > 0, counts, 0)
    return (counts >= counts.max() / 20).float()[which] * mask


def _guided(colours: Tensor, small: Tensor, part: Tensor, radius: int) -> Tensor:
    """A mask whose edges follow those of the picture: He, Sun & Tang 2013, equations 14 to 16, with
    the line of each window learnt from a smaller picture (He & Sun 2015)."""
    mean, of = _mean(small, radius), _mean(part, radius)
    pairs = _mean((small[:, :, None] * small[:, None]).flatten(1, 2), radius).unflatten(1, (3, 3))
    spread = (pairs - mean[:, :, None] * mean[:, None]).permute(0, 3, 4, 1, 2)
    joint = (_mean(small * part, radius) - mean * of).permute(0, 2, 3, 1)
    slope = torch.linalg.solve(spread + 1e-4 * torch.eye(3), joint).permute(0, 3, 1, 2)
    offset = of - (slope * mean).sum(1, keepdim=True)
    line = _mean(torch.cat([slope, offset], dim=1), radius)
    line = F.interpolate(line, size=colours.shape[-2:], mode="bilinear")
    return ((line[:, :3] * colours).sum(1, keepdim=True) + line[:, 3:]).clamp(0, 1)


def _freed(colours: Tensor, alpha: Tensor) -> Tensor:
    """The colours of what is not ground: Forte 2021, equations 4 to 7, coarse and then fine."""
    thing, ground = colours, colours
    for radius in (24, 4):
        radius = min(radius, (min(colours.shape[-2:]) - 1) // 2)
        share = _mean(alpha, radius)
        thing = _mean(thing * alpha, radius) / (share + 1e-5)
        ground = _mean(ground * (1 - alpha), radius) / (1 - share + 1e-5)
        thing = thing + alpha * (colours - alpha * thing - (1 - alpha) * ground)
        thing = thing.clamp(0, 1)
    return thing
