"""The autoencoder: shapes, the code's distribution, and the closed form of its divergence."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import Normal
from torch.distributions import kl_divergence as reference_kl

from mezzotint.networks import autoencoder
from mezzotint.networks.autoencoder import Autoencoder, AutoencoderConfig, kl_divergence

TINY = AutoencoderConfig(
    channels=3,
    latent_channels=5,
    width=8,
    decoder_width=16,
    multipliers=(1, 2),
    head_width=8,
    group_width=4,
)


def config(**changes: object) -> AutoencoderConfig:
    return AutoencoderConfig(**(asdict(TINY) | changes))  # type: ignore[arg-type]


def build(settings: AutoencoderConfig = TINY) -> Autoencoder:
    """A network of which no parameter stands at its zero initialization."""
    network = Autoencoder(settings).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            parameter.normal_(generator=generator)
            parameter.mul_(0.2).add_(1 if "norm" in name else 0)
    return network


def normal(*shape: int, seed: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float64)


def close(a: Tensor, b: Tensor, tolerance: float = 1e-12) -> bool:
    return bool((a - b).abs().max() <= tolerance * b.abs().max())


@pytest.mark.parametrize(
    ("dims", "patch", "size", "code"),
    [
        (1, 1, (16,), (8,)),
        (1, 4, (37,), (5,)),
        (2, 2, (8, 8), (2, 2)),
        (2, 1, (7, 12), (4, 6)),
        (2, 4, (1, 17), (1, 3)),
        (3, 1, (4, 6, 2), (2, 3, 1)),
        (3, 2, (3, 9, 5), (1, 3, 2)),
    ],
)
def test_any_size_and_number_of_dimensions(
    dims: int, patch: int, size: tuple[int, ...], code: tuple[int, ...]
) -> None:
    network = build(config(dims=dims, patch=patch))
    assert network.config.stride == 2 * patch
    y, mean, log_variance = network(normal(2, 3, *size))
    assert y.shape == (2, 3, *size)
    assert mean.shape == log_variance.shape == (2, 5, *code)
    assert network.decode(mean).shape == (2, 3, *(n * network.config.stride for n in code))


def test_features_are_what_the_decoder_makes_on_its_way() -> None:
    network = build(config(dims=2, patch=2))
    z = normal(2, 5, 3, 2)
    coarse, fine, last = network.features(z)
    assert torch.equal(autoencoder.depth_to_space(last, 2), network.decode(z))
    assert coarse.shape[2:] == (3, 2) and fine.shape[2:] == last.shape[2:] == (6, 4)
    assert torch.equal(network.decoder.head(fine), last)
    with pytest.raises(ValueError, match="the code of shape"):
        network.features(z[:, :1])


@pytest.mark.parametrize("dims", [1, 2, 3])
def test_depth_to_space_undoes_space_to_depth(dims: int) -> None:
    x = normal(2, 3, *(2 * n for n in (2, 3, 4)[:dims]))
    folded = autoencoder.space_to_depth(x, 2)
    assert folded.shape == (2, 3 * 2**dims, *(2, 3, 4)[:dims])
    assert torch.equal(autoencoder.depth_to_space(folded, 2), x)
    if dims == 2:
        assert torch.equal(folded, nn.functional.pixel_unshuffle(x, 2))


def test_padding_repeats_the_edge_and_is_cropped() -> None:
    network, x = build(), normal(2, 3, 6, 7)
    padded = nn.functional.pad(x, (0, 1, 0, 2), mode="replicate")
    y, mean, log_variance = network(x)
    whole, *code = network(padded)
    assert torch.equal(y, whole[..., :6, :7])
    assert torch.equal(mean, code[0])
    assert torch.equal(log_variance, code[1])


def test_forward_is_encode_then_decode() -> None:
    network, x = build(), normal(2, 3, 8, 8)
    mean, log_variance = network.encode(x)
    assert torch.equal(network(x)[0], network.decode(mean))
    noise = normal(2, 5, 2, 2, seed=2)
    drawn = mean + log_variance.exp().sqrt() * noise
    assert close(network(x, noise)[0], network.decode(drawn))
    assert not close(network(x, noise)[0], network.decode(mean), 1e-3)


def test_a_sample_in_a_batch_is_the_sample_alone() -> None:
    network, x, noise = build(), normal(3, 3, 6, 8), normal(3, 5, 2, 2)
    together = network(x, noise)
    for i in range(3):
        for alone, all_three in zip(network(x[i : i + 1], noise[i : i + 1]), together, strict=True):
            assert close(alone[0], all_three[i])


def test_divergence_against_torch_distributions() -> None:
    mean, log_variance = normal(3, 5, 2, 4), normal(3, 5, 2, 4, seed=2)
    wanted = reference_kl(Normal(mean, (log_variance / 2).exp()), Normal(0.0, 1.0))
    assert close(kl_divergence(mean, log_variance), wanted.sum((1, 2, 3)))
    zero = torch.zeros(2, 4)
    assert torch.equal(kl_divergence(zero, zero), torch.zeros(2))


def test_log_variance_is_clamped() -> None:
    network = build()
    with torch.no_grad():
        network.encoder.head.bias[5:] = torch.tensor([1e4, -1e4, 0.0, 0.0, 0.0])
    _, log_variance = network.encode(normal(1, 3, 8, 8))
    assert (log_variance[:, 0] == 20).all()
    assert (log_variance[:, 1] == -30).all()


def test_gradient_reaches_every_parameter() -> None:
    network = build()
    y, mean, log_variance = network(normal(2, 3, 8, 8), normal(2, 5, 2, 2))
    (y.square().sum() + kl_divergence(mean, log_variance).sum()).backward()
    silent = [
        name
        for name, parameter in network.named_parameters()
        if parameter.grad is None or not bool((parameter.grad != 0).any())
    ]
    assert silent == []


def test_blocks_and_attention_start_as_identities() -> None:
    x = normal(2, 16, 4, 4)
    assert torch.equal(autoencoder.Block(TINY, 16).double()(x), x)
    assert torch.equal(autoencoder.Attention(TINY, 16).double()(x), x)


@pytest.mark.parametrize("written_out", [0, 10**6])
def test_attention_against_the_formula(written_out: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(autoencoder, "WRITTEN_OUT", written_out)
    layer = build().encoder.middle[1]
    assert isinstance(layer, autoencoder.Attention)
    x = normal(2, 16, 3, 2)
    tokens = layer.norm(x).flatten(2).mT  # (B, N, C)
    q, k, v = (p.unflatten(-1, (2, 8)).transpose(1, 2) for p in layer.qkv(tokens).chunk(3, -1))
    weight = (q @ k.mT / 8**0.5).exp()
    y = (weight / weight.sum(-1, keepdim=True)) @ v
    wanted = x + layer.out(y.transpose(1, 2).flatten(2)).mT.reshape(x.shape)
    assert close(layer(x), wanted)


def test_without_attention_there_is_none() -> None:
    network = build(config(attention=False, head_width=7))
    assert not any(isinstance(m, autoencoder.Attention) for m in network.modules())
    assert network(normal(1, 3, 8, 8))[0].shape == (1, 3, 8, 8)


def test_names_of_the_parameters() -> None:
    names = {name.rsplit(".", 1)[0] for name in Autoencoder(TINY).state_dict()}
    block = ("norm1", "conv1", "norm2", "conv2")
    attention = {f"{side}.middle.1.{n}" for side in ("encoder", "decoder") for n in
                 ("norm", "qkv", "out")}  # fmt: skip
    assert names == attention | {
        *(f"{side}.{n}" for side in ("encoder", "decoder") for n in ("stem", "norm", "head")),
        "encoder.downsample.0",
        "decoder.upsample.0",
        *(f"encoder.levels.0.0.{n}" for n in block),
        *(f"encoder.middle.0.{n}" for n in block),
        *(f"decoder.middle.{i}.{n}" for i in (0, 2) for n in block),
        *(f"decoder.levels.0.{i}.{n}" for i in (0, 1) for n in block),
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dims": 0}, "dims is 0"),
        ({"latent_channels": 0}, "latent_channels is 0"),
        ({"multipliers": ()}, "the number of multipliers is 0"),
        ({"width": 10}, "width gives a level of 10 channels"),
        ({"decoder_width": 18}, "decoder_width gives a level of 18 channels"),
        ({"head_width": 12}, "head_width 12"),
    ],
)
def test_an_impossible_configuration_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        config(**changes)


def test_an_argument_that_does_not_fit_is_refused() -> None:
    network = build()
    with pytest.raises(ValueError, match=r"x of shape .* 3 channels over 2 dimensions"):
        network(normal(1, 4, 8, 8))
    with pytest.raises(ValueError, match=r"x of shape .* 3 channels over 2 dimensions"):
        network.encode(normal(1, 3, 8, 0))
    with pytest.raises(ValueError, match=r"the code of shape .* 5 channels over 2 dimensions"):
        network.decode(normal(1, 4, 2, 2))
    with pytest.raises(ValueError, match="the noise has shape"):
        network(normal(1, 3, 8, 8), normal(1, 5, 1, 1))
