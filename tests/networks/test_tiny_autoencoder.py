"""The tiny autoencoder: equal to `diffusers` at its true size, with random weights."""

from __future__ import annotations

import pytest
import torch
from parity import assert_named_once, take

from mezzotint.checkpoints.tables import tiny_autoencoder as tables
from mezzotint.networks.tiny_autoencoder import TinyAutoencoder, TinyAutoencoderConfig
from pipelines import tiny_autoencoder


@pytest.mark.parametrize("channels", [4, 16])
@torch.no_grad()
def test_equals_diffusers(channels: int) -> None:
    theirs = tiny_autoencoder(channels)
    ours = TinyAutoencoder(TinyAutoencoderConfig(latent_channels=channels)).eval()
    take(ours, theirs.state_dict(), tables.DIFFUSERS)
    x, z = torch.rand(2, 3, 32, 48) * 2 - 1, 3 * torch.randn(2, channels, 4, 6)
    code, picture = theirs.encode(x).latents, theirs.decode(z).sample
    assert float(code.std()) > 0.1 and float(picture.std()) > 0.1
    torch.testing.assert_close(ours.encode(x), code, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(ours.decode(z), picture, atol=1e-5, rtol=1e-5)
    assert ours.encode(x).shape == (2, channels, 4, 6)


@torch.no_grad()
def test_its_codes_are_the_means_of_the_autoencoder_that_taught_it() -> None:
    """It was taught ``(mean − offset) * scale``: what it says of a code that is scaled so."""
    torch.manual_seed(0)
    plain = TinyAutoencoder(TinyAutoencoderConfig())
    scaled = TinyAutoencoder(TinyAutoencoderConfig(scale=0.25, offset=0.5))
    scaled.load_state_dict(plain.state_dict())
    mean, x = torch.randn(1, 4, 4, 4), torch.rand(1, 3, 32, 32) * 2 - 1
    torch.testing.assert_close(scaled.decode(mean), plain.decode((mean - 0.5) * 0.25))
    torch.testing.assert_close(scaled.encode(x), plain.encode(x) / 0.25 + 0.5)


def test_a_decoder_alone_encodes_nothing() -> None:
    alone = TinyAutoencoder(TinyAutoencoderConfig(encoder=False))
    with pytest.raises(ValueError, match="is the decoder alone: give a file with both halves"):
        alone.encode(torch.zeros(1, 3, 8, 8))


def test_every_layout_names_every_weight_once() -> None:
    state = TinyAutoencoder(TinyAutoencoderConfig()).state_dict()
    assert_named_once(state, tables.DIFFUSERS, tables.COMBINED)
    for half, table in (("encoder.", tables.ENCODER), ("decoder.", tables.DECODER)):
        own = {name: value for name, value in state.items() if name.startswith(half)}
        assert_named_once(own, table)
