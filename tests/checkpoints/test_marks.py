"""What a file says of its prediction and its steps, by marks and by metadata."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from mezzotint.checkpoints import marks
from mezzotint.checkpoints.files import CheckpointError
from mezzotint.checkpoints.inspect import recognise
from mezzotint.checkpoints.source import Entry, Listing

LDM = "model.diffusion_model."
TO_K = "transformer_blocks.0.attn2.to_k.weight"
FIRST, SECOND = f"{LDM}input_blocks.1.1.{TO_K}", f"{LDM}input_blocks.4.1.{TO_K}"
ARCHITECTURE = "modelspec.architecture"


def listing(tensors: dict[str, tuple[int, ...]], **metadata: str) -> Listing:
    said = {key.replace("__", "."): text for key, text in metadata.items()}
    entries = {name: Entry("F16", shape) for name, shape in tensors.items()}
    return Listing(Path("a.safetensors"), "safetensors", entries, said, 0)


def marked(*names: str, **metadata: str) -> Listing:
    return listing({SECOND: (8, 2048), **dict.fromkeys(names, (0,))}, **metadata)


V, EPS = {"prediction_type": "v_prediction"}, {"prediction_type": "epsilon"}
ZERO = {"rescale_betas_zero_snr": True}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (marked(), {}),
        (marked("v_pred"), V),
        (marked("v_pred", "ztsnr"), V | ZERO),
        (marked("ztsnr"), ZERO),
        (marked(modelspec__prediction_type="v"), V),
        (marked(modelspec__prediction_type="V-Prediction"), V),
        (marked("v_pred", modelspec__prediction_type="v_prediction"), V),
        (marked(modelspec__prediction_type="epsilon"), EPS),
        (marked(ss_v_parameterization="True", ss_zero_terminal_snr="True"), V | ZERO),
        (marked(ss_v_parameterization="False"), EPS),
        (marked(ss_v_parameterization="None"), {}),
        (marked(modelspec__architecture="stable-diffusion-v2-768-v"), V),
        (marked(modelspec__architecture="stable-diffusion-v2-512"), EPS),
        (marked(modelspec__architecture="stable-diffusion-xl-v1-base"), {}),
        (marked("edm_mean"), marks.EDM["edm"]),
        (marked(modelspec__prediction_type="edm"), marks.EDM["edm"]),
        (marked(modelspec__prediction_type="other"), {"prediction_type": "other"}),
        (
            marked(diffusers__scheduler_config=json.dumps({**V, "beta_start": 0.1})),
            {**V, "beta_start": 0.1},
        ),
    ],
)
def test_what_a_file_says_as_a_scheduler_would(found: Listing, expected: dict[str, object]) -> None:
    assert marks.scheduler(found) == expected


def test_a_contradiction_is_told_and_not_decided() -> None:
    found = marked("v_pred", modelspec__prediction_type="epsilon")
    with pytest.raises(CheckpointError, match="it has v_pred, but modelspec.prediction_type is"):
        marks.scheduler(found)
    report = dict(recognise(found).said)
    assert report["predicts"].startswith("v (it has v_pred) or eps (modelspec.prediction_type")
    assert report["predicts"].endswith("it contradicts itself")


@pytest.mark.parametrize("text", ["{", "[1]", "[" * 99_999])
def test_a_malformed_scheduler_is_an_error(text: str) -> None:
    with pytest.raises(CheckpointError, match="metadata is not a JSON object"):
        marks.scheduler(marked(diffusers__scheduler_config=text))


@pytest.mark.parametrize(
    ("found", "variants"),
    [
        (marked(modelspec__title="DreamShaperXL_Turbo_v2"), ["turbo"]),
        (marked(modelspec__title="JuggernautXLLightning4Step"), ["lightning"]),
        (marked(modelspec__tags="anime, lcm, sdxl"), ["LCM"]),
        (marked(modelspec__title="Falcmodel"), []),
        (marked(ss_output_name="mine-hyper-sd-8"), ["Hyper-SD"]),
        (marked(modelspec__title="x dmd2", modelspec__tags="dmd2"), ["DMD"]),
        (marked(modelspec__description="works with a lightning LoRA"), []),
        (listing({FIRST: (8, 768), f"{LDM}time_embed.cond_proj.weight": (320, 256)}), ["LCM"]),
    ],
)
def test_variants_of_few_steps(found: Listing, variants: list[str]) -> None:
    assert [claim.what for claim in marks.few_steps(found)] == variants
    assert ("few steps" in dict(recognise(found).said)) is bool(variants)


@pytest.mark.parametrize("name", ["Kontext", "Playground v2.5", "CosXL"])
def test_a_variant_with_anothers_tensors_is_told(name: str) -> None:
    for found in (marked(modelspec__tags=f"x, {name}"), marked(modelspec__title=f"my {name}")):
        said = dict(recognise(found).said)
        assert said["variant"] == f"{name} (its title or tags say so)" and "few steps" not in said
    assert "variant" not in dict(recognise(marked(modelspec__title="x")).said)


def test_a_report_says_what_is_predicted_and_why() -> None:
    lines = recognise(marked("v_pred", "ztsnr")).lines()
    assert "model     SDXL checkpoint, v prediction (likely)" in lines
    assert "predicts  v (it has v_pred)" in lines
    assert "noise     zero terminal SNR (it has ztsnr)" in lines


@pytest.mark.parametrize(
    ("found", "confidence"),
    [
        (marked(), "likely"),
        (marked(modelspec__architecture="stable-diffusion-xl-v1-base"), "certain"),
        (marked(modelspec__architecture="Stable-Diffusion-XL-v1-base/inpainting"), "certain"),
        (marked(modelspec__architecture="stable-diffusion-v1"), "doubtful"),
        (marked(modelspec__architecture="something-new"), "likely"),
        (listing({FIRST: (8, 768)}, modelspec__architecture="stable-diffusion-v1"), "certain"),
        (
            listing(
                {"lora_unet_double_blocks_0_img_mlp_0.lora_down.weight": (4, 8)},
                modelspec__architecture="flux-1-dev/lora",
            ),
            "certain",
        ),
        (
            listing(
                {"a.lora_down.weight": (4, 8)}, modelspec__architecture="stable-diffusion-v1/lora"
            ),
            "likely",
        ),
    ],
)
def test_modelspec_confirms_or_casts_doubt(found: Listing, confidence: str) -> None:
    report = recognise(found)
    assert report.confidence == confidence
    said = found.metadata.get(ARCHITECTURE) in (None, "something-new")
    assert ("modelspec.architecture is" in report.reason) is not said


UP, HINT = "up_blocks.1.resnets.0.conv1.weight", "controlnet_cond_embedding.conv_in.weight"
UNET_1 = f"down_blocks.0.attentions.0.{TO_K}"
UNET_XL = f"down_blocks.1.attentions.0.{TO_K}"
ENTRY = f"{LDM}input_blocks.0.0.weight"
CONTROL, CONTROLS = "control_model.zero_convs.0.0.weight", "controlnet_blocks.0.weight"


@pytest.mark.parametrize(
    ("kind", "tensors"),
    [
        (
            "SD1 inpainting U-Net (diffusers)",
            {UP: (8, 8), UNET_1: (8, 768), "conv_in.weight": (320, 9, 3, 3)},
        ),
        (
            "SD1 InstructPix2Pix U-Net (diffusers)",
            {UP: (8, 8), UNET_1: (8, 768), "conv_in.weight": (320, 8, 3, 3)},
        ),
        (
            "SD2 depth U-Net (diffusers)",
            {UP: (8, 8), UNET_1: (8, 1024), "conv_in.weight": (320, 5, 3, 3)},
        ),
        (
            "SDXL inpainting U-Net (diffusers)",
            {UP: (8, 8), UNET_XL: (8, 2048), "conv_in.weight": (320, 9, 3, 3)},
        ),
        (
            "SDXL refiner U-Net (diffusers)",
            {UP: (8, 8), UNET_XL: (8, 1280), "conv_in.weight": (384, 4, 3, 3)},
        ),
        (
            "SDXL U-Net (diffusers)",
            {UP: (8, 8), UNET_XL: (8, 2048), "conv_in.weight": (320, 4, 3, 3)},
        ),
        ("SDXL InstructPix2Pix checkpoint", {ENTRY: (320, 8, 3, 3), SECOND: (8, 2048)}),
        ("SD2 unCLIP checkpoint", {f"{LDM}label_emb.0.0.weight": (8, 8), FIRST: (8, 1024)}),
        ("SDXL checkpoint, EDM prediction", {"edm_vpred.sigma_max": (), SECOND: (8, 2048)}),
        (
            "ControlNet for SD1",
            {CONTROL: (2, 2, 1, 1), f"control_model.input_blocks.1.1.{TO_K}": (8, 768)},
        ),
        (
            "ControlNet for SDXL",
            {CONTROL: (2, 2, 1, 1), f"control_model.input_blocks.4.1.{TO_K}": (8, 2048)},
        ),
        ("ControlNet for SD3 (diffusers)", {CONTROLS: (2, 2), "pos_embed_input.proj.weight": (2,)}),
        ("ControlNet for FLUX (diffusers)", {CONTROLS: (2, 2), "controlnet_x_embedder.weight": ()}),
        ("ControlNet for FLUX", {CONTROLS: (2, 2), "double_blocks.0.img_attn.qkv.weight": (9, 3)}),
        ("ControlNet for a transformer", {CONTROLS: (2, 2)}),
    ],
)
def test_variants_by_their_sizes(kind: str, tensors: dict[str, tuple[int, ...]]) -> None:
    assert recognise(listing(tensors)).kind == kind
