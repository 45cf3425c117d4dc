"""SigLIP's picture encoder and Redux' two matrices: equal to their reference, and complete.

The full sizes are those of FLUX.1 Redux' folder: its ``image_encoder`` says the same as that of
google/siglip-so400m-patch14-384, and its ``image_embedder`` has the defaults of `diffusers`.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from diffusers.pipelines.flux.modeling_flux import ReduxImageEncoder
from parity import assert_named_once, take
from torch import Tensor
from transformers import SiglipConfig as TheirWholeConfig
from transformers import SiglipModel, SiglipVisionConfig, SiglipVisionModel

from mezzotint.checkpoints.inspect import recognise
from mezzotint.checkpoints.keys import to_ours, to_theirs
from mezzotint.checkpoints.source import Entry, Listing
from mezzotint.checkpoints.tables import redux, siglip
from mezzotint.networks.redux import Redux
from mezzotint.networks.siglip import Siglip, SiglipConfig

SO400M = {
    "hidden_size": 1152,
    "intermediate_size": 4304,
    "num_hidden_layers": 27,
    "num_attention_heads": 16,
    "image_size": 384,
    "patch_size": 14,
    "hidden_act": "gelu_pytorch_tanh",
    "layer_norm_eps": 1e-6,
}
PARAMETERS = 428_225_600  # of the encoder with its head
EMBEDDER = 64_503_808


def _relative(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize(("size", "patch"), [(16, 4), (18, 4), (21, 7)])
@torch.no_grad()
def test_the_encoder_equals_transformers(size: int, patch: int) -> None:
    """Also where the patches do not fill the picture, as 27 of 14 pixels do not fill 384."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "intermediate_size": 40, "num_attention_heads": 4}
    theirs = SiglipVisionModel(
        SiglipVisionConfig(**sizes, num_hidden_layers=3, image_size=size, patch_size=patch)
    ).eval()
    for weight in theirs.parameters():
        weight.data += 0.1 * torch.randn_like(weight)
    ours = Siglip(SiglipConfig(size, patch, 32, 3, 4, 40)).eval()
    take(ours, theirs.state_dict(), siglip.vision(""))
    x = torch.randn(2, 3, size, size)
    assert _relative(ours(x), theirs(x).last_hidden_state) < 1e-5
    assert_named_once(ours.state_dict(), siglip.vision(), siglip.vision(""))


@torch.no_grad()
def test_the_embedder_equals_diffusers() -> None:
    torch.manual_seed(0)
    theirs, ours = ReduxImageEncoder(32, 24), Redux(32, 24)
    take(ours, theirs.state_dict(), redux.TABLE)
    x = torch.randn(2, 5, 32)
    assert _relative(ours(x), theirs(x).image_embeds) < 1e-5
    assert_named_once(ours.state_dict(), redux.TABLE)


def _listing(state: dict[str, Tensor]) -> Listing:
    entries = {name: Entry("BF16", tuple(value.shape)) for name, value in state.items()}
    return Listing(Path("x.safetensors"), "safetensors", entries, {}, 0)


def _numbers(state: dict[str, Tensor]) -> int:
    return sum(tensor.numel() for tensor in state.values())


@pytest.mark.parametrize("prefix", ["vision_model.", ""])
def test_the_release_is_complete(prefix: str) -> None:
    """448 tensors: each has a place, but for the head's; none of ours is empty."""
    with torch.device("meta"):
        theirs = SiglipVisionModel(SiglipVisionConfig(**SO400M)).state_dict()
        wanted = Siglip(SiglipConfig()).state_dict()
    state = {prefix + name: tensor for name, tensor in theirs.items()}
    assert len(state) == 448 and _numbers(state) == PARAMETERS
    table = siglip.vision(prefix)
    found = to_ours(state, table, wanted)
    assert {n: t.shape for n, t in found.items()} == {n: t.shape for n, t in wanted.items()}
    back = {n: t.shape for n, t in to_theirs(wanted, table).items()}
    head = {name for name in state if name.startswith(f"{prefix}head.")}
    assert back == {n: t.shape for n, t in state.items() if n not in head} and len(head) == 11
    assert recognise(_listing(state)).kind == "image encoder SigLIP so400m/14 at 384 px"


def test_a_file_with_both_encoders_has_only_known_names() -> None:
    with torch.device("meta"):
        few = {"hidden_size": 32, "intermediate_size": 40, "num_hidden_layers": 2}
        sizes = {**few, "num_attention_heads": 4}
        theirs = SiglipModel(TheirWholeConfig(text_config=sizes, vision_config=sizes)).state_dict()
        wanted = Siglip(SiglipConfig(224, 16, 32, 2, 4, 40)).state_dict()
    found = to_ours(theirs, siglip.vision(), wanted)
    assert found.keys() == wanted.keys()
    assert recognise(_listing(theirs)).kind == "image encoder SigLIP"


def test_the_embedder_is_complete() -> None:
    with torch.device("meta"):
        theirs, wanted = ReduxImageEncoder().state_dict(), Redux().state_dict()
    found = to_ours(theirs, redux.TABLE, wanted)
    assert {n: t.shape for n, t in found.items()} == {n: t.shape for n, t in wanted.items()}
    assert _numbers(theirs) == EMBEDDER
    assert recognise(_listing(theirs)).kind == "Redux for FLUX.1 (makes prompts of pictures)"
