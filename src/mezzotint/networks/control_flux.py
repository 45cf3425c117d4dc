"""The control network of FLUX.1: its first blocks once more, told a picture (ControlNet).

After InstantX' and XLabs' ControlNets of FLUX.1 (2024), which carry Zhang et al. 2023, §3.2 over to
transformers: what is told of the picture is added to the tokens after the stem, and the picture's
tokens after every block go through a matrix that began as zero.  A network of several kinds of
pictures is told which it is by one more token before the text.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mezzotint.networks.control_unet import HintEncoder
from mezzotint.networks.flux import FluxConfig, JointBlock, SingleBlock, embed_time, rotations


@dataclass(frozen=True)
class ControlFluxConfig:
    """What a :class:`ControlFlux` is made of.

    blocks: sizes and depths of its transformer.
    modes: kinds of pictures that it is told apart, 0 where it knows one.
    drawn: convolutions read the picture itself (XLabs); else it is told the picture's code.
    hinted: channels of the picture's tokens, and of what is joined to them.
    """

    blocks: FluxConfig
    modes: int = 0
    drawn: bool = False
    hinted: int = 64


class Residuals(NamedTuple):
    """Of each block of either kind, ``(B, N, C)``."""

    joint: tuple[Tensor, ...]
    single: tuple[Tensor, ...]


def _two_layers(width_in: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(width_in, width), nn.SiLU(), nn.Linear(width, width))


class ControlFlux(nn.Module):
    """The network.  ``hint`` is called once for a picture's tokens, ``forward`` at each step."""

    def __init__(self, config: ControlFluxConfig) -> None:
        super().__init__()
        self.config = config
        sizes = config.blocks
        width = sizes.width
        self.stem = nn.Linear(sizes.in_channels, width)
        self.encoder = HintEncoder(16, widths=(16, 16, 16, 16)) if config.drawn else None
        self.hint = nn.Linear(config.hinted, width)
        self.context = nn.Linear(sizes.context_width, width)
        self.mode = nn.Embedding(config.modes, width) if config.modes else None
        self.time = _two_layers(256, width)
        self.vector = _two_layers(sizes.vector_width, width)
        self.guidance = _two_layers(256, width) if sizes.guided else None
        self.joint = nn.ModuleList(JointBlock(sizes) for _ in range(sizes.depth))
        self.single = nn.ModuleList(SingleBlock(sizes) for _ in range(sizes.single))
        self.joint_ports = nn.ModuleList(nn.Linear(width, width) for _ in range(sizes.depth))
        self.single_ports = nn.ModuleList(nn.Linear(width, width) for _ in range(sizes.single))

    def forward(
        self,
        x: Tensor,
        ids: Tensor,
        time: Tensor,
        context: Tensor,
        vector: Tensor,
        hint: Tensor,
        guidance: Tensor | None = None,
        mode: Tensor | None = None,
    ) -> Residuals:
        """The residuals of ``x (B, N, in_channels)``, one a block.

        Args:
            ids, time, context, vector, guidance: as :class:`~mezzotint.networks.flux.Flux` is told.
            hint: ``(B or 1, N, width)``, what ``self.hint`` makes of the picture's tokens.
            mode: ``(B,)``, the number of the picture's kind, where the network knows several.

        Raises:
            ValueError: a scale or a mode is given or lacking against the configuration.
        """
        for name, given, layer in (
            ("guidance scale", guidance, self.guidance),
            ("mode", mode, self.mode),
        ):
            if (given is None) != (layer is None):
                raise ValueError(
                    f"this control network is told {'no' if layer is None else 'a'} {name}"
                )
        told = self.time(embed_time(time, 256).to(x.dtype)) + self.vector(vector)
        if self.guidance is not None and guidance is not None:
            told = told + self.guidance(embed_time(guidance * 1000, 256).to(x.dtype))
        told = F.silu(told)[:, None]  # (B, 1, C)
        tokens, text = self.stem(x) + hint, self.context(context)
        if self.mode is not None and mode is not None:
            text = torch.cat([self.mode(mode)[:, None], text], dim=1)
        joined = torch.cat([ids.new_zeros(len(ids), text.shape[1], ids.shape[2]), ids], dim=1)
        turn = rotations(joined, self.config.blocks.axes)
        joint: list[Tensor] = []
        for block, port in zip(self.joint, self.joint_ports, strict=True):
            tokens, text = block(tokens, text, told, turn)
            joint.append(port(tokens))
        start = text.shape[1]
        tokens = torch.cat([text, tokens], dim=1)
        single: list[Tensor] = []
        for block, port in zip(self.single, self.single_ports, strict=True):
            tokens = block(tokens, told, turn)
            single.append(port(tokens[:, start:]))
        return Residuals(tuple(joint), tuple(single))
