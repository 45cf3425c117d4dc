"""FLUX.1's transformer: equal to `diffusers` on small random networks."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from parity import assert_named_once, take

from mezzotint.checkpoints.tables import flux as tables
from mezzotint.networks.flux import Flux, FluxConfig

CONFIGS = {
    name: FluxConfig(
        in_channels=8,
        out_channels=8,
        heads=2,
        axes=(4, 6, 6),
        depth=2,
        single=2,
        context_width=24,
        vector_width=20,
        guided=guided,
    )
    for name, guided in (("dev", True), ("schnell", False))
}


def _pair(config: FluxConfig) -> tuple[FluxTransformer2DModel, Flux]:
    torch.manual_seed(0)
    theirs = FluxTransformer2DModel(
        patch_size=1,
        in_channels=config.in_channels,
        num_layers=config.depth,
        num_single_layers=config.single,
        attention_head_dim=config.head_width,
        num_attention_heads=config.heads,
        joint_attention_dim=config.context_width,
        pooled_projection_dim=config.vector_width,
        guidance_embeds=config.guided,
        axes_dims_rope=config.axes,
    ).eval()
    ours = Flux(config).eval()
    take(ours, theirs.state_dict(), tables.DIFFUSERS)
    return theirs, ours


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_equals_diffusers(name: str) -> None:
    theirs, ours = _pair(CONFIGS[name])
    x, time = torch.randn(2, 12, 8), torch.tensor([0.003, 0.801])
    context, vector = torch.randn(2, 5, 24), torch.randn(2, 20)
    ids = torch.stack(
        [torch.zeros(12), torch.arange(12) // 4, torch.arange(12) % 4], dim=1
    )  # (N, 3)
    guidance = torch.tensor([3.5, 1.0]) if CONFIGS[name].guided else None
    residuals = [torch.randn(2, 12, 32) for _ in range(4)]
    for added in (None, residuals):
        expected = theirs(
            x,
            encoder_hidden_states=context,
            pooled_projections=vector,
            timestep=time,
            img_ids=ids,
            txt_ids=torch.zeros(5, 3),
            guidance=guidance,
            controlnet_block_samples=None if added is None else added[:2],
            controlnet_single_block_samples=None if added is None else added[2:],
        ).sample
        found = ours(x, ids.expand(2, -1, -1), time * 1000, context, vector, guidance, added)
        assert (found - expected).norm() / expected.norm() < 1e-5


@pytest.mark.parametrize("name", CONFIGS)
def test_both_layouts_name_every_weight_once(name: str) -> None:
    assert_named_once(Flux(CONFIGS[name]).state_dict(), tables.ORIGINAL, tables.DIFFUSERS)


def test_a_guidance_that_does_not_apply() -> None:
    network = Flux(CONFIGS["schnell"])
    told = torch.zeros(1, 4, 3), torch.zeros(1), torch.zeros(1, 2, 24), torch.zeros(1, 20)
    with pytest.raises(ValueError, match="told no guidance scale"):
        network(torch.zeros(1, 4, 8), *told, torch.ones(1))


@torch.no_grad()
def test_a_skipped_block_is_left_out_of_either_kind() -> None:
    network = Flux(CONFIGS["schnell"]).eval()
    x, ids = torch.randn(1, 4, 8), torch.zeros(1, 4, 3)
    told = torch.ones(1), torch.randn(1, 2, 24), torch.randn(1, 20)
    plain = network(x, ids, *told)
    one, other = (network(x, ids, *told, skip=frozenset({n})) for n in (1, 2))
    assert not torch.allclose(one, plain) and not torch.allclose(other, plain)
    joint, single = network.joint, network.single
    network.joint = joint[:1]
    assert torch.equal(network(x, ids, *told), one)
    network.joint, network.single = joint, single[1:]
    assert torch.equal(network(x, ids, *told), other)
    network.single = single
    with pytest.raises(ValueError, match=r"skip \[4\] is out of range: there are 4, from 0"):
        network(x, ids, *told, skip=frozenset({4}))
