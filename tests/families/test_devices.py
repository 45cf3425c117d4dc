"""Mistakes of devices, found without a GPU: on the meta device, where tensors have no numbers.

There a tensor that meets one of the processor's raises, and so does asking for its numbers, which
on a GPU is a wait for all that was begun; what is copied to it is counted, for each copy is such a
wait too.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from mezzotint.diffusion.level import Conditioning, Tokens
from mezzotint.engine import generate
from mezzotint.engine.request import Guidance, Known, Request, Start
from mezzotint.families.catalogue import Family, shadow
from mezzotint.families.model import Model
from pipelines import FLOWS, small, small_flow

SIZE = (32, 32)
LDM = ("sd1", "sd2", "sdxl")


def _family(name: str) -> Family:
    return small(name) if name in LDM else small_flow(name)


def _told(model: Model, place: torch.device) -> Conditioning:
    """What a prompt tells."""
    config: Any = model.network.config
    width = config.vector_width
    if model.framing is not None:
        width -= model.framing(SIZE).shape[1]
    return Conditioning(
        torch.empty(1, width, device=place) if width else None,
        Tokens(torch.empty(1, 7, config.context_width, device=place)),
    )


class _Copies(TorchDispatchMode):
    """What is copied from the processor to the device, by the shapes."""

    def __init__(self) -> None:
        super().__init__()
        self.shapes: list[tuple[int, ...]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        if func is torch.ops.aten._to_copy.default and made.device.type != args[0].device.type:
            self.shapes.append(tuple(args[0].shape))
        return made


def _walked(name: str, request: Request) -> tuple[_Copies, torch.Tensor]:
    """All of a request but for reading the prompt, and looking at the picture."""
    shade, place = shadow(_family(name)), torch.device("meta")
    told = _told(shade, place)
    model = replace(shade, weighted=None, conditioner=lambda _: told)
    with torch.no_grad():  # under inference_mode a dispatch mode does not see the copies
        planned = generate.plan(model, request)
        with _Copies() as copies:
            x = generate._walk(model, request, planned, 0, None)
            return copies, model.codec.decode(x)


@pytest.mark.parametrize(
    ("name", "sampler"),
    [
        *(("sd1", sampler) for sampler in ("euler", "dpmpp_2m", "unipc", "heun", "lms")),
        *((name, "euler") for name in ("sd2", "sdxl", *FLOWS)),
    ],
)
def test_nothing_is_copied_or_waited_for_after_the_first_noise(name: str, sampler: str) -> None:
    size, family = SIZE, _family(name)
    request = Request("", (0,), size=size, steps=4, sampler=sampler)
    copies, picture = _walked(name, request)
    stride, channels = family.autoencoder.stride, family.autoencoder.latent_channels
    assert copies.shapes == [(1, channels, *(edge // stride for edge in size))]
    assert picture.shape == (1, 3, *size)


@pytest.mark.parametrize(
    "wish",
    [
        Guidance(rescale=0.5),
        Guidance(apg=True),
        Guidance(cfg_zero_star=True),
        Guidance(interval=(0.2, 0.8)),
        Guidance(skip=frozenset({0}), skip_scale=2.0),
    ],
)
def test_no_guidance_asks_for_numbers_of_the_device(wish: Guidance) -> None:
    request = Request("", (0,), size=SIZE, steps=4, sampler="euler", guidance=wish)
    copies, _ = _walked("sd35-medium", request)
    assert len(copies.shapes) == 1


def test_noise_of_each_step_and_known_pictures_are_copied_once_each() -> None:
    picture, mask = torch.zeros(3, *SIZE), torch.ones(1, *SIZE)
    request = Request(
        "",
        (0,),
        size=SIZE,
        steps=4,
        sampler="euler_ancestral",
        start=Start(picture, 1.0),
        known=Known(picture, mask),
    )
    copies, _ = _walked("sd1", request)
    code = (4, SIZE[0] // 8, SIZE[1] // 8)
    once = [(1, *code), (1, 3, *SIZE), (1, 3, *SIZE), (1, 1, *code[1:])]
    assert sorted(copies.shapes) == sorted([*once, *[(1, *code)] * 3])
