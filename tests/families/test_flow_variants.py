"""FLUX.1 Fill, Canny, Depth and Kontext, small: equal to `diffusers`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from PIL import Image

import measured
from mezzotint.apps.cli import main
from mezzotint.checkpoints.files import load as load_file
from mezzotint.checkpoints.files import save
from mezzotint.checkpoints.keys import to_ours
from mezzotint.checkpoints.source import describe
from mezzotint.diffusion.noise import batch
from mezzotint.engine.convert import convert
from mezzotint.engine.generate import generate
from mezzotint.engine.request import Guidance, Known, Request, RequestError
from mezzotint.families import catalogue
from mezzotint.families.flow import build, load, pack
from mezzotint.families.flux1 import FLUX_DEV
from mezzotint.families.model import Model
from mezzotint.modalities.image import to_image
from pipelines import small_flow
from variants import FLOWS, flow_pipeline, picture, ragged, small_flow_variant

SIZE = (64, 96)
FOX = "a red fox, flat style"


@pytest.fixture(scope="module", params=FLOWS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def theirs(name: str) -> Any:
    return flow_pipeline(name)


@pytest.fixture(scope="module")
def folder(name: str, theirs: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(name) / "folder"
    theirs.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def ours(name: str, folder: Path) -> Model:
    return load(small_flow_variant(name), folder)


def wish(model: Model, **more: Any) -> Request:
    assert model.joined is not None
    shown: dict[str, Any] = {"reference": picture(*SIZE)}
    if model.joined.masked:
        shown = {"known": Known(picture(*SIZE), ragged(*SIZE))}
    return Request(FOX, (3,), **{"size": SIZE, **shown, **more})


@pytest.mark.parity("models that are told pictures", "diffusers folder")
@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("scale", [2.5, 30.0])
def test_from_pictures_to_picture(
    name: str, theirs: Any, ours: Model, steps: int, scale: float
) -> None:
    height, width = SIZE
    image = picture(*SIZE)[None] / 2 + 0.5
    given: dict[str, Any] = {
        "flux-fill": {"image": image, "mask_image": ragged(*SIZE)[None], "strength": 1.0},
        "flux-control": {"control_image": picture(*SIZE)[None]},  # tensors as they are
        "flux-kontext": {"image": image, "_auto_resize": False, "max_area": height * width},
    }[name]
    expected = theirs(
        prompt=FOX,
        height=height,
        width=width,
        num_inference_steps=steps,
        guidance_scale=scale,
        latents=pack(batch([3], "start", 0, (16, height // 8, width // 8))),
        output_type="pt",
        **given,
    ).images[0]
    found = generate(ours, wish(ours, steps=steps, guidance=Guidance(scale)))[0]
    new = ragged(*SIZE) if name == "flux-fill" else torch.ones(1, *SIZE)
    measured.close((found / 2 + 0.5) * new, expected * new, 1e-3)
    assert float(found.std()) > 0.01
    if name == "flux-fill":
        assert torch.equal(found * (1 - new), picture(*SIZE) * (1 - new))


def test_kontext_takes_a_reference_of_any_size_or_none(tmp_path: Path) -> None:
    theirs = flow_pipeline("flux-kontext")
    theirs.save_pretrained(tmp_path)
    ours = load(small_flow_variant("flux-kontext"), tmp_path)
    noise = pack(batch([3], "start", 0, (16, 8, 12)))
    for reference in (picture(32, 64), None):
        image = None if reference is None else reference[None] / 2 + 0.5
        expected = theirs(
            prompt=FOX,
            image=image,
            height=64,
            width=96,
            num_inference_steps=2,
            latents=noise,
            output_type="pt",
            max_area=64 * 96,
            _auto_resize=False,
            guidance_scale=2.5,
        ).images[0]
        found = generate(ours, wish(ours, steps=2, reference=reference))[0]
        assert float((found - (expected * 2 - 1)).abs().max()) < 2e-3
    with pytest.raises(RequestError, match=r"needs 3 channels and sides that are multiples of 16"):
        generate(ours, wish(ours, reference=picture(8, 64)))


def test_kontext_by_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The picture has the reference's aspect; with a size, the reference still has its own."""
    flow_pipeline("flux-kontext").save_pretrained(tmp_path / "model")
    family = small_flow_variant("flux-kontext")
    family = replace(family, defaults=replace(family.defaults, size=(64, 64)))
    monkeypatch.setattr(catalogue, "FAMILIES", (family,))
    to_image(picture(90, 160)).save(tmp_path / "in.png")
    words = ["generate", FOX, "--model", str(tmp_path / "model"), "--device", "cpu", "--seed", "3"]
    words += ["--steps", "1", "--reference", str(tmp_path / "in.png"), "--precision", "float32"]
    for more, size in (([], (80, 48)), (["--size", "32x64"], (32, 64))):
        assert main([*words, *more, "-o", str(tmp_path / "out.png")]) == 0
        with Image.open(tmp_path / "out.png") as made:
            assert made.size == size
        (tmp_path / "out.png").unlink()


def test_a_model_without_a_slot_takes_no_reference() -> None:
    dev = build(small_flow("flux-dev"))
    with pytest.raises(RequestError, match="flux-dev is told of no reference"):
        generate(dev, Request(FOX, (3,), size=SIZE, reference=picture(*SIZE)))


def test_a_seed_never_knows_its_batch(ours: Model) -> None:
    several = replace(wish(ours, steps=2), seeds=(1, 2, 3))
    for seed, made in zip((1, 2, 3), generate(ours, several), strict=True):
        assert torch.equal(generate(ours, replace(several, seeds=(seed,)))[0], made)


@pytest.mark.parity("models that are told pictures", "single file")
def test_both_layouts(
    name: str,
    ours: Model,
    theirs: Any,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    """Each is told from its kin, dev too, by its header, its folder's pipeline or what `convert`
    writes into the file; all layouts make one picture."""
    kin = [small_flow("flux-dev"), *(small_flow_variant(each) for each in FLOWS)]
    monkeypatch.setattr(catalogue, "FAMILIES", tuple(kin))
    file, back = tmp_path / "a.safetensors", tmp_path / "back"
    convert(folder, file, "file")
    convert(file, back, "folder")
    part = "transformer/diffusion_pytorch_model.safetensors"
    before, after = (load_file(place / part)[0] for place in (folder, back))
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    request = wish(ours, steps=2)
    made = generate(ours, request)[0]
    for place in (folder, file, back):
        model = catalogue.load(str(place), "cpu", precision="float32")
        assert model.name == name
        measured.same(generate(model, request)[0], made)
    found = DiffusionPipeline.from_pretrained(back, local_files_only=True)
    assert type(found) is type(theirs)


def test_kontext_in_a_file_that_does_not_say_so_is_asked_for(tmp_path: Path) -> None:
    """It has dev's tensors; so dev is what a file is taken for that says nothing."""
    path = tmp_path / "a.safetensors"
    state = {
        f"double_blocks.0.img_attn.{kind}.weight": torch.zeros(1) for kind in ("qkv", "proj")
    } | {"guidance_in.in_layer.weight": torch.zeros(1)}
    save(path, state, {})
    assert catalogue.family_of(path, describe(path)) == FLUX_DEV
    assert catalogue.family_of(path, describe(path), "flux-kontext").name == "flux-kontext"
    save(path, state, {"modelspec.title": "FLUX.1-Kontext-dev"})
    assert catalogue.family_of(path, describe(path)).name == "flux-kontext"
    assert catalogue.family_of(path, describe(path), "flux-dev") == FLUX_DEV


@pytest.mark.parametrize("kin", FLOWS)
def test_true_sizes(kin: str) -> None:
    family = FLOWS[kin]
    with torch.device("meta"):
        ours = build(family).parts["network"].state_dict()
        wide = family.network.in_channels
        theirs = FluxTransformer2DModel(in_channels=wide, out_channels=64, guidance_embeds=True)
    found = to_ours(theirs.state_dict(), family.folder.tables["network"], ours)
    assert {n: t.shape for n, t in found.items()} == {n: t.shape for n, t in ours.items()}
