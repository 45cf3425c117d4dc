"""Tasks of more than one look: the masked area alone, and a second pass at a larger size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mezzotint.adapters.seamless import convolutions
from mezzotint.engine.edit import near_aspect
from mezzotint.engine.regions import check_masks
from mezzotint.engine.request import (
    EMPTY_MASK,
    Known,
    Progress,
    Request,
    RequestError,
    Start,
)
from mezzotint.families.model import Model

_FEATHER = 4  # elements over which what was made fades in, inside the mask


class Area(NamedTuple):
    """A part of a picture, both ends as slices have them."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def size(self) -> tuple[int, int]:
        return self.bottom - self.top, self.right - self.left

    def of(self, media: Tensor) -> Tensor:
        """This part of ``(C, H, W)``."""
        return media[:, self.top : self.bottom, self.left : self.right]


def area_of(mask: Tensor, around: int) -> Area:
    """Where a mask ``(1, H, W)`` is above 0, with ``around`` more on each side that there is.

    Raises:
        RequestError: it is 0 everywhere.
    """
    rows, columns = (mask[0].amax(axis).nonzero().flatten().tolist() for axis in (1, 0))
    if not rows:
        raise RequestError(EMPTY_MASK)
    height, width = mask.shape[1:]
    top, bottom = max(rows[0] - around, 0), min(rows[-1] + 1 + around, height)
    return Area(top, bottom, max(columns[0] - around, 0), min(columns[-1] + 1 + around, width))


def resized(media: Tensor, size: tuple[int, ...]) -> Tensor:
    """``(C, H, W)`` at another size, within the range that it had; the same where it has it."""
    if tuple(media.shape[1:]) == tuple(size):
        return media
    made = F.interpolate(media[None], size=tuple(size), mode="bicubic", antialias=True)[0]
    return made.clamp(float(media.min()), float(media.max()))


def _faded(mask: Tensor, feather: int) -> Tensor:
    """The mask with a ramp inside its edge; what is 0 stays 0."""
    shrunk, layers = mask[None], [mask[None]]
    for _ in range(feather - 1):
        # Beyond the border of the picture nothing is known that one could fade into.
        shrunk = -F.max_pool2d(-shrunk, 3, stride=1, padding=1)
        layers.append(shrunk)
    return torch.stack(layers).mean(0)[0]


def put_back(known: Known, made: Tensor, area: Area) -> Tensor:
    """What was made of an area, at its own size in its place; outside the mask the known colours,
    exactly, and towards them it fades."""
    whole = known.media.clone()
    mask = area.of(_faded(known.mask, _FEATHER))
    inside, new = area.of(known.media), resized(made, area.size)
    blended = torch.where(mask == 0, inside, torch.lerp(inside, new, mask))
    whole[:, area.top : area.bottom, area.left : area.right] = blended
    return whole


def narrowed(model: Model, request: Request) -> tuple[Request, Callable[[Tensor], Tensor]]:
    """The request for the masked area alone, where that is asked for, and what puts a result back.

    The area is worked on at the request's size; without one at about the model's, in the area's
    own aspect.

    Raises:
        RequestError: the mask is empty or does not fit its picture; a second pass is asked for too.
    """
    known = request.known
    if known is None or known.around is None:
        return request, lambda made: made
    if known.around < 0:
        raise RequestError(f"the masked area has 0 or more around it, not {known.around}")
    if request.enlarge is not None:
        raise RequestError("the masked area is put back at its own size: enlarge the whole picture")
    if request.tiled:
        raise RequestError("the masked area is a part of a picture: its ends need not fit together")
    if request.reference is not None:
        raise RequestError(
            f"{model.name} is told the whole of its reference, and the masked area is a part: work "
            "on the whole picture"
        )
    if known.media.shape[1:] != known.mask.shape[1:] or known.media.ndim != 3:
        raise RequestError(
            f"the mask has shape {tuple(known.mask.shape)} and the picture "
            f"{tuple(known.media.shape)}: make them the same size"
        )
    area = area_of(known.mask, known.around)
    check_masks(request.regions, tuple(known.media.shape[1:]))
    size = request.size or near_aspect(area.size, model.defaults.size, model.codec.multiple)

    def cut(media: Tensor) -> Tensor:
        return resized(area.of(media), size)

    start = request.start
    if start is not None:
        start = replace(start, media=cut(start.media))
    part = Known(cut(known.media), cut(known.mask).clamp(0, 1))
    controls = tuple(control.shown(cut) for control in request.controls)
    regions = tuple(
        region._replace(mask=cut(region.mask).clamp(0, 1)) for region in request.regions
    )
    narrow = replace(
        request, known=part, start=start, size=size, controls=controls, regions=regions
    )
    return narrow, lambda made: put_back(known, made, area)


def enlarged(model: Model, request: Request) -> Request | None:
    """The request of the second pass, but for the picture that it starts from; None for one pass.

    Raises:
        RequestError: a factor that is impossible.
    """
    wish, size = request.enlarge, request.size or model.defaults.size
    if wish is None:
        return None
    multiple = model.codec.multiple
    larger = tuple(round(edge * wish.factor / multiple) * multiple for edge in size)
    known, reference = request.known, request.reference
    if known is not None:
        known = Known(resized(known.media, larger), resized(known.mask, larger))
    free = model.joined is not None and model.joined.free_size
    if reference is not None and not free:
        reference = resized(reference, larger)
    shape = model.codec.shape(larger) if wish.coded else (model.codec.channels, *larger)
    return replace(
        request,
        size=larger,
        start=Start(torch.zeros(shape), wish.strength, wish.coded),
        known=known,
        reference=reference,
        controls=tuple(
            control.shown(lambda picture: resized(picture, larger)) for control in request.controls
        ),
        regions=tuple(
            region._replace(mask=resized(region.mask, larger)) for region in request.regions
        ),
        refiner=None,
        enlarge=None,
    )


def from_picture(model: Model, request: Request, picture: Tensor) -> Request:
    """The second pass started from what the first has made ``(C, H, W)``, enlarged itself, or its
    code."""
    start = request.start
    assert start is not None
    if start.coded:
        place = next(model.network.parameters()).device
        picture = model.codec.encode(picture[None].to(place))[0].cpu()
    return replace(request, start=replace(start, media=resized(picture, start.media.shape[1:])))


def counted(
    listener: Callable[[Progress], None] | None, before: int, steps: int
) -> Callable[[Progress], None] | None:
    """The listener of one pass of several: ``before`` steps are done, of ``steps`` in all."""
    if listener is None:
        return None
    return lambda told: listener(told._replace(step=before + told.step, steps=steps))


def tiling(model: Model, request: Request) -> list[nn.Module]:
    """The networks whose convolutions are to be seamless, if any."""
    models = [model] if request.refiner is None else [model, request.refiner.model]
    for each in models:
        if request.tiled and not convolutions(each.network):
            raise RequestError(
                f"{each.name} is no convolutional network, and knows where a picture ends: it "
                "makes no tiles"
            )
    beside = [control.network.network for control in request.controls]
    return [*(part for each in models for part in each.parts.values()), *beside]
