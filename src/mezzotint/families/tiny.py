"""Tiny autoencoders (TAESD) with a checkpoint: to show what forms, or in the place of its own.

They are files of their own, taught the codes of one family as these are diffused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from mezzotint.checkpoints.layout import Beside
from mezzotint.families import flow, ldm
from mezzotint.families.separate import AUTOENCODER, TINY, tiny_halves
from mezzotint.networks.tiny_autoencoder import TinyAutoencoderConfig

F = TypeVar("F", bound=ldm.Family | flow.Family)


def fitted(family: F, beside: Mapping[str, Beside]) -> F:
    """A family with the tiny autoencoders that were given beside a checkpoint of it."""
    if isinstance(family, flow.Family):
        scale, offset = family.scale, family.offset
    else:
        scale, offset = family.tiny_scale or family.scale, 0.0
    for part, encoder in tiny_halves(beside).items():
        config = TinyAutoencoderConfig(
            latent_channels=family.autoencoder.latent_channels,
            encoder=encoder,
            scale=scale,
            offset=offset,
        )
        if part == TINY:
            family = replace(family, tiny=config)
        elif part == AUTOENCODER:
            family = replace(family, autoencoder=config)
    return family
