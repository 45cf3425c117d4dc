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
from mezzotint.checkpoints.layout import Layout
from mezzotint.checkpoints.tables import ldm_autoencoder, ldm_unet
from mezzotint.diffusion.noise import batch
from mezzotint.engine.generate import generate
from mezzotint.engine.request import Guidance, Request
from mezzotint.families.ldm import Family, load
from mezzotint.families.sd1 import SD1
from mezzotint.networks.clip import ClipTextConfig
from mezzotint.networks.ldm_autoencoder import LdmAutoencoderConfig
from mezzotint.networks.ldm_unet import LdmUNetConfig
from pipelines import stable_diffusion

UNET = LdmUNetConfig(width=32, multipliers=(1, 2), depths=(1, 0), context_width=8)
AUTOENCODER = LdmAutoencoderConfig(width=32, multipliers=(1, 1, 1, 2), blocks=1)


def small() -> Family:
    tables = {
        "network": ldm_unet.original(UNET.depths, UNET.blocks, convolutions=True),
        "autoencoder": ldm_autoencoder.original(4),
    }
    return replace(
        SD1,
        unet=UNET,
        autoencoder=AUTOENCODER,
        text=ClipTextConfig(width=8, depth=2, heads=2, hidden=16, projection=0),
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


def in_one_file(folder: Path, layout: Layout) -> dict[str, Tensor]:
    """The folder's weights in the original layout, by our tables backwards."""
    model = load(small(), folder)
    state = {"betas": torch.zeros(1000)}
    for part, module in model.parts.items():
        named = to_theirs(module.state_dict(), layout.tables[part])
        state |= {layout.places[part] + name: value for name, value in named.items()}
    return state


@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("scale", [1.0, 7.5])
def test_from_prompt_to_picture(
    theirs: StableDiffusionPipeline, folder: Path, steps: int, scale: float
) -> None:
    ours = load(small(), folder)
    noise = batch([3], "start", 0, (4, 8, 8))
    theirs.set_progress_bar_config(disable=True)
    expected = theirs(
        "a red fox, flat style",
        negative_prompt="blue",
        height=64,
        width=64,
        num_inference_steps=steps,
        guidance_scale=scale,
        latents=noise,
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
    found = generate(ours, request)[0]
    assert found.shape == (3, 64, 64)
    assert float((found / 2 + 0.5 - expected).abs().max()) < 1e-3


def test_a_file_and_a_folder_make_the_same_picture(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save(path, in_one_file(folder, small().file), {})
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
    state = in_one_file(folder, small().file)
    change(state)  # type: ignore[operator]
    save(tmp_path / "model.safetensors", state, {})
    with pytest.raises(CheckpointError, match=message):
        load(small(), tmp_path / "model.safetensors")
