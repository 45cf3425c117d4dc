"""Models with random weights, made for their time, and a clock around their networks."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from mezzotint.diffusion.level import Conditioning, Level, Tokens
from mezzotint.diffusion.prediction import ROWS, Parameterization, unit
from mezzotint.diffusion.schedules import scaled_linear_beta
from mezzotint.families.model import WHOLE, Defaults, Model, NetworkCall, Weaker
from mezzotint.families.native import (
    LatentConfig,
    NativeConfig,
    PixelCodec,
    build,
    class_conditioner,
    save_model,
)
from mezzotint.networks.autoencoder import AutoencoderConfig
from mezzotint.networks.dit import DiTConfig
from mezzotint.networks.unet import UNet, UNetConfig


@dataclass(frozen=True)
class Scale:
    """How large and how often.

    rounds: of pairs of samplers; runs: of whole pictures; starts: of fresh interpreters.
    cycles, steps, warm: rounds of training, steps timed in each, steps before those.
    width, depth: of the `icons`-shaped transformer.
    sampled, trained: the U-Nets of the comparisons; pictures: drawn for training; batch.
    """

    rounds: int
    runs: int
    starts: int
    cycles: int
    steps: int
    warm: int
    width: int
    depth: int
    sampled: UNetConfig
    trained: UNetConfig
    pictures: int
    batch: int


_SAMPLED = UNetConfig(
    3,
    3,
    width=32,
    multipliers=(1, 2, 4),
    blocks=1,
    attention=(False, False, True),
    vector_width=1,
    time_frequencies=(1e-4, 1.0),
)
_TRAINED = UNetConfig(
    3, 3, width=48, multipliers=(1, 2, 4, 4), blocks=1, attention=(False, False, True, True)
)
FULL = Scale(11, 7, 7, 6, 6, 2, 384, 8, _SAMPLED, _TRAINED, 256, 16)
_TINY = {"multipliers": (1, 2), "attention": (False, True), "width": 16, "head_width": 16}
QUICK = Scale(2, 2, 2, 2, 2, 1, 48, 1, replace(_SAMPLED, **_TINY), replace(_TRAINED, **_TINY), 8, 2)
"""For trying the program out; its numbers mean nothing."""


class Clock:
    """A network call with the seconds spent in it."""

    def __init__(self, call: NetworkCall) -> None:
        self._call = call
        self.seconds = 0.0
        self.calls = 0

    def __call__(
        self, x: Tensor, time_: Tensor, conditioning: Conditioning, weaker: Weaker = WHOLE
    ) -> Tensor:
        began = time.perf_counter()
        output = self._call(x, time_, conditioning, weaker)
        self.seconds += time.perf_counter() - began
        self.calls += 1
        return output

    def restart(self) -> None:
        self.seconds, self.calls = 0.0, 0


def shake(network: nn.Module, seed: int = 0) -> None:
    """Fill what starts at zero with small numbers, so that every branch has an effect."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in network.parameters():
            if not bool(weight.any()):
                weight.normal_(0, 0.02, generator=generator)


# --- shaped like `icons` ----------------------------------------------------------------------


def _icons_config(scale: Scale) -> NativeConfig:
    """128 px as a 16 × 16 code of 16 channels, in patches of 2: 64 picture tokens."""
    network = DiTConfig(16, 16, 2, scale.width, scale.depth, 8, vector_width=384, token_width=384)
    coder = AutoencoderConfig(
        4, 16, 32, 64, multipliers=(1, 2), blocks=1, decoder_blocks=2, attention=False, patch=4
    )
    return NativeConfig(
        name="random weights, shaped like icons",
        network=network,
        channels="rgba",
        condition="text",
        prediction="flow",
        schedule="flow",
        defaults=Defaults((128, 128), 20, 3.0, "dpmpp_2m", "linspace"),
        latent=LatentConfig(coder, (0.0,) * 16, (1.0,) * 16),
    )


def write_icons_shaped(path: Path, scale: Scale) -> None:
    """A model file shaped like `icons`, its weights random bfloat16."""
    torch.manual_seed(0)
    config = _icons_config(scale)
    model = build(config)
    parts = nn.ModuleDict(model.parts)
    shake(parts)
    save_model(path, config, {n: w.to(torch.bfloat16) for n, w in parts.state_dict().items()})


def icons_transformer(scale: Scale, text_tokens: int = 16) -> tuple[Model, Clock]:
    """The transformer of `icons` on its codes alone: no text encoder, no autoencoder."""
    torch.manual_seed(0)
    config = replace(_icons_config(scale), condition="none", latent=None, defaults=_code_defaults())
    model = build(config)
    shake(model.network)
    model.network.eval().requires_grad_(False)
    told = Conditioning(
        vector=torch.randn(1, 384),
        tokens=Tokens(torch.randn(1, text_tokens, 384), torch.ones(1, text_tokens).bool()),
    )
    clock = Clock(model.call)
    return replace(model, call=clock, codec=PixelCodec(16), conditioner=lambda _: told), clock


def _code_defaults() -> Defaults:
    return Defaults((16, 16), 20, 3.0, "dpmpp_2m", "linspace")


# --- an eps model that any scheduler can drive ------------------------------------------------


class EpsNetwork(nn.Module):
    """``eps = sigma(t) x + U-Net``: near the right answer for data of unit variance.

    With a U-Net of random weights alone x0 would grow like 1 / alpha, and an agreement of huge or
    clipped numbers shows nothing.  ``time`` counts training steps, from 0.
    """

    def __init__(self, config: UNetConfig, sigmas: Tensor) -> None:
        super().__init__()
        self.unet = UNet(config)
        shake(self.unet)
        self.sigmas = nn.Buffer(sigmas)  # (N,)

    def forward(self, x: Tensor, time: Tensor, vector: Tensor) -> Tensor:
        sigma = self.sigmas[time.round().long()].view(-1, 1, 1, 1)
        return sigma * x + self.unet(x, time.float(), vector)


@dataclass(frozen=True)
class Shrunk(PixelCodec):
    """Pictures are a tenth of what is diffused, so that nothing is clipped at the end."""

    def decode(self, x0: Tensor) -> Tensor:
        return x0 / 10


TABLE = scaled_linear_beta()
SIZE = 64
CLASS = "thing"


def eps_model(scale: Scale) -> tuple[Model, Clock]:
    """A class-conditional variance-preserving eps model at 64 px, and the clock in it."""
    torch.manual_seed(0)
    network = EpsNetwork(scale.sampled, (1 - TABLE.alphas_cumprod).sqrt().float())
    network.eval().requires_grad_(False)

    def call(x: Tensor, time: Tensor, conditioning: Conditioning, weaker: Weaker = WHOLE) -> Tensor:
        assert conditioning.vector is not None
        return network(x, time, conditioning.vector)

    def c_noise(level: Level) -> Tensor:
        return TABLE.index(level)

    clock = Clock(call)
    model = Model(
        name="eps",
        network=network,
        call=clock,
        parameterization=Parameterization(ROWS["eps"], unit, c_noise),
        schedule=TABLE,
        codec=Shrunk(3),
        conditioner=class_conditioner((CLASS,)),
        defaults=Defaults((SIZE, SIZE), 20, 1.0, "ddim", "trailing"),
        parts={"network": network},
    )
    return model, clock
