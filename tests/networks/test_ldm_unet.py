"""Stable Diffusion's U-Net: equal to `diffusers` on small random networks of its shapes."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from parity import assert_named_once, take
from torch import Tensor

from mezzotint.checkpoints.tables import ldm_unet as tables
from mezzotint.networks.ldm_unet import Block, LdmUNet, LdmUNetConfig, TransformerLayer, embed_time


@dataclass(frozen=True)
class Case:
    """Ours, and what `diffusers` calls the same."""

    config: LdmUNetConfig
    convolutions: bool
    theirs: dict[str, object]


def _case(config: LdmUNetConfig, convolutions: bool, **more: object) -> Case:
    widths = tuple(config.width * m for m in config.multipliers)
    down = tuple("CrossAttnDownBlock2D" if d else "DownBlock2D" for d in config.depths)
    up = tuple("CrossAttnUpBlock2D" if d else "UpBlock2D" for d in reversed(config.depths))
    heads = tuple(config.heads_of(width) for width in widths)
    theirs: dict[str, object] = {
        "sample_size": 16,
        "in_channels": config.in_channels,
        "block_out_channels": widths,
        "layers_per_block": config.blocks,
        "down_block_types": down,
        "up_block_types": up,
        "cross_attention_dim": config.context_width,
        "attention_head_dim": heads,  # their name for the number of heads
        "use_linear_projection": not convolutions,
        "transformer_layers_per_block": tuple(max(d, 1) for d in config.depths),
    }
    return Case(config, convolutions, theirs | more)


CASES = {
    "sd1": _case(
        LdmUNetConfig(width=32, multipliers=(1, 2), depths=(1, 0), context_width=24), True
    ),
    "sd1 inpainting": _case(
        LdmUNetConfig(9, width=32, multipliers=(1, 2), depths=(1, 0), context_width=24), True
    ),
    "sd2": _case(
        LdmUNetConfig(
            width=32, multipliers=(1, 2), depths=(1, 0), context_width=24, heads=0, head_width=16
        ),
        False,
    ),
    "sdxl": _case(
        LdmUNetConfig(
            width=32,
            multipliers=(1, 2, 4),
            depths=(0, 1, 2),
            middle_depth=2,
            context_width=24,
            vector_width=20 + 6 * 8,
            heads=0,
            head_width=16,
        ),
        False,
        addition_embed_type="text_time",
        addition_time_embed_dim=8,
        projection_class_embeddings_input_dim=20 + 6 * 8,
    ),
}


def _pair(case: Case) -> tuple[UNet2DConditionModel, LdmUNet]:
    torch.manual_seed(0)
    theirs = UNet2DConditionModel(**case.theirs).eval()  # type: ignore[arg-type]
    ours = LdmUNet(case.config).eval()
    take(ours, theirs.state_dict(), tables.diffusers(case.convolutions))
    return theirs, ours


def _inputs(case: Case, size: tuple[int, int]) -> tuple[Tensor, Tensor, Tensor]:
    x = torch.randn(2, case.config.in_channels, *size)
    return x, torch.tensor([3.0, 801.0]), torch.randn(2, 5, case.config.context_width)


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("size", [(16, 16), (8, 24)])
@torch.no_grad()
def test_equals_diffusers(name: str, size: tuple[int, int]) -> None:
    case = CASES[name]
    theirs, ours = _pair(case)
    x, time, context = _inputs(case, size)
    vector, added = None, None
    if case.config.vector_width:
        text, sizes = torch.randn(2, 20), torch.randint(0, 1024, (2, 6))
        added = {"text_embeds": text, "time_ids": sizes}
        vector = torch.cat([text, embed_time(sizes.flatten(), 8).view(2, -1)], dim=1)
    expected = theirs(x, time, context, added_cond_kwargs=added).sample
    found = ours(x, time, context, vector)
    assert (found - expected).norm() / expected.norm() < 1e-5


@pytest.mark.parametrize("name", CASES)
def test_both_layouts_name_every_weight_once(name: str) -> None:
    case = CASES[name]
    state = LdmUNet(case.config).state_dict()
    original = tables.original(case.config.depths, case.config.blocks, case.convolutions)
    assert_named_once(state, original, tables.diffusers(case.convolutions))


@torch.no_grad()
def test_residuals_reach_their_ports() -> None:
    case = CASES["sd1"]
    theirs, ours = _pair(case)
    x, time, context = _inputs(case, (16, 16))
    ports = [torch.randn(2, width, 16 // by, 16 // by) for width, by in ours.ports]
    expected = theirs(
        x,
        time,
        context,
        down_block_additional_residuals=tuple(ports[:-1]),
        mid_block_additional_residual=ports[-1],
    ).sample
    found = ours(x, time, context, residuals=ports)
    assert (found - expected).norm() / expected.norm() < 1e-5
    with pytest.raises(ValueError, match="the residuals have shapes"):
        ours(x, time, context, residuals=ports[1:])


@torch.no_grad()
def test_perturb_and_skip_name_one_layer_or_one_block() -> None:
    _, network = _pair(CASES["sd1"])
    x, time, context = _inputs(CASES["sd1"], (16, 16))
    plain = network(x, time, context)
    layers = [m for m in network.modules() if isinstance(m, TransformerLayer)]
    for layer in layers:
        perturbed = network(x, time, context, perturb=frozenset({layer.number}))
        assert not torch.allclose(perturbed, plain)
        forward = layer.attention.forward
        layer.attention.forward = lambda y, _identity, f=forward: f(y, True)
        assert torch.equal(network(x, time, context), perturbed)
        layer.attention.forward = forward
    for block in [m for m in network.modules() if isinstance(m, Block) and m.transformer]:
        skipped = network(x, time, context, skip=frozenset({block.number}))
        assert not torch.allclose(skipped, plain)
        transformer, block.transformer = block.transformer, None
        assert torch.equal(network(x, time, context), skipped)
        block.transformer = transformer
    bare = next(m for m in network.modules() if isinstance(m, Block) and not m.transformer)
    for name, number in (("perturb", len(layers)), ("skip", bare.number)):
        with pytest.raises(ValueError, match=rf"{name} \[{number}\] is out of range: give \[0, 1"):
            network(x, time, context, **{name: frozenset({number})})
