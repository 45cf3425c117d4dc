"""Variants of few steps, small: equal to `diffusers` with the schedulers of the releases."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.latent_consistency_models.pipeline_latent_consistency_text2img import (
    LatentConsistencyModelPipeline,
)
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers import scheduling_euler_ancestral_discrete, scheduling_lcm
from diffusers.schedulers.scheduling_euler_ancestral_discrete import (
    EulerAncestralDiscreteScheduler,
)
from diffusers.schedulers.scheduling_euler_discrete import EulerDiscreteScheduler
from diffusers.schedulers.scheduling_lcm import LCMScheduler
from torch import Tensor

import measured
from mezzotint.checkpoints.files import load as load_file
from mezzotint.checkpoints.files import save
from mezzotint.checkpoints.inspect import Report
from mezzotint.checkpoints.keys import to_ours
from mezzotint.checkpoints.source import Listing, describe
from mezzotint.diffusion.noise import batch, stream
from mezzotint.engine.convert import convert
from mezzotint.engine.generate import generate
from mezzotint.engine.request import Guidance, Request, RequestError
from mezzotint.families import catalogue
from mezzotint.families.few_steps import SD1_LCM, SD_TURBO, SDXL_LCM, SDXL_LIGHTNING, SDXL_TURBO
from mezzotint.families.ldm import Family, build, load
from mezzotint.families.sd1 import SD1
from mezzotint.families.sd2 import SD2, SD2_BASE
from mezzotint.families.sdxl import SDXL
from pipelines import small, stable_diffusion

# numpy 2 on how diffusers turns its tensors into arrays
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
FOX = "a red fox, flat style"
SIZE = (64, 64)
NOISE = batch([3], "start", 0, (4, 8, 8))
BETAS = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
FEW = {"sd1": SD1_LCM, "sdxl": SDXL_LCM}


def few(family: Family, base: str) -> Family:
    """The small family of a base, as a variant has it."""
    own = small(base)
    return replace(
        family,
        unet=replace(own.unet, guided=family.unet.guided),
        autoencoder=own.autoencoder,
        texts=own.texts,
        defaults=replace(family.defaults, size=SIZE),
        file=replace(family.file, tables=own.file.tables),
    )


@pytest.fixture
def same_noise(monkeypatch: pytest.MonkeyPatch) -> None:
    """Their schedulers draw our sampler's noise."""
    for module in (scheduling_lcm, scheduling_euler_ancestral_discrete):
        drawn = iter(range(100))
        noise = stream([3], "step", NOISE)

        def draw(*_: Any, drawn: Any = drawn, noise: Any = noise, **__: Any) -> Tensor:
            return noise(next(drawn))

        monkeypatch.setattr(module, "randn_tensor", draw)


def consistent(name: str) -> Any:
    base = stable_diffusion(name)
    torch.manual_seed(1)
    parts = dict(base.components)
    parts["unet"] = UNet2DConditionModel.from_config(base.unet.config, time_cond_proj_dim=256)
    parts["scheduler"] = LCMScheduler(**BETAS, clip_sample=False, set_alpha_to_one=True)
    if name == "sdxl":
        made: Any = type(base)(**parts, add_watermarker=False)
    else:
        made = LatentConsistencyModelPipeline(**parts, requires_safety_checker=False)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module", params=FEW)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def theirs(name: str) -> Any:
    return consistent(name)


@pytest.fixture(scope="module")
def folder(name: str, theirs: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(name) / "folder"
    theirs.save_pretrained(path)
    return path


@pytest.mark.parity("few steps, LCM", "diffusers folder")
@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("scale", [1.0, 8.0])
def test_lcm(
    name: str, theirs: Any, folder: Path, steps: int, scale: float, same_noise: None
) -> None:
    """With the defaults of the family; the scale is told, not acted on."""
    ours = load(few(FEW[name], name), folder)
    expected = theirs(
        FOX,
        height=64,
        width=64,
        num_inference_steps=steps,
        guidance_scale=scale,
        latents=NOISE,
        output_type="pt",
    ).images[0]
    found = generate(ours, Request(FOX, (3,), steps=steps, guidance=Guidance(scale)))[0]
    measured.close(found / 2 + 0.5, expected, 1e-3)
    assert float(found.std()) > 0.01
    other = generate(ours, Request(FOX, (3,), steps=steps, guidance=Guidance(scale + 1)))[0]
    assert not torch.equal(found, other)
    with pytest.raises(RequestError, match="has its guidance distilled into it"):
        generate(ours, Request(FOX, (3,), negative="blue"))


@pytest.mark.parity("few steps, Turbo and Lightning", "diffusers folder")
@pytest.mark.parametrize(
    ("family", "base", "scheduler"),
    [
        (SD_TURBO, "sd2", EulerAncestralDiscreteScheduler),
        (SDXL_TURBO, "sdxl", EulerAncestralDiscreteScheduler),
        (SDXL_LIGHTNING, "sdxl", EulerDiscreteScheduler),
    ],
)
def test_the_defaults_are_the_releases(
    family: Family, base: str, scheduler: Any, same_noise: None, tmp_path: Path
) -> None:
    theirs = stable_diffusion(base)
    theirs.scheduler = scheduler(**BETAS, timestep_spacing="trailing")
    theirs.set_progress_bar_config(disable=True)
    theirs.save_pretrained(tmp_path)
    last = theirs.scheduler.sigmas.max()  # they leave out that the data too has a variance
    expected = theirs(
        FOX,
        height=64,
        width=64,
        num_inference_steps=4,
        guidance_scale=0.0,
        latents=NOISE * float((last**2 + 1) ** 0.5 / last),
        output_type="pt",
    ).images[0]
    ours = load(few(family, base), tmp_path)
    found = generate(ours, Request(FOX, (3,)))[0]
    measured.close(found / 2 + 0.5, expected, 1e-3)
    assert ours.notes and family.title in ours.notes[0]


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Callable[[Family], None]:
    def make(family: Family) -> None:
        prefix = family.file.places["network"]

        def recognise(listing: Listing) -> Report:
            whole = any(key.startswith(prefix) for key in listing.tensors)
            return Report(Path(), 0, "", (family.file if whole else family.folder).kind)

        monkeypatch.setattr(catalogue, "FAMILIES", (family,))
        monkeypatch.setattr(catalogue, "recognise", recognise)

    return make


@pytest.mark.parity("few steps, LCM", "single file")
def test_both_layouts(
    name: str, theirs: Any, folder: Path, known: Callable[[Family], None], tmp_path: Path
) -> None:
    family = few(FEW[name], name)
    known(family)
    file, back = tmp_path / "a.safetensors", tmp_path / "back"
    convert(folder, file, "file")
    convert(file, back, "folder")
    assert "model.diffusion_model.time_embed.cond_proj.weight" in load_file(file)[0]
    request = Request(FOX, (3,), steps=2)
    made = generate(load(family, folder), request)[0]
    for place in (file, back):
        model = catalogue.load(str(place), "cpu", precision="float32")
        measured.same(generate(model, request)[0], made)
    found = DiffusionPipeline.from_pretrained(back, local_files_only=True)
    assert type(found) is type(theirs)
    assert found.unet.config.time_cond_proj_dim == 256
    assert type(found.scheduler) is LCMScheduler


READS = "model.diffusion_model.input_blocks.{}.1.transformer_blocks.0.attn2.to_k.weight"
TOLD = "model.diffusion_model.time_embed.cond_proj.weight"


@pytest.mark.parametrize(
    ("place", "width", "said", "expected"),
    [
        (1, 768, {}, SD1),
        (1, 768, {"told": ""}, SD1_LCM),
        (4, 2048, {"told": ""}, SDXL_LCM),
        (4, 2048, {}, SDXL),
        (4, 2048, {"modelspec.title": "sd_xl_turbo_1.0"}, SDXL_TURBO),
        (4, 2048, {"modelspec.title": "sdxl_lightning_4step"}, SDXL_LIGHTNING),
        (4, 2048, {"modelspec.title": "x-lcm-merge"}, SDXL),  # without the tensor of LCM
        (1, 1024, {"modelspec.prediction_type": "epsilon"}, SD2_BASE),
        (1, 1024, {"modelspec.prediction_type": "epsilon", "modelspec.tags": "turbo"}, SD_TURBO),
        (1, 1024, {"modelspec.prediction_type": "v", "modelspec.tags": "turbo"}, SD2),
    ],
)
def test_what_a_file_tells(
    place: int, width: int, said: dict[str, str], expected: Family, tmp_path: Path
) -> None:
    path = tmp_path / "a.safetensors"
    state = {READS.format(place): torch.zeros(320, width)}
    if "told" in said:
        state[TOLD] = torch.zeros(320, 256)
    save(path, state, {key: text for key, text in said.items() if key != "told"})
    found = catalogue.family_of(path, describe(path))
    assert found.name == expected.name
    assert catalogue.family_of(path, describe(path), expected.name).name == expected.name


def test_by_name(tmp_path: Path) -> None:
    """Where nothing in a file tells it; and the plain one where a title is wrong."""
    path = tmp_path / "a.safetensors"
    state = {READS.format(4): torch.zeros(320, 2048)}
    save(path, state, {})
    assert catalogue.family_of(path, describe(path), "sdxl-turbo") == SDXL_TURBO
    assert catalogue.family_of(path, describe(path), "sdxl-lightning") == SDXL_LIGHTNING
    save(path, state, {"modelspec.title": "turbo"})
    assert catalogue.family_of(path, describe(path), "sdxl") == SDXL


def test_true_sizes() -> None:
    with torch.device("meta"):
        ours = build(SD1_LCM).parts["network"].state_dict()
        theirs = UNet2DConditionModel(cross_attention_dim=768, time_cond_proj_dim=256)
    found = to_ours(theirs.state_dict(), SD1_LCM.folder.tables["network"], ours)
    assert {n: t.shape for n, t in found.items()} == {n: t.shape for n, t in ours.items()}
