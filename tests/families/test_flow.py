"""Stable Diffusion 3, 3.5 and FLUX.1, small: from prompt to picture, equal to `diffusers`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.flux.pipeline_flux import FluxPipeline
from torch import Tensor

from mezzotint.checkpoints.keys import to_theirs
from mezzotint.checkpoints.tables import ldm_autoencoder, mmdit
from mezzotint.diffusion.noise import batch
from mezzotint.engine.generate import generate
from mezzotint.engine.request import Guidance, Request
from mezzotint.families.flow import Family, load, pack
from mezzotint.families.flux1 import FLUX_DEV, FLUX_SCHNELL
from mezzotint.families.model import Model
from mezzotint.families.sd3 import SD3, SD35_LARGE, SD35_MEDIUM
from mezzotint.networks.ldm_autoencoder import LdmAutoencoderConfig
from mezzotint.networks.mmdit import MMDiTConfig
from mezzotint.networks.t5 import T5Config
from pipelines import FlowPipeline, flux, stable_diffusion_3

FAMILIES = {f.name: f for f in (SD3, SD35_MEDIUM, SD35_LARGE, FLUX_DEV, FLUX_SCHNELL)}
AUTOENCODER = LdmAutoencoderConfig(
    latent_channels=16, width=32, multipliers=(1, 1, 1, 2), blocks=1, mixed=False
)
SIZE = (32, 64)  # height and width: what exchanges them is seen


def small(name: str) -> Family:
    """A family with few weights, as tests/pipelines.py has it."""
    family, theirs = FAMILIES[name], "network"
    few = {"width": 8, "depth": 2, "heads": 2, "hidden": 16}
    texts = {
        part: replace(
            text, encoder=replace(text.encoder, projection=8 * bool(text.encoder.projection), **few)
        )
        for part, text in family.texts.items()
    }
    sizes = {"heads": 2, "context_width": 24}
    tables = dict(family.folder.tables)
    network = family.network
    if isinstance(network, MMDiTConfig):
        more = {"positions": 12, "depth": 3, "head_width": 8, "vector_width": 16}
        network = replace(network, dual=2 * bool(network.dual), **sizes, **more)
        tables[theirs] = mmdit.diffusers(3)
    else:
        network = replace(network, axes=(4, 6, 6), depth=2, single=2, vector_width=8, **sizes)
    t5 = T5Config(width=24, depth=2, heads=3, head_width=4, hidden=16)
    return replace(
        family,
        network=network,
        autoencoder=AUTOENCODER,
        texts=texts,
        t5=replace(family.t5, encoder=t5),
        folder=replace(family.folder, tables=tables),
        file=replace(
            family.file,
            tables={**family.file.tables, "autoencoder": ldm_autoencoder.original(4)},
        ),
    )


@pytest.fixture(scope="module", params=FAMILIES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def theirs(name: str) -> FlowPipeline:
    pipeline = flux(name) if name.startswith("flux") else stable_diffusion_3(name)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def folder(name: str, theirs: FlowPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(name) / "folder"
    theirs.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def ours(name: str, folder: Path) -> Model:
    return load(small(name), folder)


def in_one_file(family: Family, folder: Path) -> dict[str, Tensor]:
    """The folder's weights in the original layout, by our tables backwards."""
    model, layout = load(family, folder), family.file
    state: dict[str, Tensor] = {"text_encoders.clip_l.logit_scale": torch.ones(())}
    for part, module in model.parts.items():
        weights = module.state_dict()
        if part in family.identity:
            del weights["projection.weight"]
        named = to_theirs(weights, layout.tables[part])
        state |= {layout.places[part] + name: value for name, value in named.items()}
    return state


def request(prompt: str = "a red fox, flat style", **more: Any) -> Request:
    return Request(prompt, (3,), **{"size": SIZE, **more})


def assert_same_picture(
    theirs: FlowPipeline, ours: Model, steps: int, scale: float, negative: str = ""
) -> None:
    """Within 1e-3, of the same noise, with the defaults of both."""
    height, width = SIZE
    latents = batch([3], "start", 0, (16, height // 8, width // 8))
    told: dict[str, Any] = {"guidance_scale": scale, "negative_prompt": negative or None}
    if isinstance(theirs, FluxPipeline):
        latents = pack(latents)
        if not theirs.transformer.config.guidance_embeds:
            told = {"true_cfg_scale": scale, "negative_prompt": negative}
        told["max_sequence_length"] = 512 if theirs.transformer.config.guidance_embeds else 256
    expected = theirs(
        "a red fox, flat style",
        height=height,
        width=width,
        num_inference_steps=steps,
        latents=latents,
        output_type="pt",
        **told,
    ).images[0]
    found = generate(ours, request(negative=negative, steps=steps, guidance=Guidance(scale)))[0]
    assert found.shape == (3, *SIZE)
    assert float(found.std()) > 0.01
    assert float((found / 2 + 0.5 - expected).abs().max()) < 1e-3


@pytest.mark.parametrize("steps", [1, 4, 20])
@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_from_prompt_to_picture(
    name: str, theirs: FlowPipeline, ours: Model, steps: int, scale: float
) -> None:
    negative = "blue" if scale > 1 and name != "flux-dev" else ""
    assert_same_picture(theirs, ours, steps, scale, negative)
