"""FLUX.1's control network: equal to `diffusers` on small random networks."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers.models.controlnets.controlnet_flux import FluxControlNetModel
from parity import alike, assert_named_once

from mezzotint.checkpoints.tables import control_flux as tables
from mezzotint.networks.control_flux import ControlFlux, ControlFluxConfig
from mezzotint.networks.flux import FluxConfig

pytestmark = pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning")
BLOCKS = FluxConfig(
    heads=2, axes=(4, 6, 6), depth=2, single=3, context_width=24, vector_width=20, guided=True
)
CONFIGS = {
    "InstantX": ControlFluxConfig(BLOCKS),
    "union": ControlFluxConfig(BLOCKS, modes=10),
    "no single blocks, no guidance": ControlFluxConfig(replace(BLOCKS, single=0, guided=False)),
    "XLabs": ControlFluxConfig(replace(BLOCKS, single=0), drawn=True),
}


def _pair(config: ControlFluxConfig) -> tuple[FluxControlNetModel, ControlFlux]:
    torch.manual_seed(0)
    sizes = config.blocks
    theirs = FluxControlNetModel(
        patch_size=2 if config.drawn else 1,
        num_layers=sizes.depth,
        num_single_layers=sizes.single,
        attention_head_dim=sizes.head_width,
        num_attention_heads=sizes.heads,
        joint_attention_dim=sizes.context_width,
        pooled_projection_dim=sizes.vector_width,
        guidance_embeds=sizes.guided,
        axes_dims_rope=list(sizes.axes),
        num_mode=config.modes or None,
        conditioning_embedding_channels=16 if config.drawn else None,
    ).eval()
    return theirs, alike(theirs, ControlFlux(config), tables.DIFFUSERS)


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_equals_diffusers(name: str) -> None:
    theirs, ours = _pair(CONFIGS[name])
    config = ours.config
    x, time = torch.randn(2, 12, 64), torch.tensor([3.0, 801.0])
    context, vector = torch.randn(2, 5, 24), torch.randn(2, 20)
    ids = torch.zeros(12, 3)
    ids[:, 1], ids[:, 2] = torch.arange(12) // 4, torch.arange(12) % 4
    scale = torch.tensor([3.5, 1.0]) if config.blocks.guided else None
    mode = torch.tensor([2, 7]) if config.modes else None
    shown = torch.randn(2, 3, 48, 64) if config.drawn else torch.randn(2, 12, 64)
    joint, single = theirs(
        x,
        shown,
        mode if mode is None else mode[:, None],
        encoder_hidden_states=context,
        pooled_projections=vector,
        timestep=time / 1000,
        img_ids=ids,
        txt_ids=torch.zeros(5, 3),
        guidance=scale,
        return_dict=False,
    )
    if ours.encoder is not None:
        code = ours.encoder(shown).unflatten(3, (-1, 2)).unflatten(2, (-1, 2))
        shown = code.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(1, 2)
    both = ids.expand(2, -1, -1)
    found = ours(x, both, time, context, vector, ours.hint(shown), scale, mode)
    wanted = [*joint, *(single or [])]
    assert len(wanted) == len(found.joint) + len(found.single)
    for one, other in zip([*found.joint, *found.single], wanted, strict=True):
        assert (one - other).norm() / other.norm() < 1e-5


@pytest.mark.parametrize("name", CONFIGS)
def test_layouts_name_every_weight_once(name: str) -> None:
    assert_named_once(ControlFlux(CONFIGS[name]).state_dict(), tables.DIFFUSERS)


def test_xlabs_layout_names_every_weight_once() -> None:
    assert_named_once(ControlFlux(CONFIGS["XLabs"]).state_dict(), tables.ORIGINAL)


def test_a_scale_or_a_mode_too_much_or_too_little() -> None:
    network = ControlFlux(CONFIGS["union"])
    told = torch.zeros(1, 1, 64), torch.zeros(1, 1, 3), torch.zeros(1), torch.zeros(1, 2, 24)
    vector, hint = torch.zeros(1, 20), torch.zeros(1, 1, 32)
    with pytest.raises(ValueError, match="this control network is told a guidance scale"):
        network(*told, vector, hint)
    with pytest.raises(ValueError, match="this control network is told a mode"):
        network(*told, vector, hint, torch.ones(1))
