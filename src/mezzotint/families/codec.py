"""What latent models diffuse: the scaled code of an autoencoder, and how it is shown meanwhile."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mezzotint.families import bands
from mezzotint.families.separate import AUTOENCODER, TINY
from mezzotint.networks.ldm_autoencoder import LdmAutoencoder, LdmAutoencoderConfig
from mezzotint.networks.tiny_autoencoder import TinyAutoencoder, TinyAutoencoderConfig

Autoencoder = LdmAutoencoder | TinyAutoencoder
AutoencoderConfig = LdmAutoencoderConfig | TinyAutoencoderConfig


@dataclass(frozen=True)
class ScaledCodec:
    """Pictures are diffused as the means of an autoencoder's code, ``(mean − offset) * scale``.

    scale, offset: one number, or one a channel, ``(C, 1, 1)``.
    patch: pixels of the code a side of what the network takes as one token.
    """

    autoencoder: Autoencoder
    scale: float | Tensor
    offset: float | Tensor = 0.0
    patch: int = 1

    @property
    def channels(self) -> int:
        return self.autoencoder.config.channels

    @property
    def multiple(self) -> int:
        return self.autoencoder.config.stride * self.patch

    @property
    def units(self) -> tuple[float, ...]:
        numbers = torch.as_tensor(self.scale), torch.as_tensor(self.offset)
        return tuple(n for each in numbers for n in each.flatten().tolist())

    def shape(self, size: Sequence[int]) -> tuple[int, ...]:
        stride = self.autoencoder.config.stride
        return (self.autoencoder.config.latent_channels, *(edge // stride for edge in size))

    def banded(self, size: Sequence[int]) -> bool:
        """Whether media of a size are coded in bands (:mod:`mezzotint.families.bands`)."""
        return isinstance(self.autoencoder, LdmAutoencoder) and math.prod(size) > bands.AREA

    def encode(self, media: Tensor) -> Tensor:
        own = self.autoencoder
        if isinstance(own, TinyAutoencoder):
            code = own.encode(media)
        elif self.banded(media.shape[2:]):
            code = bands.encode(own, media)
        else:
            code = own.encode(media)[0]
        return (code - _on(self.offset, code)) * _on(self.scale, code)

    def decode(self, x0: Tensor) -> Tensor:
        code = x0 / _on(self.scale, x0) + _on(self.offset, x0)
        own = self.autoencoder
        size = [edge * own.config.stride for edge in x0.shape[2:]]
        if isinstance(own, LdmAutoencoder) and self.banded(size):
            return bands.decode(own, code)
        return own.decode(code)


def _on(value: float | Tensor, code: Tensor) -> float | Tensor:
    return value.to(code.device) if isinstance(value, Tensor) else value


class Coded(NamedTuple):
    """What codes and shows a model's pictures.

    preview: see :class:`~mezzotint.families.model.Model`; parts: the networks of both.
    """

    codec: ScaledCodec
    preview: Callable[[Tensor], Tensor] | None
    parts: dict[str, nn.Module]


def coded(
    own: AutoencoderConfig,
    previewing: TinyAutoencoderConfig | None,
    linear: Callable[[Tensor], Tensor] | None,
    scaled: Callable[[Autoencoder], ScaledCodec],
) -> Coded:
    """An autoencoder with fresh weights, and how its codes are shown: by a tiny one if there is
    one, else by a linear map.

    Args:
        previewing: of a tiny autoencoder that is there for this alone.
        scaled: what an autoencoder's code is to its family.
    """
    if isinstance(own, TinyAutoencoderConfig):
        network: Autoencoder = TinyAutoencoder(own)
    else:
        network = LdmAutoencoder(own)
    codec, parts = scaled(network), dict[str, nn.Module]({AUTOENCODER: network})
    if previewing is not None:
        tiny = TinyAutoencoder(previewing)
        return Coded(codec, scaled(tiny).decode, {**parts, TINY: tiny})
    return Coded(codec, codec.decode if isinstance(network, TinyAutoencoder) else linear, parts)
