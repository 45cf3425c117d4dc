"""Stable Diffusion 1, small: the whole way from prompt to picture, equal to `diffusers`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from torch import Tensor

from mezzotint.checkpoints.files import CheckpointError, save
from mezzotint.checkpoints.keys import to_theirs
from mezzotint.checkpoints.tables import ldm_autoencoder, ldm_unet
from mezzotint.diffusion.noise import batch
from mezzotint.engine.generate import generate
from mezzotint.engine.request import Guidance, Request
from mezzotint.families import catalogue
from mezzotint.families.ldm import Family, load, scheduled
from mezzotint.families.sd1 import SD1
from mezzotint.networks.clip import ClipTextConfig
from mezzotint.networks.ldm_autoencoder import LdmAutoencoderConfig
from mezzotint.networks.ldm_unet import LdmUNetConfig
from pipelines import stable_diffusion

AUTOENCODER = LdmAutoencoderConfig(width=32, multipliers=(1, 1, 1, 2), blocks=1)


def small(width: int = 8) -> Family:
    unet = LdmUNetConfig(width=32, multipliers=(1, 2), depths=(1, 0), context_width=width)
    tables = {
        "network": ldm_unet.original(unet.depths, unet.blocks, convolutions=True),
        "autoencoder": ldm_autoencoder.original(4),
    }
    return replace(
        SD1,
        unet=unet,
        autoencoder=AUTOENCODER,
        text=ClipTextConfig(width=width, depth=2, heads=2, hidden=16, projection=0),
        file=replace(SD1.file, tables={**SD1.file.tables, **tables}),
    )


@pytest.fixture(scope="module")
def theirs() -> StableDiffusionPipeline:
    return stable_diffusion()


@pytest.fixture(scope="module")
def folder(theirs: StableDiffusionPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("sd1") / "folder"
    theirs.save_pretrained(path)
    return path


def in_one_file(family: Family, folder: Path) -> dict[str, Tensor]:
    """The folder's weights in the original layout, by our tables backwards."""
    model, layout = load(family, folder), family.file
    state = {"betas": torch.zeros(1000)}
    for part, module in model.parts.items():
        named = to_theirs(module.state_dict(), layout.tables[part])
        state |= {layout.places[part] + name: value for name, value in named.items()}
    return state


def assert_same_picture(
    theirs: StableDiffusionPipeline, folder: Path, steps: int, scale: float
) -> None:
    """Theirs and ours of a folder, within 1e-3, of the same noise."""
    theirs.set_progress_bar_config(disable=True)
    expected = theirs(
        "a red fox, flat style",
        negative_prompt="blue",
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
        negative="blue",
        size=(64, 64),
        steps=steps,
        guidance=Guidance(scale),
        sampler="ddim",
        spacing="trailing",
    )
    found = generate(load(small(), folder), request)[0]
    assert found.shape == (3, 64, 64)
    assert float((found / 2 + 0.5 - expected).abs().max()) < 1e-3


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("scale", [1.0, 7.5])
def test_from_prompt_to_picture(
    theirs: StableDiffusionPipeline, folder: Path, steps: int, scale: float
) -> None:
    assert_same_picture(theirs, folder, steps, scale)


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
    assert_same_picture(theirs, tmp_path, 4, 3.0)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"prediction_type": "flow"}, "a/b: prediction_type is 'flow'; known are epsilon, v_pred"),
        ({"prediction_type": None}, "prediction_type is None"),
        ({"beta_schedule": "cubic"}, "beta_schedule is 'cubic'; known are linear, scaled_linear"),
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
    theirs = stable_diffusion(768)
    theirs.save_pretrained(tmp_path / "folder")
    family = small(768)
    monkeypatch.setattr(catalogue, "FAMILIES", (family,))
    save(tmp_path / "model.safetensors", in_one_file(family, tmp_path / "folder"), {})
    request = Request("a fox", (1,), size=(64, 64), steps=2)
    folder, file = (
        generate(catalogue.load(str(tmp_path / name), "cpu"), request)[0]
        for name in ("folder", "model.safetensors")
    )
    assert torch.equal(folder, file)
    part = tmp_path / "folder/unet/diffusion_pytorch_model.safetensors"
    with pytest.raises(CheckpointError, match=r"SD1 U-Net .*: pictures are made by .*: sd1"):
        catalogue.load(str(part))
    part.rename(tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="no file of weights"):
        catalogue.load(str(tmp_path / "folder"))
    (tmp_path / "folder/unet/config.json").unlink()
    with pytest.raises(CheckpointError, match="has none of unet, transformer"):
        catalogue.load(str(tmp_path / "folder"))


def test_a_file_and_a_folder_make_the_same_picture(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save(path, in_one_file(small(), folder), {})
    request = Request("a fox", (1,), size=(64, 64), steps=2)
    pictures = [generate(load(small(), place), request)[0] for place in (folder, path)]
    assert torch.equal(*pictures)


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
def test_every_tensor_counts(change: object, message: str, folder: Path, tmp_path: Path) -> None:
    state = in_one_file(small(), folder)
    change(state)  # type: ignore[operator]
    save(tmp_path / "model.safetensors", state, {})
    with pytest.raises(CheckpointError, match=message):
        load(small(), tmp_path / "model.safetensors")
