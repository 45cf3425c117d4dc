"""Stable Diffusion 3's transformer: equal to `diffusers` on small random networks."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from parity import assert_named_once, take

from mezzotint.checkpoints.tables import mmdit as tables
from mezzotint.networks.mmdit import MMDiT, MMDiTConfig

SMALL = {"positions": 12, "depth": 3, "heads": 2, "head_width": 16}
TEXT = {"context_width": 24, "vector_width": 20}
CONFIGS = {
    "3 medium": MMDiTConfig(**SMALL, **TEXT),
    "3.5 large": MMDiTConfig(**SMALL, **TEXT, normalized=True),
    "3.5 medium": MMDiTConfig(**SMALL, **TEXT, normalized=True, dual=2),
}


def _pair(config: MMDiTConfig) -> tuple[SD3Transformer2DModel, MMDiT]:
    torch.manual_seed(0)
    theirs = SD3Transformer2DModel(
        sample_size=16,
        patch_size=config.patch,
        in_channels=config.in_channels,
        num_layers=config.depth,
        attention_head_dim=config.head_width,
        num_attention_heads=config.heads,
        joint_attention_dim=config.context_width,
        caption_projection_dim=config.width,
        pooled_projection_dim=config.vector_width,
        out_channels=config.out_channels,
        pos_embed_max_size=config.positions,
        dual_attention_layers=tuple(range(config.dual)),
        qk_norm="rms_norm" if config.normalized else None,
    ).eval()
    ours = MMDiT(config).eval()
    take(ours, theirs.state_dict(), tables.diffusers(config.depth))
    return theirs, ours


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_equals_diffusers(name: str) -> None:
    theirs, ours = _pair(CONFIGS[name])
    x, time = torch.randn(2, 16, 8, 12), torch.tensor([3.0, 801.0])
    context, vector = torch.randn(2, 5, 24), torch.randn(2, 20)
    expected = theirs(x, context, vector, time).sample
    found = ours(x, time, context, vector)
    assert (found - expected).norm() / expected.norm() < 1e-5
    residuals = [torch.randn(2, 24, 32) for _ in range(2)]
    expected = theirs(
        x, context, vector, time, block_controlnet_hidden_states=[*residuals, residuals[0]]
    ).sample
    found = ours(x, time, context, vector, residuals)
    assert (found - expected).norm() / expected.norm() < 1e-5
    expected = theirs(x, context, vector, time, skip_layers=[1]).sample
    found = ours(x, time, context, vector, skip=frozenset({1}))
    assert (found - expected).norm() / expected.norm() < 1e-5


@pytest.mark.parametrize("name", CONFIGS)
def test_both_layouts_name_every_weight_once(name: str) -> None:
    assert_named_once(MMDiT(CONFIGS[name]).state_dict(), tables.original(), tables.diffusers(3))


def test_a_number_without_a_block_is_refused() -> None:
    network = MMDiT(CONFIGS["3 medium"])
    told = torch.zeros(1), torch.zeros(1, 2, 24), torch.zeros(1, 20)
    with pytest.raises(ValueError, match=r"skip \[3\] is out of range: there are 3, from 0"):
        network(torch.zeros(1, 16, 8, 8), *told, skip=frozenset({3}))


def test_impossible_sizes() -> None:
    network = MMDiT(CONFIGS["3 medium"])
    told = torch.zeros(1), torch.zeros(1, 2, 24), torch.zeros(1, 20)
    with pytest.raises(ValueError, match="7x8 latent pixels do not divide by the patch, 2"):
        network(torch.zeros(1, 16, 7, 8), *told)
    with pytest.raises(ValueError, match="8x26 latent pixels are more than the positions, 24"):
        network(torch.zeros(1, 16, 8, 26), *told)
