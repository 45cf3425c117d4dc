"""Stable Diffusion 3's control network: equal to `diffusers` on small random networks."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers.models.controlnets.controlnet_sd3 import SD3ControlNetModel
from parity import alike, assert_named_once

from mezzotint.checkpoints.tables import control_mmdit as tables
from mezzotint.networks.control_mmdit import ControlMMDiT, ControlMMDiTConfig
from mezzotint.networks.mmdit import MMDiTConfig

BLOCKS = MMDiTConfig(
    positions=12, depth=3, heads=2, head_width=16, context_width=24, vector_width=20
)
CONFIGS = {
    "3 medium": ControlMMDiTConfig(BLOCKS),
    "3.5 medium": ControlMMDiTConfig(replace(BLOCKS, normalized=True, dual=2)),
    "one more channel": ControlMMDiTConfig(BLOCKS, hinted=17),
    "3.5 large": ControlMMDiTConfig(BLOCKS, reads=False),
}


def _pair(config: ControlMMDiTConfig) -> tuple[SD3ControlNetModel, ControlMMDiT]:
    torch.manual_seed(0)
    sizes = config.blocks
    theirs = SD3ControlNetModel(
        sample_size=16,
        num_layers=sizes.depth,
        attention_head_dim=sizes.head_width,
        num_attention_heads=sizes.heads,
        joint_attention_dim=sizes.context_width if config.reads else None,
        caption_projection_dim=sizes.width,
        pooled_projection_dim=sizes.vector_width,
        pos_embed_max_size=sizes.positions,
        extra_conditioning_channels=config.hinted - 16,
        dual_attention_layers=tuple(range(sizes.dual)),
        qk_norm="rms_norm" if sizes.normalized else None,
    ).eval()
    return theirs, alike(theirs, ControlMMDiT(config), tables.DIFFUSERS)


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_equals_diffusers(name: str) -> None:
    theirs, ours = _pair(CONFIGS[name])
    x, time = torch.randn(2, 16, 8, 12), torch.tensor([3.0, 801.0])
    context, vector = torch.randn(2, 5, 24), torch.randn(2, 20)
    code = torch.randn(2, ours.config.hinted, 8, 12)
    text = context if ours.config.reads else None
    (wanted,) = theirs(x, code, 1.0, text, vector, time, return_dict=False)
    found = ours(x, time, context, vector, ours.told(code))
    for one, other in zip(found, wanted, strict=True):
        assert (one - other).norm() / other.norm() < 1e-5


@pytest.mark.parametrize("name", CONFIGS)
def test_the_layout_names_every_weight_once(name: str) -> None:
    assert_named_once(ControlMMDiT(CONFIGS[name]).state_dict(), tables.DIFFUSERS)


def test_stabilitys_layout_names_every_weight_once() -> None:
    state = ControlMMDiT(CONFIGS["3.5 large"]).state_dict()
    own = {k: v for k, v in state.items() if not k.startswith(("stem.", "positions"))}
    assert_named_once(own, tables.ORIGINAL)


def test_impossible_sizes() -> None:
    network = ControlMMDiT(CONFIGS["3 medium"])
    told = torch.zeros(1), torch.zeros(1, 2, 24), torch.zeros(1, 20), torch.zeros(1, 1, 32)
    for size in ((7, 8), (8, 26)):
        with pytest.raises(ValueError, match="takes multiples of 2 up to 24"):
            network(torch.zeros(1, 16, *size), *told)
