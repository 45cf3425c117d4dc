"""CosXL Edit, small: InstructPix2Pix of SDXL in EDM's terms, equal to `diffusers`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.schedulers.scheduling_edm_euler import EDMEulerScheduler
from torch import Tensor

import measured
from mezzotint.checkpoints import marks
from mezzotint.checkpoints.inspect import Report
from mezzotint.checkpoints.source import Listing
from mezzotint.diffusion.noise import batch
from mezzotint.engine.convert import convert
from mezzotint.engine.generate import generate
from mezzotint.engine.request import Guidance, Request
from mezzotint.families import catalogue
from mezzotint.families.edm import COSXL_EDIT
from mezzotint.families.ldm import Family
from mezzotint.families.model import Model
from variants import picture, small_variant, variant_pipeline

SIZE = (32, 64)


def small() -> Family:
    few = small_variant("sdxl-pix2pix")
    return replace(
        few,
        **{
            name: getattr(COSXL_EDIT, name)
            for name in ("name", "title", "prediction", "schedule", "defaults", "joining")
        },
        file=replace(few.file, marks=COSXL_EDIT.file.marks),
    )


def pipeline(schedule: str = "exponential") -> Any:
    made = variant_pipeline("sdxl-pix2pix")
    told = {**marks.EDM["edm_v"], "sigma_schedule": schedule}
    made.scheduler = EDMEulerScheduler(**{k: v for k, v in told.items() if k != "_class_name"})
    made.is_cosxl_edit = True
    return made


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("edit") / "folder"
    pipeline().save_pretrained(path)
    return path


@pytest.fixture(autouse=True)
def known(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the small network be recognised; beside it there is InstructPix2Pix of SDXL itself."""

    def recognise(listing: Listing) -> Report:
        theirs = any("down_blocks." in name for name in listing.tensors)
        return Report(Path(), 0, "", (small().folder if theirs else small().file).kind)

    monkeypatch.setattr(catalogue, "FAMILIES", (small_variant("sdxl-pix2pix"), small()))
    monkeypatch.setattr(catalogue, "recognise", recognise)


def opened(path: Path) -> Model:
    return catalogue.load(str(path), "cpu", precision="float32")


def wish(steps: int, scale: float) -> Request:
    image = 2.5 if scale > 1 else 1.0  # theirs has both or neither
    negative = "blue" if scale > 1 else ""
    guidance = Guidance(scale, image=image)
    return Request("a fox", (3,), negative, SIZE, steps, guidance, reference=picture(*SIZE))


def expected(theirs: Any, steps: int, scale: float) -> Tensor:
    return theirs(
        "a fox",
        image=picture(*SIZE)[None] / 2 + 0.5,
        negative_prompt="blue" if scale > 1 else None,
        height=SIZE[0],
        width=SIZE[1],
        num_inference_steps=steps,
        guidance_scale=scale,
        image_guidance_scale=2.5,
        latents=batch([3], "start", 0, (4, 4, 8)),
        output_type="pt",
    ).images[0]


@pytest.mark.parity("models that are told pictures", "diffusers folder", family="cosxl-edit")
@pytest.mark.parametrize(("steps", "scale"), [(1, 1.0), (4, 1.0), (4, 6.0), (20, 6.0)])
def test_from_pictures_to_picture(folder: Path, steps: int, scale: float) -> None:
    # Their exponential path begins at its end if it has one step.
    theirs = pipeline("karras" if steps == 1 else "exponential")
    found = generate(opened(folder), wish(steps, scale))[0]
    assert float(found.std()) > 0.01
    measured.close(found / 2 + 0.5, expected(theirs, steps, scale), 1e-3)


@pytest.mark.parity("models that are told pictures", "single file", family="cosxl-edit")
def test_a_file_and_a_folder_make_the_same_picture(folder: Path, tmp_path: Path) -> None:
    made = generate(opened(folder), wish(2, 3.0))[0]
    file = convert(folder, tmp_path / "a.safetensors", "file").path
    back = convert(file, tmp_path / "a", "folder").path
    for path in (file, back):
        model = opened(path)
        assert model.name == "cosxl-edit"
        measured.same(generate(model, wish(2, 3.0))[0], made)
    assert json.loads((back / "model_index.json").read_text())["is_cosxl_edit"] is True
    theirs: Any = DiffusionPipeline.from_pretrained(back, local_files_only=True)
    theirs.set_progress_bar_config(disable=True)
    assert theirs.is_cosxl_edit
    assert theirs.scheduler.config.prediction_type == "v_prediction"
