"""The picture encoder and what it is given, equal to `transformers`; known by folder or widths."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModelWithProjection,
    SiglipVisionConfig,
    SiglipVisionModel,
)
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from mezzotint.checkpoints.files import CheckpointError, save
from mezzotint.checkpoints.inspect import inspect
from mezzotint.checkpoints.keys import to_ours, to_theirs
from mezzotint.checkpoints.tables import clip, siglip
from mezzotint.families.image_encoder import (
    SO400M,
    VIT_BIGG,
    VIT_H,
    VIT_L,
    called,
    giving,
    load_encoder,
)
from mezzotint.modalities.image import for_clip, for_siglip
from mezzotint.networks.clip import ClipVision, ClipVisionConfig
from mezzotint.networks.siglip import Siglip, SiglipConfig

SMALL = {
    "hidden_size": 32,
    "intermediate_size": 64,
    "projection_dim": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 16,
    "patch_size": 4,
}
CPU = torch.device("cpu")


def _theirs(**more: object) -> CLIPVisionModelWithProjection:
    torch.manual_seed(0)
    return CLIPVisionModelWithProjection(CLIPVisionConfig(**{**SMALL, **more})).eval()


def _relative(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


@pytest.mark.parametrize("size", [(16, 16), (50, 37), (37, 50), (9, 31), (17, 16)])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_pictures_are_prepared_as_transformers_does(size: tuple[int, int], mode: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    image = Image.fromarray(pixels).convert(mode)
    theirs = CLIPImageProcessorPil(size={"shortest_edge": 16}, crop_size=16)
    expected = theirs(image, return_tensors="pt").pixel_values[0]
    assert (for_clip(image, 16) - expected).abs().max() < 1e-5
    square = SiglipImageProcessorPil(size={"height": 18, "width": 18})
    expected = square(image, return_tensors="pt").pixel_values[0]
    assert (for_siglip(image, 18) - expected).abs().max() < 1e-5


def test_what_is_transparent_lies_on_white() -> None:
    clear = Image.new("RGBA", (20, 20), (255, 0, 0, 0))
    assert torch.equal(for_clip(clear, 16), for_clip(Image.new("RGB", (20, 20), "white"), 16))


@pytest.mark.parametrize("activation", ["quick_gelu", "gelu"])
@pytest.mark.parametrize("seed", [0, 1])
@torch.no_grad()
def test_a_folder_equals_transformers(activation: str, seed: int, tmp_path: Path) -> None:
    theirs = _theirs(hidden_act=activation)
    theirs.save_pretrained(tmp_path)
    ours = load_encoder(tmp_path, torch.float32, CPU)
    assert ours.name == "CLIP of width 32, projected to 24"
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    expected = theirs(x, output_hidden_states=True)
    hidden, pooled = ours.network(x, skip=1)
    assert _relative(pooled, expected.image_embeds) < 1e-5
    assert _relative(hidden, expected.hidden_states[-2]) < 1e-5


@torch.no_grad()
def test_a_folder_of_siglip_equals_transformers(tmp_path: Path) -> None:
    """A size that is not written down is the default of its kind, as of a patch."""
    torch.manual_seed(0)
    sizes = {k: v for k, v in SMALL.items() if k not in ("projection_dim", "patch_size")}
    theirs = SiglipVisionModel(SiglipVisionConfig(**{**sizes, "image_size": 40})).eval()
    theirs.save_pretrained(tmp_path)
    said = tmp_path / "config.json"
    whole = json.loads(said.read_text())
    del whole["patch_size"]
    said.write_text(json.dumps({"model_type": "siglip", "vision_config": whole}))
    ours = load_encoder(tmp_path, torch.float32, CPU)
    assert ours.name == "SigLIP of width 32" and ours.ready is for_siglip
    x = torch.randn(2, 3, 40, 40)
    assert _relative(ours.network(x), theirs(x).last_hidden_state) < 1e-5
    for change, message in (
        (
            {"model_type": "siglip2_vision_model"},
            "'siglip2_vision_model'; known are clip_vision_mo",
        ),
        ({"hidden_act": "gelu"}, "hidden_act is 'gelu'; known are gelu_pytorch_tanh"),
        ({"layer_norm_eps": 1e-5}, "describes no picture encoder of SigLIP's"),
        ({"image_size": 64}, r"positions.weight \(\[4, 32\] in the file, \[16, 32\] here"),
    ):
        said.write_text(json.dumps(whole | change))
        with pytest.raises(CheckpointError, match=message):
            load_encoder(tmp_path, torch.float32, CPU)


@pytest.mark.parametrize(("width", "config"), [(1280, VIT_H), (1664, VIT_BIGG), (1024, VIT_L)])
def test_true_sizes(width: int, config: ClipVisionConfig) -> None:
    """Every tensor of the releases, as their configurations make them, has its place."""
    sizes = {1280: (5120, 32, 1024), 1664: (8192, 48, 1280), 1024: (4096, 24, 768)}[width]
    with torch.device("meta"):
        theirs = CLIPVisionModelWithProjection(
            CLIPVisionConfig(
                hidden_size=width,
                intermediate_size=sizes[0],
                num_hidden_layers=sizes[1],
                projection_dim=sizes[2],
                num_attention_heads=16,
                patch_size=14,
            )
        )
        wanted = ClipVision(config).state_dict()
    found = to_ours(theirs.state_dict(), clip.VISION, wanted)
    assert {n: t.shape for n, t in found.items()} == {n: t.shape for n, t in wanted.items()}


def test_every_layout_gives_the_same_weights() -> None:
    state = ClipVision(ClipVisionConfig(16, 4, 32, 3, 4, 64, 24)).state_dict()
    for table, projection in (
        (clip.VISION, "text_projection.weight"),
        (clip.VISION_OPEN, "text_projection"),
    ):
        whole = to_theirs(state, table) | {"logit_scale": torch.ones(()), projection: torch.ones(2)}
        back = to_ours(whole, table, state)
        assert all(torch.equal(back[name], state[name]) for name in state)


@torch.no_grad()
def test_a_file_alone_is_known_by_its_widths(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = ClipVisionConfig(16, 4, 32, 3, 4, 64, 24, "gelu")
    network = ClipVision(config)
    torch.nn.init.normal_(network.whole)
    monkeypatch.setattr("mezzotint.families.image_encoder._ALONE", (config,))
    x = torch.randn(1, 3, 16, 16)
    for number, table in enumerate((clip.VISION, clip.VISION_OPEN)):
        path = tmp_path / f"{number}.safetensors"
        save(path, to_theirs(network.state_dict(), table), {})
        ours = load_encoder(path, torch.float32, CPU).network
        assert torch.equal(ours(x).pooled, network(x).pooled)
    other = SiglipConfig(16, 4, 32, 3, 4, 64)  # the same widths: a bias tells it
    monkeypatch.setattr("mezzotint.families.image_encoder._ALONE", (config, other))
    sees = Siglip(other)
    for number, prefix in enumerate((siglip.PREFIX, "")):
        path = tmp_path / f"siglip-{number}.safetensors"
        save(path, to_theirs(sees.state_dict(), siglip.vision(prefix)), {})
        assert inspect(path).kind == "image encoder SigLIP"
        assert _relative(load_encoder(path, torch.float32, CPU).network(x), sees(x)) < 1e-5
    state = to_theirs(network.state_dict(), clip.VISION)
    state["vision_model.head.weight"] = torch.ones(1)
    save(path, state, {})
    with pytest.raises(CheckpointError, match=r"unknown key 'vision_model.head.weight' \(nearest"):
        load_encoder(path, torch.float32, CPU)


def test_what_is_no_encoder(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save(path, {"x": torch.ones(1)}, {})
    with pytest.raises(CheckpointError, match=r"a.safetensors: is no picture encoder of CLIP's"):
        load_encoder(path, torch.float32, CPU)
    save(path, to_theirs(ClipVision(ClipVisionConfig(16, 4, 32, 3)).state_dict(), clip.VISION), {})
    with pytest.raises(CheckpointError, match="width 32 with 3 layers; .* OpenCLIP ViT-H/14"):
        load_encoder(path, torch.float32, CPU)
    _theirs().save_pretrained(tmp_path / "folder")
    said = tmp_path / "folder/config.json"
    good = json.loads(said.read_text())
    for change, message in (
        ({"hidden_act": "relu"}, "hidden_act is 'relu'; known are quick_gelu, gelu"),
        ({"hidden_size": 0}, "hidden_size is 0: no possible size"),
        ({"hidden_size": "x"}, "hidden_size is 'x'"),
        ({"vision_config": 3}, "its vision_config is 3"),
        ({"num_attention_heads": 5}, "describes no picture encoder"),
        ({"num_hidden_layers": 2}, "which this network lacks"),
        ({"intermediate_size": 60}, "of another shape"),
    ):
        said.write_text(json.dumps(good | change))
        with pytest.raises(CheckpointError, match=message):
            load_encoder(tmp_path / "folder", torch.float32, CPU)


def test_names() -> None:
    assert called(VIT_H) == "OpenCLIP ViT-H/14"
    assert giving(1280, pooled=True) == " (OpenCLIP ViT-bigG/14)"
    assert giving(1280, pooled=False) == " (OpenCLIP ViT-H/14)"
    assert giving(7, pooled=True) == ""
    assert called(SO400M) == "SigLIP so400m/14 at 384 px"
    assert giving(1152, pooled=False, kind=SiglipConfig) == " (SigLIP so400m/14 at 384 px)"
    assert giving(1152, pooled=False) == ""
