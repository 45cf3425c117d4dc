"""Pictures through an autoencoder in bands of rows: the whole's numbers, in less memory."""

from __future__ import annotations

import pytest
import torch

from mezzotint.adapters.seamless import seamless
from mezzotint.families import bands
from mezzotint.families.catalogue import shadow
from mezzotint.families.codec import ScaledCodec
from mezzotint.families.memory import most, plan
from mezzotint.families.sd1 import SD1
from mezzotint.networks.ldm_autoencoder import LdmAutoencoder, LdmAutoencoderConfig


@pytest.fixture
def autoencoder(monkeypatch: pytest.MonkeyPatch) -> LdmAutoencoder:
    monkeypatch.setattr(bands, "_BAND", 1 << 12)  # two rows a band where it is finest
    torch.manual_seed(0)
    made = LdmAutoencoder(LdmAutoencoderConfig(width=32, multipliers=(1, 2, 2), blocks=1))
    return made.eval().requires_grad_(False)


def _near(found: torch.Tensor, wanted: torch.Tensor) -> None:
    assert found.shape == wanted.shape
    assert float((found - wanted).abs().max() / wanted.abs().max()) < 1e-5


@pytest.mark.parametrize("size", [(20, 12), (7, 9), (1, 1)])
def test_decodes_as_the_whole(autoencoder: LdmAutoencoder, size: tuple[int, int]) -> None:
    z = torch.randn(2, 4, *size)
    _near(bands.decode(autoencoder, z), autoencoder.decode(z))


@pytest.mark.parametrize("size", [(80, 48), (28, 36), (4, 4)])
def test_encodes_as_the_whole(autoencoder: LdmAutoencoder, size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size)
    _near(bands.encode(autoencoder, x), autoencoder.encode(x)[0])


@pytest.mark.parametrize("axes", [{0}, {1}, {0, 1}])
def test_has_no_border_where_the_whole_has_none(
    autoencoder: LdmAutoencoder, axes: set[int]
) -> None:
    z, x = torch.randn(1, 4, 20, 12), torch.randn(1, 3, 80, 48)
    plain = autoencoder.decode(z)
    with seamless([autoencoder], frozenset(axes)):
        _near(bands.decode(autoencoder, z), autoencoder.decode(z))
        _near(bands.encode(autoencoder, x), autoencoder.encode(x)[0])
        assert not torch.allclose(autoencoder.decode(z), plain, atol=1e-3)


def test_the_size_alone_says_what_is_done_in_bands(
    autoencoder: LdmAutoencoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec, z = ScaledCodec(autoencoder, 0.5, 0.1), torch.randn(1, 4, 16, 16)
    media = torch.randn(1, 3, 64, 64)
    monkeypatch.setattr(bands, "AREA", 64 * 64)
    assert torch.equal(codec.decode(z), autoencoder.decode(z / 0.5 + 0.1))
    monkeypatch.setattr(bands, "AREA", 64 * 64 - 1)
    assert torch.equal(codec.decode(z), bands.decode(autoencoder, z / 0.5 + 0.1))
    assert torch.equal(codec.encode(media), (bands.encode(autoencoder, media) - 0.1) * 0.5)


@pytest.mark.parametrize("edge", [1536, 2048])
def test_takes_little_more_than_half_the_memory(edge: int) -> None:
    model = shadow(SD1)
    codec = model.codec
    assert isinstance(codec, ScaledCodec)
    z = torch.empty(1, *codec.shape((edge, edge)), device="meta")
    plain = most(model, lambda: codec.autoencoder.decode(z))
    assert most(model, lambda: codec.decode(z)) < 0.55 * plain


def test_a_plan_says_that_a_picture_is_decoded_in_bands() -> None:
    for edge, banded in ((1024, False), (1536, True)):
        said = plan(shadow(SD1), (edge, edge), torch.float32, 64 * 10**9).said
        assert ("in bands" in said) == banded
