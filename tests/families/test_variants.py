"""Variants with further input channels, small: from pictures and prompt to picture, equal to
`diffusers`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from PIL import Image
from torch import Tensor

import measured
from mezzotint.apps.cli import main
from mezzotint.checkpoints.files import load as load_file
from mezzotint.checkpoints.files import save
from mezzotint.checkpoints.inspect import Report
from mezzotint.checkpoints.source import Listing, describe
from mezzotint.diffusion.noise import batch
from mezzotint.engine.convert import convert
from mezzotint.engine.edit import near_aspect
from mezzotint.engine.generate import generate
from mezzotint.engine.request import Guidance, Known, Request, RequestError
from mezzotint.families import catalogue
from mezzotint.families.ldm import build, load
from mezzotint.families.model import Model
from mezzotint.modalities.image import to_image, to_tensor
from variants import VARIANTS, picture, ragged, small_variant, variant_pipeline

SIZE = (64, 96)
FOX = "a red fox, flat style"


@pytest.fixture(scope="module", params=VARIANTS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def theirs(name: str) -> Any:
    return variant_pipeline(name)


@pytest.fixture(scope="module")
def folder(name: str, theirs: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(name) / "folder"
    theirs.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def ours(name: str, folder: Path) -> Model:
    return load(small_variant(name), folder)


def wish(model: Model, prompt: str = FOX, **more: Any) -> Request:
    """A request with the pictures that the model is told of."""
    joined = model.joined
    assert joined is not None
    shown: dict[str, Any] = {"reference": picture(*SIZE)}
    if joined.masked:
        shown = {"known": Known(picture(*SIZE), ragged(*SIZE))}
    usual = {"size": SIZE, "sampler": "ddim", "spacing": "trailing", **shown}
    return Request(prompt, (3,), **{**usual, **more})


def expected(theirs: Any, masked: bool, steps: int, scale: float, **more: Any) -> Tensor:
    """Their picture in [−1, 1], of our noise."""
    height, width = SIZE
    given: dict[str, Any] = {"image": picture(*SIZE)[None] / 2 + 0.5}
    if "Depth" in type(theirs).__name__:
        return depth_expected(theirs, steps, scale)
    if masked:
        given |= {"mask_image": ragged(*SIZE)[None], "strength": 1.0}
    if masked or "XL" in type(theirs).__name__:
        given |= {"height": height, "width": width}
    made = theirs(
        FOX,
        negative_prompt="blue" if scale > 1 else None,
        num_inference_steps=steps,
        guidance_scale=scale,
        latents=batch([3], "start", 0, (4, height // 8, width // 8)),
        output_type="pt",
        **given,
        **more,
    ).images[0]
    return made * 2 - 1


def depth_expected(theirs: Any, steps: int, scale: float) -> Tensor:
    """It starts from a picture always: strength 1, with as much noise as hides it."""
    height, width = SIZE
    latents = batch([3], "start", 0, (4, height // 8, width // 8))
    began: list[Tensor] = []

    def begin(*given: Any, **_: Any) -> Tensor:
        began.append(latents)
        return latents

    theirs.prepare_latents = begin
    made = theirs(
        FOX,
        image=picture(*SIZE)[None] / 2 + 0.5,
        depth_map=picture(*SIZE).mean(0)[None],
        negative_prompt="blue" if scale > 1 else None,
        num_inference_steps=steps,
        guidance_scale=scale,
        strength=1.0,
        output_type="pt",
    ).images[0]
    assert began
    return made * 2 - 1


@pytest.mark.parity("models that are told pictures", "diffusers folder")
@pytest.mark.parametrize("steps", [1, 4, 20])
@pytest.mark.parametrize("scale", [1.0, 6.0])
def test_from_pictures_to_picture(theirs: Any, ours: Model, steps: int, scale: float) -> None:
    """Within 1e-3 where something is made; outside, ours has the known colours exactly."""
    assert ours.joined is not None
    masked, negative = ours.joined.masked, "blue" if scale > 1 else ""
    guided = ours.joined.guidance is not None
    wanted = expected(
        theirs, masked, steps, scale, **({"image_guidance_scale": 2.5} if guided else {})
    )
    image = (2.5 if scale > 1 else 1.0) if guided else None  # theirs has both or neither
    request = wish(ours, steps=steps, negative=negative, guidance=Guidance(scale, image=image))
    found = generate(ours, request)[0]
    new = ragged(*SIZE) if masked else torch.ones(1, *SIZE)
    measured.close(found * new / 2, wanted * new / 2, 1e-3)
    assert float(found.std()) > 0.01
    if masked:
        assert torch.equal(found * (1 - new), picture(*SIZE) * (1 - new))


def test_the_pictures_matter(ours: Model) -> None:
    """And so does what no `diffusers` compares: an inpainting model without a mask makes all."""
    plain = generate(ours, wish(ours, steps=2))[0]
    assert ours.joined is not None
    if not ours.joined.masked:
        other = generate(ours, wish(ours, steps=2, reference=picture(*SIZE, seed=1)))[0]
        assert not torch.equal(plain, other)
        with pytest.raises(RequestError, match="works from a picture: give one with --reference"):
            generate(ours, wish(ours, reference=None))
        with pytest.raises(
            RequestError, match=r"the reference has shape \(3, 8, 8\), this request"
        ):
            generate(ours, wish(ours, reference=picture(8, 8)))
        return
    alone = generate(ours, wish(ours, steps=2, known=None))[0]
    grey = Known(torch.zeros(3, *SIZE), torch.ones(1, *SIZE))
    assert torch.equal(alone, generate(ours, wish(ours, steps=2, known=grey))[0])
    soft = Known(picture(*SIZE), ragged(*SIZE) * 0.75)
    hard = generate(ours, wish(ours, steps=2))[0]
    assert torch.equal(
        generate(ours, wish(ours, steps=2, known=soft))[0],
        torch.where(ragged(*SIZE) > 0, torch.lerp(soft.media, hard, 0.75), soft.media),
    )
    with pytest.raises(RequestError, match="is told of no reference: leave --reference out"):
        generate(ours, wish(ours, reference=picture(*SIZE)))
    with pytest.raises(RequestError, match="has no guidance by a picture: leave it out"):
        generate(ours, wish(ours, guidance=Guidance(image=2.0)))


def test_guidance_by_the_picture_has_a_scale_of_its_own(ours: Model) -> None:
    assert ours.joined is not None
    if ours.joined.guidance is None:
        return
    made = [
        generate(ours, wish(ours, steps=2, guidance=Guidance(text, image=image)))[0]
        for text, image in ((1.0, 1.0), (1.0, 2.0), (3.0, 1.0), (3.0, 2.0), (3.0, None))
    ]
    for i, one in enumerate(made):
        assert all(not torch.equal(one, other) for other in made[:i])
    usual = Guidance(3.0, image=ours.joined.guidance)
    assert torch.equal(made[-1], generate(ours, wish(ours, steps=2, guidance=usual))[0])
    with pytest.raises(RequestError, match="guidance by a picture must be 0 or more, not -1"):
        generate(ours, wish(ours, guidance=Guidance(image=-1.0)))


def test_a_seed_never_knows_its_batch(ours: Model) -> None:
    several = replace(wish(ours, steps=2), seeds=(1, 2, 3))
    for seed, made in zip((1, 2, 3), generate(ours, several), strict=True):
        assert torch.equal(generate(ours, replace(several, seeds=(seed,)))[0], made)


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Lets a small variant be recognised, whose sizes no signature has."""

    def make(name: str) -> None:
        family = small_variant(name)
        prefix = family.file.places["network"]

        def recognise(listing: Listing) -> Report:
            whole = any(key.startswith(prefix) for key in listing.tensors)
            return Report(Path(), 0, "", (family.file if whole else family.folder).kind)

        monkeypatch.setattr(catalogue, "FAMILIES", (family,))
        monkeypatch.setattr(catalogue, "recognise", recognise)

    return make


@pytest.mark.parity("models that are told pictures", "single file")
def test_both_layouts(
    name: str,
    theirs: Any,
    ours: Model,
    folder: Path,
    known: Callable[[str], None],
    tmp_path: Path,
) -> None:
    """Folder → file → folder: the same weights; each makes the same picture; `diffusers` reads
    what was written."""
    known(name)
    file, back = tmp_path / "a.safetensors", tmp_path / "back"
    convert(folder, file, "file")
    convert(file, back, "folder")
    for part in ("unet", "vae"):
        before, after = (
            load_file(next((place / part).glob("*.safetensors")))[0] for place in (folder, back)
        )
        assert before.keys() == after.keys()
        assert all(torch.equal(before[key], after[key]) for key in before)
    request = wish(ours, steps=2)
    made = generate(ours, request)[0]
    for place in (file, back):
        model = catalogue.load(str(place), "cpu", precision="float32")
        assert model.name == name
        measured.same(generate(model, request)[0], made)
    lacking = {"depth_estimator": None, "feature_extractor": None} if "depth" in name else {}
    found = DiffusionPipeline.from_pretrained(back, local_files_only=True, **lacking)
    assert type(found) is type(theirs)


@pytest.mark.parametrize("kin", VARIANTS)
def test_a_header_tells_each_from_its_kin(kin: str, tmp_path: Path) -> None:
    """By the input channels and the text's width of the true sizes."""
    family = VARIANTS[kin]
    channels, width = family.unet.in_channels, family.unet.context_width
    prefix = family.file.places["network"]
    place = "4.1" if width == 2048 else "1.1"
    reads = f"{prefix}input_blocks.{place}.transformer_blocks.0.attn2.to_k.weight"
    state = {reads: torch.zeros(320, width)}
    state[f"{prefix}input_blocks.0.0.weight"] = torch.zeros(320, channels, 3, 3)
    save(tmp_path / "a.safetensors", state, {})
    found = catalogue.family_of(tmp_path / "a.safetensors", describe(tmp_path / "a.safetensors"))
    assert found.name == kin
    level = 1 if width == 2048 else 0
    reads = f"down_blocks.{level}.attentions.0.transformer_blocks.0.attn2.to_k.weight"
    state = {reads: torch.zeros(320, width), "conv_in.weight": torch.zeros(320, channels, 3, 3)}
    state["up_blocks.1.resnets.0.conv1.weight"] = torch.zeros(1)
    save(tmp_path / "b.safetensors", state, {})
    kind = catalogue.recognise(describe(tmp_path / "b.safetensors")).kind
    assert kind == family.folder.kind


def test_the_command_line(
    name: str,
    folder: Path,
    ours: Model,
    known: Callable[[str], None],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    known(name)
    to_image(picture(48, 64)).save(tmp_path / "in.png")
    to_image(ragged(48, 64) * 2 - 1).save(tmp_path / "mask.png")
    words = ["generate", FOX, "--model", str(folder), "--steps", "1", "--seed", "3"]
    words += ["--device", "cpu", "--precision", "float32", "-o", str(tmp_path / "out.png")]
    assert ours.joined is not None
    if ours.joined.masked:
        words += ["--image", str(tmp_path / "in.png"), "--mask", str(tmp_path / "mask.png")]
        assert main(words) == 0
        after = to_tensor(Image.open(tmp_path / "out.png"), "rgb")
        before = to_tensor(Image.open(tmp_path / "in.png"), "rgb")
        assert torch.equal(after * (1 - ragged(48, 64)), before * (1 - ragged(48, 64)))
        return
    words += ["--reference", str(tmp_path / "in.png")]
    assert main([*words, "--size", "64x48"]) == 0
    with Image.open(tmp_path / "out.png") as made:
        assert made.size == (64, 48)
    capsys.readouterr()
    assert main([*words[:2], *words[2:-2]]) == 2
    assert "works from a picture: give one with --reference" in capsys.readouterr().err


def test_a_size_of_the_same_aspect() -> None:
    assert near_aspect((100, 100), (512, 512), 8) == (512, 512)
    assert near_aspect((300, 400), (512, 512), 8) == (448, 592)
    assert near_aspect((1, 1000), (512, 512), 8) == (16, 16192)
    assert near_aspect((300, 400), (8, 8), 24) == (48, 48)


def test_a_flat_depth_is_refused(tmp_path: Path) -> None:
    model = build(small_variant("sd2-depth"))
    with pytest.raises(ValueError, match="the depth map is the same everywhere"):
        generate(model, wish(model, steps=1, reference=torch.ones(3, *SIZE)))
