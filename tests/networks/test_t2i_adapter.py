"""T2I-Adapter: equal to `diffusers` on small random networks, and where its features go."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.adapter import T2IAdapter as Theirs
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from parity import assert_named_once, take

from mezzotint.checkpoints.keys import Table, prefixed
from mezzotint.checkpoints.tables import ldm_unet
from mezzotint.checkpoints.tables import t2i_adapter as tables
from mezzotint.networks.ldm_unet import LdmUNet, LdmUNetConfig
from mezzotint.networks.t2i_adapter import T2IAdapter, T2IAdapterConfig

KINDS: dict[str, tuple[T2IAdapterConfig, Table]] = {
    "full_adapter": (
        T2IAdapterConfig(widths=(8, 16, 24, 24)),
        tables.full(levels=4, blocks=2),
    ),
    "full_adapter_xl": (
        T2IAdapterConfig(fold=16, widths=(8, 16, 24, 24), halved=frozenset({2})),
        tables.full(levels=4, blocks=2),
    ),
    "light_adapter": (
        T2IAdapterConfig(channels=1, widths=(8, 16, 24, 24), blocks=4, light=True),
        tables.LIGHT,
    ),
}


@pytest.mark.parametrize("kind", KINDS)
@torch.no_grad()
def test_equals_diffusers(kind: str) -> None:
    """At a size whose halves are odd."""
    config, original = KINDS[kind]
    torch.manual_seed(0)
    widths = config.widths[: -1 if config.light else None]
    theirs = Theirs(config.channels, list(widths), config.blocks, config.fold, kind).eval()
    ours = T2IAdapter(config).eval()
    take(ours, theirs.state_dict(), prefixed(tables.DIFFUSERS, tables.DIFFUSERS_PREFIX))
    picture = torch.rand(1, config.channels, 16 * 5, 16 * 7)
    for one, other in zip(ours(picture), theirs(picture), strict=True):
        assert (one - other).norm() / other.norm() < 1e-5
    assert_named_once(ours.state_dict(), original, tables.DIFFUSERS)
    with pytest.raises(ValueError, match=f"a size in multiples of {config.fold}, not 12x"):
        ours(torch.rand(1, config.channels, 16, 12))


@pytest.mark.parametrize("attends", [(True, False), (False, True)])
@torch.no_grad()
def test_features_reach_their_ends(attends: tuple[bool, bool]) -> None:
    """Where a level has attention before its downsampling, where it has none after it."""
    torch.manual_seed(0)
    theirs = UNet2DConditionModel(
        block_out_channels=(32, 64),
        down_block_types=tuple("CrossAttnDownBlock2D" if a else "DownBlock2D" for a in attends),
        up_block_types=tuple("CrossAttnUpBlock2D" if a else "UpBlock2D" for a in attends[::-1]),
        cross_attention_dim=24,
        attention_head_dim=(4, 8),
        use_linear_projection=True,
    ).eval()
    depths = tuple(int(a) for a in attends)
    config = LdmUNetConfig(
        width=32, multipliers=(1, 2), depths=depths, context_width=24, heads=0, head_width=8
    )
    ours = LdmUNet(config).eval()
    take(ours, theirs.state_dict(), ldm_unet.diffusers(convolutions=False))
    assert ours.ends == ((32, 1 if attends[0] else 2), (64, 2), (64, 2))
    x, time, context = torch.randn(1, 4, 8, 12), torch.tensor([500.0]), torch.randn(1, 5, 24)
    features = [torch.randn(1, width, 8 // f, 12 // f) for width, f in ours.ends]
    for count in range(1, 4):
        given = features[:count]
        wanted = theirs(
            x,
            time,
            context,
            down_intrablock_additional_residuals=[feature.clone() for feature in given],
        ).sample
        found = ours(x, time, context, features=[*given, *[None] * (3 - count)])
        assert (found - wanted).norm() / wanted.norm() < 1e-5
    with pytest.raises(ValueError, match="2 features for 3 ends: give one each"):
        ours(x, time, context, features=features[:2])
    with pytest.raises(ValueError, match="a feature has shape"):
        ours(x, time, context, features=[features[1], None, None])
