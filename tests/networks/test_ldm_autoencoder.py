"""Latent diffusion's autoencoder: equal to `diffusers` on small random networks."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from parity import assert_named_once, take

from mezzotint.checkpoints.keys import to_ours, to_theirs
from mezzotint.checkpoints.tables import ldm_autoencoder as tables
from mezzotint.networks.ldm_autoencoder import Enlarge, LdmAutoencoder, LdmAutoencoderConfig

CONFIGS = {
    "4 channels": LdmAutoencoderConfig(width=32, multipliers=(1, 2)),
    "16 channels": LdmAutoencoderConfig(
        latent_channels=16, width=32, multipliers=(1, 2, 2), mixed=False
    ),
}


@pytest.mark.parametrize("name", CONFIGS)
@torch.no_grad()
def test_equals_diffusers(name: str) -> None:
    config = CONFIGS[name]
    torch.manual_seed(0)
    levels = len(config.multipliers)
    theirs = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=tuple(config.width * m for m in config.multipliers),
        layers_per_block=config.blocks,
        latent_channels=config.latent_channels,
        use_quant_conv=config.mixed,
        use_post_quant_conv=config.mixed,
    ).eval()
    ours = LdmAutoencoder(config).eval()
    take(ours, theirs.state_dict(), tables.DIFFUSERS)
    x = torch.randn(2, 3, 16, 24)
    expected = theirs.encode(x).latent_dist
    mean, log_variance = ours.encode(x)
    torch.testing.assert_close(mean, expected.mean, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(log_variance, expected.logvar, atol=1e-5, rtol=1e-5)
    back = theirs.decode(expected.mean).sample
    torch.testing.assert_close(ours.decode(expected.mean), back, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", CONFIGS)
def test_both_layouts_name_every_weight_once(name: str) -> None:
    config = CONFIGS[name]
    state = LdmAutoencoder(config).state_dict()
    assert_named_once(state, tables.original(len(config.multipliers)), tables.DIFFUSERS)


def test_the_names_of_old_releases_are_known() -> None:
    state = LdmAutoencoder(CONFIGS["4 channels"]).state_dict()
    old = {
        name.replace("to_q", "query")
        .replace("to_k", "key")
        .replace("to_v", "value")
        .replace("to_out.0", "proj_attn"): value
        for name, value in to_theirs(state, tables.DIFFUSERS).items()
    }
    back = to_ours(old, tables.DIFFUSERS, state)
    assert all(torch.equal(back[key], state[key]) for key in state)


@pytest.mark.parametrize("padding", [(1, 1), (0, 1), (0, 0)])
@torch.no_grad()
def test_enlarging_is_a_convolution_of_repeated_pixels(padding: tuple[int, int]) -> None:
    """In float32 by sums of the weights; along an axis without padding its ends are given."""
    torch.manual_seed(0)
    layer = Enlarge(4)
    given = torch.randn(2, 4, 5, 7)
    pads = [1 - padding[1]] * 2 + [1 - padding[0]] * 2
    x = F.pad(given, pads, mode="circular")
    large = F.pad(F.interpolate(given, scale_factor=2.0), pads, mode="circular")
    layer.padding = padding
    expected = F.conv2d(large.double(), layer.weight.double(), layer.bias.double(), padding=padding)  # type: ignore[union-attr]
    for kind, tolerance in ((torch.float32, 1e-6), (torch.float64, 1e-12)):
        found = layer.to(kind)(x.to(kind))
        assert found.shape == expected.shape and found.dtype == kind
        torch.testing.assert_close(found.double(), expected, atol=tolerance, rtol=tolerance)
