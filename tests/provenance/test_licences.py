"""The licence that a file of weights states, and no other."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from mezzotint.families.catalogue import locate
from mezzotint.provenance.licences import UNKNOWN, stated

WEIGHTS = {"lora_unet_down_blocks_0_attentions_0_proj_in.lora_down.weight": torch.zeros(2, 4)}


def test_our_own_model_states_those_of_its_drawings() -> None:
    assert stated(locate("icons")) == (
        "Apache-2.0 AND CC-BY-4.0 AND LicenseRef-Public-Domain AND MIT"
    )


@pytest.mark.parametrize(
    ("metadata", "licence"),
    [
        ({"modelspec.license": "CreativeML Open RAIL-M"}, "CreativeML Open RAIL-M"),
        ({"license": "mit"}, "mit"),
        ({"modelspec.license": "a", "license": "b"}, "a"),
        ({"modelspec.license": " \x1b[31m two\nlines "}, "[31m two lines"),
        ({"modelspec.license": "x" * 300}, "x" * 200),
        ({"modelspec.license": ""}, UNKNOWN),
        ({"format": "pt"}, UNKNOWN),
    ],
)
def test_what_a_file_states(tmp_path: Path, metadata: dict[str, str], licence: str) -> None:
    save_file(WEIGHTS, tmp_path / "a.safetensors", metadata)
    assert stated(tmp_path / "a.safetensors") == licence


def test_what_cannot_be_read_states_nothing(tmp_path: Path) -> None:
    (tmp_path / "bad.safetensors").write_bytes(b"\xff" * 64)
    assert stated(tmp_path / "bad.safetensors") == stated(tmp_path / "none") == UNKNOWN
