"""SDXL in EDM's terms, small: Playground v2.5 and CosXL, equal to `diffusers`."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_edm_dpmsolver_multistep import EDMDPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_edm_euler import EDMEulerScheduler

import measured
from mezzotint.checkpoints import marks
from mezzotint.checkpoints.files import CheckpointError, load, save
from mezzotint.checkpoints.inspect import Report, inspect
from mezzotint.checkpoints.source import Listing, describe
from mezzotint.diffusion.noise import batch
from mezzotint.diffusion.schedules import VarianceExploding
from mezzotint.engine.convert import convert
from mezzotint.engine.generate import generate
from mezzotint.engine.request import Guidance, Request, Start
from mezzotint.families import catalogue, edm
from mezzotint.families.ldm import Family, scheduled
from mezzotint.families.model import Model
from pipelines import Pipeline, small, stable_diffusion

FAMILIES = {family.name: family for family in (edm.PLAYGROUND, edm.COSXL)}
READS_TEXT = "model.diffusion_model.input_blocks.4.1.transformer_blocks.0.attn2.to_k.weight"
SIZE = (64, 64)


def small_edm(name: str) -> Family:
    own, few = FAMILIES[name], small("sdxl")
    return replace(
        few,
        name=own.name,
        title=own.title,
        prediction=own.prediction,
        schedule=own.schedule,
        scale=own.scale,
        mean=own.mean,
        std=own.std,
        defaults=own.defaults,
        file=replace(few.file, marks=own.file.marks),
    )


def pipeline(name: str, **noise: Any) -> Pipeline:
    theirs = stable_diffusion("sdxl")
    if name == "cosxl":
        theirs.scheduler = EDMEulerScheduler(
            **{
                "sigma_max": 120.0,
                "sigma_data": 1.0,
                "prediction_type": "v_prediction",
                "sigma_schedule": "exponential",
                **noise,
            }
        )
    else:
        theirs.scheduler = EDMDPMSolverMultistepScheduler(**noise)
        own = edm.PLAYGROUND
        told = {"latents_mean": list(own.mean), "latents_std": list(own.std)}
        theirs.vae.register_to_config(scaling_factor=own.scale, **told)
    theirs.set_progress_bar_config(disable=True)
    return theirs


@pytest.fixture(scope="module", params=FAMILIES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def theirs(name: str) -> Pipeline:
    return pipeline(name)


@pytest.fixture(scope="module")
def folder(name: str, theirs: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(name) / "folder"
    theirs.save_pretrained(path)
    return path


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the small networks be recognised; beside them there is SDXL itself."""

    def recognise(listing: Listing) -> Report:
        theirs = any("down_blocks." in name for name in listing.tensors)
        few = small("sdxl")
        return Report(Path(), 0, "", (few.folder if theirs else few.file).kind)

    families = (small("sdxl"), *map(small_edm, FAMILIES))
    monkeypatch.setattr(catalogue, "FAMILIES", families)
    monkeypatch.setattr(catalogue, "recognise", recognise)


def request(**more: Any) -> Request:
    return Request("a red fox", (3,), **{"size": SIZE, "steps": 2, **more})


def opened(path: Path) -> Model:
    return catalogue.load(str(path), "cpu", precision="float32")


@pytest.mark.parity("text to image", "diffusers folder")
@pytest.mark.parametrize("steps", [1, 4, 20])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_from_prompt_to_picture(
    name: str,
    theirs: Pipeline,
    folder: Path,
    steps: int,
    scale: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With the defaults of both."""
    if (
        name == "cosxl" and steps == 1
    ):  # their exponential path begins at its end if it has one step
        karras = EDMEulerScheduler.from_config(theirs.scheduler.config, sigma_schedule="karras")
        monkeypatch.setattr(theirs, "scheduler", karras)
    expected = theirs(
        "a red fox",
        negative_prompt="blue",
        height=64,
        width=64,
        num_inference_steps=steps,
        guidance_scale=scale,
        latents=batch([3], "start", 0, (4, 8, 8)),
        output_type="pt",
    ).images[0]
    wish = request(negative="blue" if scale > 1 else "", steps=steps, guidance=Guidance(scale))
    found = generate(opened(folder), wish)[0]
    assert float(found.std()) > 0.01
    measured.close(found / 2 + 0.5, expected, 1e-3)


@pytest.mark.parity("text to image", "single file")
def test_a_file_and_a_folder_make_the_same_picture(name: str, folder: Path, tmp_path: Path) -> None:
    """Converted there and back; and a file that has the marks alone, as the releases have."""
    expected = generate(opened(folder), request())[0]
    file = convert(folder, tmp_path / "a.safetensors", "file").path
    back = convert(file, tmp_path / "a", "folder").path
    state = load(file)[0]
    save(tmp_path / "bare.safetensors", state, {})
    for path in (file, back):
        model = opened(path)
        assert model.name == name
        measured.same(generate(model, request())[0], expected)
    bare = generate(opened(tmp_path / "bare.safetensors"), request())[0]
    assert torch.allclose(bare, expected, atol=1e-4)  # its sigma_min is a float32
    from_bare = convert(tmp_path / "bare.safetensors", tmp_path / "b", "folder").path
    assert torch.equal(generate(opened(from_bare), request())[0], bare)
    index = json.loads((from_bare / "scheduler/scheduler_config.json").read_text())
    assert index["_class_name"] == marks.EDM[small_edm(name).prediction]["_class_name"]
    DiffusionPipeline.from_pretrained(from_bare, local_files_only=True)
    told = json.loads((from_bare / "vae/config.json").read_text())
    assert told.get("latents_mean") == (list(edm.PLAYGROUND.mean) if name != "cosxl" else None)
    lines = inspect(file).lines()
    assert any("predicts" in line and f" {small_edm(name).prediction} (" in line for line in lines)
    assert any(f"{small_edm(name).prediction} (its sched" in line for line in inspect(back).lines())


def test_codes_go_there_and_back(name: str, folder: Path) -> None:
    """A picture's code is normed by each channel's numbers, as diffusers decodes it."""
    model, family = opened(folder), small_edm(name)
    media = batch([1], "start", 0, (3, *SIZE)).clamp(-1, 1)
    code = model.codec.encode(media)
    mean, std = (
        torch.tensor(row or (empty,) * 4)[:, None, None]
        for row, empty in ((family.mean, 0.0), (family.std, 1.0))
    )
    raw = code * std / family.scale + mean
    expected = model.parts["autoencoder"].decode(raw)  # type: ignore[operator]
    assert torch.allclose(model.codec.decode(code), expected, atol=1e-5)
    redrawn = generate(model, request(start=Start(media[0], 0.5)))[0]
    assert bool(redrawn.isfinite().all())


def test_a_scheduler_says_how_much_noise_there_is() -> None:
    said = {**marks.EDM["edm"], "sigma_max": 40.0}
    found = scheduled(small("sdxl"), said, "")
    assert (found.prediction, found.schedule) == ("edm", VarianceExploding(0.002, 40.0))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"prediction_type": "sample"}, "prediction_type is 'sample'; known of EDM are epsilon, v"),
        ({"sigma_data": 1.0}, "a/b: sigma_data is 1.0; known beside epsilon is 0.5"),
        ({"sigma_max": "x"}, "sigma_max is 'x': no number above 0"),
        ({"sigma_min": 100}, "sigma_min is 100.0: not below sigma_max, 80.0"),
    ],
)
def test_what_a_scheduler_may_not_say(change: dict[str, object], message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        scheduled(edm.PLAYGROUND, {**marks.EDM["edm"], **change}, "a/b")


@pytest.fixture
def true_sizes(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Path]:
    monkeypatch.undo()

    def write(path: Path, metadata: dict[str, str], **more: torch.Tensor) -> Path:
        named = {name.replace("__", "."): tensor for name, tensor in more.items()}
        save(path, {READS_TEXT: torch.zeros(8, 2048), **named}, metadata)
        return path

    return write


def test_marks_tell_the_family(true_sizes: Callable[..., Path], tmp_path: Path) -> None:
    path, own = tmp_path / "a.safetensors", edm.PLAYGROUND
    code = {
        marks.EDM_MEAN: torch.tensor(own.mean)[None, :, None, None],
        marks.EDM_STD: torch.tensor(own.std)[None, :, None, None],
    }
    assert catalogue.identify(true_sizes(path, {}, **code))[0] == own
    report = inspect(path)
    assert report.kind == "SDXL checkpoint, EDM prediction"
    assert any(line.startswith("predicts") and "it has edm_mean" in line for line in report.lines())
    ends = {"edm_vpred__sigma_max": torch.tensor(100.0), "edm_vpred__sigma_min": torch.tensor(0.5)}
    found, _ = catalogue.identify(true_sizes(path, {}, **ends))
    assert found == replace(edm.COSXL, schedule=VarianceExploding(0.5, 100.0))
    assert catalogue.identify(true_sizes(path, {}))[0].name == "sdxl"
    title = {"modelspec.title": "Playground-v2.5 merged"}
    assert catalogue.identify(true_sizes(path, title))[0] == own
    code[marks.EDM_STD] = code[marks.EDM_STD] * 2
    with pytest.raises(CheckpointError, match=r"its edm_std is other than Playground v2.5's"):
        catalogue.identify(true_sizes(path, {}, **code))
    with pytest.raises(CheckpointError, match=r"its edm_vpred.sigma_max is not one number"):
        catalogue.identify(true_sizes(path, {}, edm_vpred__sigma_max=torch.zeros(3)))
    first = {"model__diffusion_model__input_blocks__0__0__weight": torch.zeros(8, 8, 3, 3)}
    found, _ = catalogue.identify(true_sizes(path, {}, **first, **ends))
    assert found == replace(edm.COSXL_EDIT, schedule=VarianceExploding(0.5, 100.0))
    assert catalogue.identify(true_sizes(path, {}, **first))[0].name == "sdxl-pix2pix"
    with pytest.raises(CheckpointError, match=r"predicts in EDM's terms \(edm\), of which no"):
        code[marks.EDM_STD] = torch.tensor(own.std)[None, :, None, None]
        catalogue.identify(true_sizes(path, {}, **first, **code))


def test_a_folders_code_must_be_playgrounds(tmp_path: Path) -> None:
    theirs = pipeline("playground-v2.5")
    theirs.vae.register_to_config(latents_mean=None)
    theirs.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="its latents_mean is other than Playground v2.5's"):
        catalogue.load(str(tmp_path), "cpu")
    assert describe(tmp_path / "unet/diffusion_pytorch_model.safetensors").tensors
