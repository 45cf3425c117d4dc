"""Others' checkpoints beside diffusers: a step of the U-Net, and the autoencoder's decoding."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mezzotint.checkpoints.keys import targets
from mezzotint.families import catalogue, folders
from mezzotint.families.ldm import Family
from mezzotint.families.precision import fastest, stored
from mezzotint.families.sd1 import SD1
from mezzotint.families.sdxl import SDXL
from mezzotint.networks.ldm_unet import LdmUNet
from peers.models import FULL, Scale
from peers.report import Bar, Row, Section
from peers.timing import in_turns, ratios, seconds

BATCH, TOKENS = 2, 77
STEPS = ((SD1, 256), (SD1, 512), (SDXL, 512))
"""Families, and the edge of the picture in pixels."""
FASTER, FASTER_HALF, DECODES = 2.2, 1.15, 1.5
ERROR = 0.02
_CPU = torch.device("cpu")
NO_HALF = (
    "Products of bfloat16 are not faster here: nothing was measured in it, and the bars are those "
    "of a machine where they are."
)


def filled(network: nn.Module) -> nn.Module:
    """Random weights; the fresh ones of large networks take longer than all that is measured."""
    network.to_empty(device="cpu")
    generator = torch.Generator().manual_seed(0)
    for weight in network.parameters():
        bound = (3 / weight[0].numel()) ** 0.5 if weight.ndim > 1 else 0.1
        weight.data.uniform_(-bound, bound, generator=generator)
    return network.eval().requires_grad_(False)


def _theirs(family: Family, part: str, reader: Any) -> Any:
    """The same network in diffusers, made as `convert` describes it, with weights of its own."""
    network = catalogue.parts(family)[part]
    state = network.state_dict()
    named = targets(state, family.folder.tables[part])
    shapes = {
        name: tuple(place.view.theirs(place.of(state[place.name])).shape)
        for name, place in named.items()
    }
    config = folders.describe(network, folders.facts(family), shapes).config
    with torch.device("meta"):
        made = reader.from_config(config)
    return filled(made)


def _ours(family: Family, part: str, kind: torch.dtype) -> Any:
    """In a precision, with the layers in float32 that families/precision.py keeps so."""
    made = filled(catalogue.parts(family)[part])
    for name, weight in made.named_parameters():
        weight.data = weight.data.to(stored(made, name, kind))
    return made.to(memory_format=torch.channels_last)


def _inputs(family: Family, pixels: int, kind: torch.dtype) -> tuple[Tensor, ...]:
    """``x``, time and context, and the vector where there is one."""
    generator = torch.Generator().manual_seed(1)
    edge, unet = pixels // family.autoencoder.stride, family.unet
    given = [
        torch.randn(BATCH, unet.in_channels, edge, edge, generator=generator).to(kind),
        torch.full((BATCH,), 500.0),
        torch.randn(BATCH, TOKENS, unet.context_width, generator=generator).to(kind),
    ]
    if unet.vector_width:
        given.append(torch.randn(BATCH, unet.vector_width, generator=generator).to(kind))
    return tuple(given)


def _step_of_theirs(network: Any, family: Family, pixels: int) -> Callable[[], Tensor]:
    x, time, context, *_ = _inputs(family, pixels, network.dtype)
    told = None
    if family.unet.vector_width:
        pooled = family.unet.vector_width - 6 * 256
        told = {
            "text_embeds": torch.randn(BATCH, pooled).to(network.dtype),
            "time_ids": torch.full((BATCH, 6), float(pixels)),
        }
    return lambda: network(x, time, context, added_cond_kwargs=told).sample


def _step_of_ours(network: LdmUNet, family: Family, pixels: int) -> Callable[[], Tensor]:
    given = _inputs(family, pixels, network.stem.weight.dtype)
    return lambda: network(*given)


def _products(kind: torch.dtype, edge: int = 2048, rounds: int = 7) -> float:
    """Operations a second of matrix products, the fastest of some."""
    a = torch.ones(edge, edge, dtype=kind)
    return 2 * edge**3 / min(in_turns([lambda: seconds(lambda: a @ a)], rounds, 2)[0])


def narrow(family: Family) -> Family:
    """As deep, with fewer channels."""
    return replace(
        family, unet=replace(family.unet, width=64, multipliers=(1,) * len(family.unet.multipliers))
    )


def _steps(family: Family, pixels: int, rounds: int, kind: torch.dtype) -> list[Row]:
    name = f"{family.name}, {pixels} px"
    network = _ours(family, "network", kind)
    ours = _step_of_ours(network, family, pixels)
    theirs = _theirs(family, "network", UNet2DConditionModel)
    mine, other = in_turns(
        [partial(seconds, ours), partial(seconds, _step_of_theirs(theirs, family, pixels))], rounds
    )
    rows = [
        Row(
            f"{name}: diffusers as it comes ÷ ours as it comes",
            ratios(other, mine),
            "×",
            Bar("at least", FASTER),
        )
    ]
    if kind == torch.bfloat16:
        network, theirs = network.to(kind), theirs.to(kind)
        ours = _step_of_ours(network, family, pixels)
        mine, other = in_turns(
            [partial(seconds, ours), partial(seconds, _step_of_theirs(theirs, family, pixels))],
            rounds,
        )
        rows.append(
            Row(
                f"{name}: diffusers ÷ ours, both in bfloat16",
                ratios(other, mine),
                "×",
                Bar("at least", FASTER_HALF, noisy=True),
            )
        )
    with FlopCounterMode(display=False) as counter:
        _step_of_theirs(theirs, family, pixels)()  # ours has fewer, in float32
    peak, words = _products(kind), str(kind).removeprefix("torch.")
    share = tuple(counter.get_total_flops() / t / peak for t in mine)
    rows.append(Row(f"{name}: ours in {words}, a step of 2", tuple(mine), "s"))
    rows.append(Row(f"{name}: share of the peak of {words} matrix products", share, "%"))
    return rows


def _error(family: Family, pixels: int) -> Row:
    """``|bfloat16 − float32| / |float32|`` of the U-Net's output."""
    wide = _ours(family, "network", torch.float32)
    expected = _step_of_ours(wide, family, pixels)()
    found = _step_of_ours(wide.to(torch.bfloat16), family, pixels)().float()
    error = float((found - expected).norm() / expected.norm())
    name = f"{family.name}, {pixels} px: relative error of bfloat16"
    return Row(name, (error,), "difference", Bar("at most", ERROR))


def _decoding(family: Family, pixels: int, rounds: int, kind: torch.dtype) -> list[Row]:
    edge = pixels // family.autoencoder.stride
    code = torch.randn(1, family.autoencoder.latent_channels, edge, edge)
    theirs = _theirs(family, "autoencoder", AutoencoderKL)
    rows: list[Row] = []
    expected = found = torch.zeros(())
    kinds = {"both in float32": torch.float32, "as they come": kind}
    if kind == torch.float32:
        del kinds["as they come"]  # which is the same
    for words, own in kinds.items():
        ours = _ours(family, "autoencoder", own)
        mine, other = in_turns(
            [
                partial(seconds, partial(ours.decode, code)),
                partial(seconds, partial(theirs.decode, code)),
            ],
            rounds,
        )
        name = f"autoencoder of {family.name}, {pixels} px, {words}"
        rows.append(
            Row(f"{name}: diffusers ÷ ours", ratios(other, mine), "×", Bar("at least", DECODES))
        )
        rows.append(Row(f"{name}: ours, decoding", tuple(mine), "s"))
        found = ours.decode(code).float()
        if own == torch.float32:
            expected = found
    if kind == torch.float32:
        return rows
    error = float((found - expected).norm() / expected.norm())
    name = f"autoencoder of {family.name}, {pixels} px: relative error as it comes"
    return [*rows, Row(name, (error,), "difference", Bar("at most", ERROR))]


def measure(scale: Scale) -> Section:
    whole = scale is FULL
    kind = fastest(_CPU)
    rows: list[Row] = []
    with torch.inference_mode():
        for family, pixels in STEPS:
            used = family if whole else narrow(family)
            rows += _steps(used, pixels if whole else 64, 5 if whole else 1, kind)
        if kind == torch.bfloat16:
            used = SD1 if whole else narrow(SD1)
            rows.append(_error(used, 256 if whole else 64))
        rows += _decoding(SD1, 512 if whole else 64, 3 if whole else 1, kind)
    text = (
        f"Networks of the released sizes with random weights; a step is one call of the U-Net for "
        f"{BATCH} samples, as guidance needs it. *As it comes*: diffusers in float32, ours in the "
        f"precision that it chose on this machine ({str(kind).removeprefix('torch.')}). Both have "
        "large pages of memory, which ours asks of torch for itself. The share counts the "
        "operations of products and convolutions (and of attention) against the fastest product "
        "of two 2048×2048 matrices in this run."
    )
    if kind != torch.bfloat16:
        text += f" {NO_HALF}"
    return Section("checkpoints", "Stable Diffusion beside diffusers", text, tuple(rows))
