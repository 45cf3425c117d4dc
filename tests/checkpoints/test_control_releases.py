"""The released control networks of transformers and T2I-Adapters at full size, without weights.

`diffusers` builds each from the release's configuration, on the meta device; our sizes are read of
its names and shapes alone, and every tensor is taken once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.adapter import T2IAdapter as TheirAdapter
from diffusers.models.controlnets.controlnet_flux import FluxControlNetModel
from diffusers.models.controlnets.controlnet_sd3 import SD3ControlNetModel
from torch import Tensor, nn

from mezzotint.checkpoints.inspect import recognise
from mezzotint.checkpoints.keys import Table, to_ours, to_theirs
from mezzotint.checkpoints.source import Entry, Listing
from mezzotint.checkpoints.tables import control_flux, control_mmdit, t2i_adapter
from mezzotint.families.controls_flow import flux_sizes, mmdit_sizes
from mezzotint.families.controls_ldm import adapter_sizes
from mezzotint.families.flux1 import FLUX_DEV
from mezzotint.families.model import ControlFile
from mezzotint.families.sd1 import SD1
from mezzotint.families.sd3 import SD3, SD35_LARGE
from mezzotint.families.sdxl import SDXL
from mezzotint.networks.control_flux import ControlFlux
from mezzotint.networks.control_mmdit import ControlMMDiT
from mezzotint.networks.flux import Flux, FluxConfig
from mezzotint.networks.ldm_unet import LdmUNet
from mezzotint.networks.mmdit import MMDiT, MMDiTConfig
from mezzotint.networks.t2i_adapter import T2IAdapter

pytestmark = pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning")
# Union, Union-Pro: DiffSynth-Studio's `FluxControlNetStateDictConverter`, which knows the releases
# by their names' hash (10 modes; 5 and 10 blocks are its defaults); Union-Pro-2.0: its model card
# ("6 double blocks and 0 single block", no mode embedding); XLabs: x-flux, `src/flux/controlnet.py`
# (`controlnet_depth=2`, no single blocks, 16 channels of the hint, 2x2 patches).
FLUX: dict[str, dict[str, Any]] = {
    "InstantX Union": {"num_layers": 5, "num_single_layers": 10, "num_mode": 10},
    "Shakker Union-Pro-2.0": {"num_layers": 6, "num_single_layers": 0},
    "XLabs": {
        "num_layers": 2,
        "num_single_layers": 0,
        "conditioning_embedding_channels": 16,
        "patch_size": 2,
    },
}
# InstantX: SD3 medium's configuration with the depth that `SD3ControlNetModel.from_transformer` has
# by default; that of the releases stands in no source that was found, and a file tells its own.
# Stability: `diffusers`, scripts/convert_sd3_controlnet_to_diffusers.py.
MMDIT: dict[str, dict[str, Any]] = {
    "InstantX": {
        "num_layers": 12,
        "num_attention_heads": 24,
        "caption_projection_dim": 1536,
        "pos_embed_max_size": 192,
    },
    "Stability": {
        "num_layers": 19,
        "num_attention_heads": 38,
        "joint_attention_dim": None,
        "caption_projection_dim": 2048,
        "pos_embed_max_size": None,
        "pos_embed_type": None,
        "use_pos_embed": False,
    },
}


def listed(build: Callable[[], nn.Module]) -> dict[str, Tensor]:
    with torch.device("meta"):
        return dict(build().state_dict())


def listing(state: Mapping[str, Tensor]) -> Listing:
    entries = {name: Entry("F16", tuple(value.shape)) for name, value in state.items()}
    return Listing(Path("x.safetensors"), "safetensors", entries, {}, 0)


def assert_taken_once(theirs: Mapping[str, Tensor], ours: nn.Module, table: Table) -> None:
    own = ours.state_dict()
    if not any(name.startswith("pos_embed.") for name in theirs):
        own = {name: value for name, value in own.items() if not _shared(name, table)}
    found = to_ours(theirs, table, own)
    assert {k: v.shape for k, v in found.items()} == {k: v.shape for k, v in own.items()}
    back = to_theirs(own, table)
    assert {k: v.shape for k, v in back.items()} == {k: v.shape for k, v in theirs.items()}


def _shared(name: str, table: Table) -> bool:
    """Of Stability's networks: what they lack is the model's own."""
    return table is control_mmdit.DIFFUSERS and name.startswith(("stem.", "positions"))


@pytest.mark.parametrize("name", FLUX)
def test_flux(name: str) -> None:
    theirs = listed(lambda: FluxControlNetModel(**FLUX[name], guidance_embeds=True))
    assert recognise(listing(theirs)).kind == "ControlNet for FLUX (diffusers)"
    assert isinstance(FLUX_DEV.network, FluxConfig)
    with torch.device("meta"):
        ours = ControlFlux(flux_sizes(Flux(FLUX_DEV.network), listing(theirs)))
    assert_taken_once(theirs, ours, control_flux.DIFFUSERS)


@pytest.mark.parametrize("name", MMDIT)
def test_sd3(name: str) -> None:
    theirs = listed(lambda: SD3ControlNetModel(**MMDIT[name]))
    assert recognise(listing(theirs)).kind == "ControlNet for SD3 (diffusers)"
    config = (SD3 if name == "InstantX" else SD35_LARGE).network
    assert isinstance(config, MMDiTConfig)
    with torch.device("meta"):
        ours = ControlMMDiT(mmdit_sizes(MMDiT(config), listing(theirs)))
    assert_taken_once(theirs, ours, control_mmdit.DIFFUSERS)


# SD1: `diffusers`, scripts/convert_original_t2i_adapter.py, which asserts the releases' sizes;
# SDXL: its examples/t2i_adapter/train_t2i_adapter_sdxl.py, by which TencentARC's were trained.
ADAPTERS: dict[str, tuple[Any, dict[str, Any], Table]] = {
    "full_adapter": (SD1, {}, t2i_adapter.full(4, 2)),
    "light_adapter": (
        SD1,
        {"channels": [320, 640, 1280], "num_res_blocks": 4},
        t2i_adapter.LIGHT,
    ),
    "full_adapter_xl": (SDXL, {"downscale_factor": 16}, t2i_adapter.full(4, 2)),
}


@pytest.mark.parametrize("name", ADAPTERS)
def test_t2i_adapters(name: str) -> None:
    """Both layouts, and the features are what the U-Net takes."""
    family, told, original = ADAPTERS[name]
    theirs = listed(lambda: TheirAdapter(adapter_type=name, **told))

    def read(state: Mapping[str, Tensor]) -> tuple[T2IAdapter, str, Table]:
        path, found = Path("x"), listing(state)
        kind = str(recognise(found).kind)
        assert kind.startswith("T2I-Adapter")
        config, prefix, table = adapter_sizes(ControlFile("x", path, kind, found, {}, None, None))
        with torch.device("meta"):
            return T2IAdapter(config), prefix, table

    ours, prefix, table = read(theirs)
    assert_taken_once({k.removeprefix(prefix): v for k, v in theirs.items()}, ours, table)
    alone = to_theirs(ours.state_dict(), original)
    other, prefix, table = read(alone)
    assert prefix == "" and other.config == ours.config
    assert_taken_once(alone, other, table)
    with torch.device("meta"):
        ends = LdmUNet(family.unet).ends
        features = ours(torch.empty(1, ours.config.channels, 512, 512))
    made = [(feature.shape[1], 64 // feature.shape[2]) for feature in features]
    assert made == list(ends[: len(made)])
