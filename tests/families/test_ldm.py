"""Stable Diffusion 1, 2 and XL, small: from prompt to picture, equal to `diffusers`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection

import measured
from mezzotint.checkpoints import marks
from mezzotint.checkpoints.files import CheckpointError, save
from mezzotint.checkpoints.keys import to_ours, to_theirs
from mezzotint.checkpoints.source import describe, open_folder
from mezzotint.diffusion.noise import batch
from mezzotint.engine.generate import generate
from mezzotint.engine.request import Guidance, Request
from mezzotint.families import catalogue
from mezzotint.families.ldm import Family, build, load, scheduled
from mezzotint.families.model import Model
from mezzotint.families.sd1 import SD1
from mezzotint.families.sd2 import SD2, SD2_BASE
from mezzotint.families.sdxl import SDXL
from pipelines import Pipeline, small, stable_diffusion

READS_TEXT = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight"


@pytest.fixture(scope="module", params=["sd1", "sd2", "sdxl"])
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def theirs(name: str) -> Pipeline:
    return stable_diffusion(name)


@pytest.fixture(scope="module")
def folder(name: str, theirs: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(name) / "folder"
    theirs.save_pretrained(path)
    return path


def in_one_file(family: Family, folder: Path) -> dict[str, Tensor]:
    """The folder's weights in the original layout, by our tables backwards."""
    model, layout = load(family, folder), family.file
    state = {"betas": torch.zeros(1000)}
    if family.name.startswith(
        "sd2"
    ):  # the file has a layer more than is used, and two other things
        text = layout.places["text"]
        last = f"{text}transformer.resblocks.2."
        state |= {f"{last}{n}": torch.zeros(3) for n in ("attn.in_proj_weight", "ln_1.bias")}
        state |= {f"{text}text_projection": torch.zeros(8, 8), f"{text}logit_scale": torch.ones(())}
    for part, module in model.parts.items():
        named = to_theirs(module.state_dict(), layout.tables[part])
        state |= {layout.places[part] + name: value for name, value in named.items()}
    return state


def assert_same_picture(
    theirs: Pipeline, ours: Model, steps: int, scale: float, negative: str = "blue"
) -> None:
    """Within 1e-3, of the same noise."""
    theirs.set_progress_bar_config(disable=True)
    expected = theirs(
        "a red fox, flat style",
        negative_prompt=negative or None,
        height=64,
        width=64,
        num_inference_steps=steps,
        guidance_scale=scale,
        latents=batch([3], "start", 0, (4, 8, 8)),
        output_type="pt",
    ).images[0]
    request = Request(
        "a red fox, flat style",
        (3,),
        negative=negative,
        size=(64, 64),
        steps=steps,
        guidance=Guidance(scale),
        sampler="ddim",
        spacing="trailing",
    )
    found = generate(ours, request)[0]
    assert found.shape == (3, 64, 64)
    measured.close(found / 2 + 0.5, expected, 1e-3)


@pytest.mark.parametrize(
    ("family", "unet", "text"),
    [
        (SD1, {"cross_attention_dim": 768}, {"hidden_size": 768, "num_hidden_layers": 12}),
        (
            SD2,
            {
                "cross_attention_dim": 1024,
                "attention_head_dim": (5, 10, 20, 20),
                "use_linear_projection": True,
            },
            {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 23},
        ),
        (
            SDXL,
            {
                "block_out_channels": (320, 640, 1280),
                "down_block_types": ("DownBlock2D", *("CrossAttnDownBlock2D",) * 2),
                "up_block_types": (*("CrossAttnUpBlock2D",) * 2, "UpBlock2D"),
                "cross_attention_dim": 2048,
                "transformer_layers_per_block": (1, 2, 10),
                "attention_head_dim": (5, 10, 20),
                "use_linear_projection": True,
                "addition_embed_type": "text_time",
                "addition_time_embed_dim": 256,
                "projection_class_embeddings_input_dim": 2816,
            },
            {"hidden_size": 768, "num_hidden_layers": 12},
        ),
    ],
)
def test_true_sizes(family: Family, unet: dict[str, Any], text: dict[str, Any]) -> None:
    """Every tensor of the released networks, as their configurations make them, has its place."""
    levels = {
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
    }
    with torch.device("meta"):
        ours = build(family)
        theirs = {
            "network": UNet2DConditionModel(**unet),
            "text": CLIPTextModel(
                CLIPTextConfig(**{"intermediate_size": 3072, "vocab_size": 49_408, **text})
            ),
            "autoencoder": AutoencoderKL(layers_per_block=2, **levels),
        }
        if family is SDXL:
            theirs["text2"] = CLIPTextModelWithProjection(
                CLIPTextConfig(
                    vocab_size=49_408,
                    hidden_size=1280,
                    intermediate_size=5120,
                    num_hidden_layers=32,
                    projection_dim=1280,
                )
            )
    for part, module in theirs.items():
        wanted = ours.parts[part].state_dict()
        found = to_ours(module.state_dict(), family.folder.tables[part], wanted)
        assert {n: t.shape for n, t in found.items()} == {n: t.shape for n, t in wanted.items()}


@pytest.mark.parity("text to image", "diffusers folder")
@pytest.mark.parametrize("steps", [1, 4, 20])
@pytest.mark.parametrize(("scale", "negative"), [(1.0, ""), (7.5, "blue"), (7.5, "")])
def test_from_prompt_to_picture(
    name: str, theirs: Pipeline, folder: Path, steps: int, scale: float, negative: str
) -> None:
    assert_same_picture(theirs, load(small(name), folder), steps, scale, negative)


@pytest.mark.parity("text to image, v and x0 predictions", "diffusers folder", family="sd1")
@pytest.mark.parametrize(
    "noise",
    [
        {"prediction_type": "v_prediction"},
        {"prediction_type": "v_prediction", "rescale_betas_zero_snr": True},
        {"prediction_type": "sample", "beta_schedule": "linear"},
        {"trained_betas": [0.001 * (1 + n) for n in range(100)], "num_train_timesteps": 100},
    ],
)
def test_a_folder_says_what_it_predicts(noise: dict[str, object], tmp_path: Path) -> None:
    theirs = stable_diffusion(**noise)
    theirs.save_pretrained(tmp_path)
    said = open_folder(tmp_path).configs["scheduler"]
    assert_same_picture(theirs, load(scheduled(small("sd1"), said, ""), tmp_path), 4, 3.0)


def test_a_long_prompt_beside_a_short_one(
    name: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one batch with it, nothing that fills up the short one is told to the U-Net."""
    model = load(small(name), folder)
    request = Request("a fox " * 60, (3,), "blue", (64, 64), 2, Guidance(5.0))
    found = generate(model, request)[0]
    monkeypatch.setattr("mezzotint.diffusion.guidance.fits", lambda *_: False)
    assert torch.allclose(found, generate(model, request)[0], atol=1e-5)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"prediction_type": "flow"}, "a/b: prediction_type is 'flow'; known are epsilon, v_pred"),
        ({"prediction_type": None}, "prediction_type is None"),
        ({"prediction_type": ["eps"]}, "prediction_type is \\['eps'\\]; known are"),
        ({"beta_schedule": "cubic"}, "^a/b: beta_schedule is 'cubic'; known are linear, scaled"),
        ({"num_train_timesteps": 10**12}, "num_train_timesteps is 1000000000000: no number of"),
        ({"num_train_timesteps": "many"}, "num_train_timesteps is 'many': no number of steps"),
        ({"beta_schedule": "linear", "beta_start": "x"}, "its noise schedule is malformed"),
        ({"beta_schedule": "linear", "beta_end": 2.0}, "its noise schedule is malformed"),
        ({"trained_betas": ["a"]}, "its noise schedule is malformed"),
        ({"trained_betas": []}, "its noise schedule is malformed"),
    ],
)
def test_what_a_scheduler_may_not_say(config: dict[str, object], message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        scheduled(SD1, config, "a/b")
    assert "\n" not in str(caught.value)


def test_a_scheduler_that_says_nothing_is_the_familys() -> None:
    assert scheduled(SD1, {"steps_offset": 1}, "a/b") == SD1


def test_models_are_known_by_their_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By what `inspect` reads in the headers, which are those of the true width here."""
    stable_diffusion(width=768).save_pretrained(tmp_path / "folder")
    family = small("sd1", 768)
    monkeypatch.setattr(catalogue, "FAMILIES", (family,))
    save(tmp_path / "model.safetensors", in_one_file(family, tmp_path / "folder"), {})
    request = Request("a fox", (1,), size=(64, 64), steps=2)
    folder, file = (
        generate(catalogue.load(str(tmp_path / name), "cpu"), request)[0]
        for name in ("folder", "model.safetensors")
    )
    assert torch.equal(folder, file)
    with pytest.raises(CheckpointError, match="is SD1 checkpoint, not of the family 'sd2'"):
        catalogue.load(str(tmp_path / "model.safetensors"), family="sd2")
    part = tmp_path / "folder/unet/diffusion_pytorch_model.safetensors"
    with pytest.raises(CheckpointError, match=r"lacks clip_l, vae: give --part clip_l=FILE --pa"):
        catalogue.load(str(part))
    with pytest.raises(CheckpointError, match="is VAE with 4 .*, no model by .* with --part"):
        catalogue.load(str(tmp_path / "folder/vae/diffusion_pytorch_model.safetensors"))
    part.rename(tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="no file of weights"):
        catalogue.load(str(tmp_path / "folder"))
    (tmp_path / "folder/unet/config.json").unlink()
    with pytest.raises(CheckpointError, match="has none of unet, transformer"):
        catalogue.load(str(tmp_path / "folder"))


def test_where_two_families_fit_one_is_asked_for(tmp_path: Path) -> None:
    """SD2's releases differ in nothing that a file says; a folder's scheduler says it."""
    unet = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    width = torch.zeros(320, 1024)
    file = tmp_path / "model.safetensors"
    save(file, {unet: width}, {})
    with pytest.raises(CheckpointError, match=r"fits sd2 \(v\) and sd2-base \(eps\), .* --family"):
        catalogue.family_of(file, describe(file))
    for family in (SD2, SD2_BASE):
        assert catalogue.family_of(file, describe(file), family.name) == family
    part = tmp_path / "folder/unet/diffusion_pytorch_model.safetensors"
    part.parent.mkdir(parents=True)
    save(part, {"up_blocks.1.resnets.0.conv1.weight": torch.zeros(1), READS_TEXT: width}, {})
    (part.parent / "config.json").write_text("{}")
    index = {"_class_name": "StableDiffusionPipeline", "unet": ["a", "b"], "scheduler": ["a", "b"]}
    (tmp_path / "folder/model_index.json").write_text(json.dumps(index))
    said = tmp_path / "folder/scheduler/scheduler_config.json"
    said.parent.mkdir()
    for prediction, expected in (("epsilon", SD2_BASE), ("v_prediction", SD2)):
        said.write_text(json.dumps({"prediction_type": prediction}))
        assert catalogue.family_of(tmp_path / "folder", describe(part)) == expected
    said.write_text("{}")
    with pytest.raises(CheckpointError, match="fits sd2"):
        catalogue.family_of(tmp_path / "folder", describe(part))


@pytest.mark.parity("text to image, v and x0 predictions", "single file", family="sdxl")
@pytest.mark.parametrize("zero", [False, True])
def test_a_marked_file_is_sampled_as_it_says(zero: bool, tmp_path: Path) -> None:
    """SDXL with v prediction, as its single files tell it, equal to `diffusers`."""
    theirs = stable_diffusion("sdxl", prediction_type="v_prediction", rescale_betas_zero_snr=zero)
    theirs.save_pretrained(tmp_path / "folder")
    told = [marks.V_PRED, marks.ZERO_SNR] if zero else [marks.V_PRED]
    state = in_one_file(small("sdxl"), tmp_path / "folder")
    path = tmp_path / "model.safetensors"
    save(path, state | {name: torch.zeros(0) for name in told}, {})
    family = scheduled(small("sdxl"), marks.scheduler(describe(path)), "")
    assert_same_picture(theirs, load(family, path), 4, 3.0)


def test_the_catalogue_reads_a_files_marks(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    key = "model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"

    def family(metadata: dict[str, str], *names: str) -> Family:
        save(path, {key: torch.zeros(8, 2048)} | {n: torch.zeros(0) for n in names}, metadata)
        return catalogue.family_of(path, describe(path))

    assert family({}) == SDXL
    assert family({marks.PREDICTION: "v"}) == replace(SDXL, prediction="v")
    found = family({}, "v_pred", "ztsnr")
    assert found.prediction == "v" and float(found.schedule.alphas_cumprod[-1]) == 0
    with pytest.raises(CheckpointError, match="contradicts itself on what it predicts"):
        family({marks.PREDICTION: "epsilon"}, "v_pred")
    with pytest.raises(CheckpointError, match="its edm_mean is other than Playground v2.5's"):
        family({}, "edm_mean")


@pytest.mark.parametrize(("said", "expected"), [("v", SD2), ("epsilon", SD2_BASE)])
def test_modelspec_tells_sd2s_releases_apart(said: str, expected: Family, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    key = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
    save(path, {key: torch.zeros(320, 1024)}, {marks.PREDICTION: said})
    assert catalogue.family_of(path, describe(path)) == expected


@pytest.mark.parity("text to image", "single file")
def test_a_file_and_a_folder_make_the_same_picture(name: str, folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save(path, in_one_file(small(name), folder), {})
    request = Request("a fox", (1,), size=(64, 64), steps=2)
    pictures = [generate(load(small(name), place), request)[0] for place in (folder, path)]
    measured.same(*pictures)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e9])
def test_weights_that_are_not_finite_are_refused(value: float, tmp_path: Path) -> None:
    """Also those that are not in the precision that was asked for."""
    stable_diffusion().save_pretrained(tmp_path / "folder")
    state = in_one_file(small("sd1"), tmp_path / "folder")
    key = "model.diffusion_model.out.2.weight"
    state[key] = state[key].clone()
    state[key][1, 2, 0, 1] = value
    path = tmp_path / "model.safetensors"
    save(path, state, {})
    with pytest.raises(CheckpointError, match="tensor 'head.weight' has numbers that are not"):
        load(small("sd1"), path, torch.float16)
    if value == 1e9:
        load(small("sd1"), path)
        return
    with pytest.raises(CheckpointError, match=r"model.safetensors: network: tensor 'head.weight'"):
        load(small("sd1"), path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("cond_stage_model.transformer.text_model.final_layer_norm.bias"), "text:"),
        (lambda s: s.update(strange=torch.zeros(1)), "nothing of this family is called 'strange'"),
        (
            lambda s: s.update({"model.diffusion_model.out.3.weight": torch.zeros(1)}),
            "network: unknown key 'out.3.weight'",
        ),
    ],
)
def test_every_tensor_counts(change: object, message: str, tmp_path: Path) -> None:
    stable_diffusion().save_pretrained(tmp_path / "folder")
    state = in_one_file(small("sd1"), tmp_path / "folder")
    change(state)  # type: ignore[operator]
    save(tmp_path / "model.safetensors", state, {})
    with pytest.raises(CheckpointError, match=message):
        load(small("sd1"), tmp_path / "model.safetensors")
