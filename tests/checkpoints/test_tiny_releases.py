"""The released tiny autoencoders at full size, without weights: every tensor is taken once.

`diffusers` builds them on the meta device.  The author's own files number the layers: the encoder's
as `diffusers` does, the decoder's one higher, for what bounds the code is layer 0 there.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_tiny import AutoencoderTiny
from torch import Tensor

from mezzotint.checkpoints.inspect import recognise
from mezzotint.checkpoints.keys import Table, to_ours, to_theirs
from mezzotint.checkpoints.source import Entry, Listing
from mezzotint.checkpoints.tables import tiny_autoencoder as tables
from mezzotint.networks.tiny_autoencoder import TinyAutoencoder, TinyAutoencoderConfig

KINDS = {
    4: "tiny autoencoder (TAESD) with 4 latent channels, as of SD1 and SDXL",
    16: "tiny autoencoder (TAESD) with 16 latent channels, as of SD3 and FLUX",
}
NUMBERS = {"encoder": 1_222_532, "decoder": 1_222_531}
"""Weights of TAESD, as its author counts them."""


def listing(state: Mapping[str, Tensor]) -> Listing:
    entries = {name: Entry("F16", tuple(value.shape)) for name, value in state.items()}
    return Listing(Path("x.safetensors"), "safetensors", entries, {}, 0)


def sizes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items()}


def assert_taken_once(
    theirs: Mapping[str, Tensor], own: Mapping[str, Tensor], table: Table
) -> None:
    assert sizes(to_ours(theirs, table, own)) == sizes(own)
    assert sizes(to_theirs(own, table)) == sizes(theirs)


@pytest.mark.parametrize("channels", KINDS)
def test_every_layout(channels: int) -> None:
    with torch.device("meta"):
        theirs = AutoencoderTiny(latent_channels=channels).state_dict()
        own = TinyAutoencoder(TinyAutoencoderConfig(latent_channels=channels)).state_dict()
    kind = KINDS[channels]
    assert recognise(listing(theirs)).kind == f"{kind} (diffusers)"
    assert_taken_once(theirs, own, tables.DIFFUSERS)
    both: dict[str, Tensor] = {}
    for half, table in (("encoder", tables.ENCODER), ("decoder", tables.DECODER)):
        numbered: dict[str, Tensor] = {}
        for name, value in theirs.items():
            if name.startswith(f"{half}.layers."):
                number, rest = name.removeprefix(f"{half}.layers.").split(".", 1)
                numbered[f"{int(number) + (half == 'decoder')}.{rest}"] = value
        assert recognise(listing(numbered)).kind == f"{half} of the {kind}"
        halved = {name: value for name, value in own.items() if name.startswith(half)}
        assert_taken_once(numbered, halved, table)
        if channels == 4:
            assert sum(value.numel() for value in numbered.values()) == NUMBERS[half]
        both |= {f"taesd_{half}.{name}": value for name, value in numbered.items()}
    assert recognise(listing(both)).kind == kind
    assert_taken_once(both, own, tables.COMBINED)
    scaled = {**both, "vae_scale": torch.ones(()), "vae_shift": torch.zeros(())}
    assert sizes(to_ours(scaled, tables.COMBINED, own)) == sizes(own)
