"""SDXL's refiner, small: alone and after the base, equal to `diffusers`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from diffusers.pipelines.stable_diffusion_xl import pipeline_stable_diffusion_xl_img2img as module
from torch import Tensor

import measured
from mezzotint.apps.cli import main
from mezzotint.checkpoints.files import load as load_file
from mezzotint.checkpoints.inspect import Report
from mezzotint.checkpoints.keys import to_ours
from mezzotint.checkpoints.source import Listing
from mezzotint.checkpoints.tables import ldm_unet
from mezzotint.diffusion.noise import Noise, batch, stream
from mezzotint.engine import ends
from mezzotint.engine.convert import convert
from mezzotint.engine.generate import generate
from mezzotint.engine.request import Guidance, Progress, Refiner, Request, RequestError, Start
from mezzotint.families import catalogue
from mezzotint.families.ldm import Family, build, load
from mezzotint.families.model import Model
from mezzotint.families.sdxl import SDXL_REFINER
from pipelines import small, stable_diffusion
from variants import certain, picture

SIZE = (64, 96)
FOX = "a red fox, flat style"


def small_refiner() -> Family:
    base = small("sdxl")
    unet = replace(base.unet, context_width=8, vector_width=8 + 5 * 256)
    network = ldm_unet.original(unet.depths, unet.blocks, convolutions=False)
    return replace(
        SDXL_REFINER,
        unet=unet,
        autoencoder=base.autoencoder,
        texts={"text2": base.texts["text2"]},
        file=replace(SDXL_REFINER.file, tables={**base.file.tables, "network": network}),
    )


@pytest.fixture(scope="module")
def bases() -> Any:
    made = stable_diffusion("sdxl")
    certain(made.vae)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def theirs(bases: Any) -> Any:
    torch.manual_seed(2)
    sizes = {"cross_attention_dim": 8, "projection_class_embeddings_input_dim": 8 + 5 * 256}
    parts = {**bases.components, "text_encoder": None, "tokenizer": None}
    parts["unet"] = UNet2DConditionModel.from_config(bases.unet.config, **sizes)
    made = module.StableDiffusionXLImg2ImgPipeline(
        **parts,
        requires_aesthetics_score=True,
        force_zeros_for_empty_prompt=False,
        add_watermarker=False,
    )
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def folders(bases: Any, theirs: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    path = tmp_path_factory.mktemp("refiner")
    bases.save_pretrained(path / "base")
    theirs.save_pretrained(path / "refiner")
    return path / "base", path / "refiner"


@pytest.fixture(scope="module")
def ours(folders: tuple[Path, Path]) -> Model:
    return load(small_refiner(), folders[1])


@pytest.fixture(scope="module")
def base(folders: tuple[Path, Path]) -> Model:
    return load(small("sdxl"), folders[0])


def wish(**more: Any) -> Request:
    usual = {"size": SIZE, "sampler": "ddim", "spacing": "trailing", "steps": 4}
    return Request(FOX, (3,), **{**usual, **more})


def noise() -> Tensor:
    return batch([3], "start", 0, (4, SIZE[0] // 8, SIZE[1] // 8))


@pytest.mark.parity("image to image", "diffusers folder", family="sdxl-refiner")
@pytest.mark.parametrize(("scale", "negative"), [(1.0, ""), (6.0, "blue"), (6.0, "")])
def test_image_to_image(
    theirs: Any, ours: Model, scale: float, negative: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The score of the negative prompt is another; an empty one is no zeros."""
    monkeypatch.setattr(module, "randn_tensor", lambda *_, **__: noise())
    expected = theirs(
        FOX,
        image=picture(*SIZE)[None] / 2 + 0.5,
        strength=0.5,
        negative_prompt=negative,
        num_inference_steps=4,
        guidance_scale=scale,
        output_type="pt",
    ).images[0]
    told = {"guidance": Guidance(scale), "negative": negative}
    found = generate(ours, wish(start=Start(picture(*SIZE), 0.5), **told))[0]
    measured.close(found / 2 + 0.5, expected, 1e-3)
    assert float(found.std()) > 0.01


@pytest.mark.parity("after the base", "diffusers folder", family="sdxl-refiner")
@pytest.mark.parametrize(("steps", "begin"), [(4, 0.5), (10, 0.8), (5, 0.33)])
def test_after_the_base(
    bases: Any, theirs: Any, base: Model, ours: Model, steps: int, begin: float
) -> None:
    told: dict[str, Any] = {"negative_prompt": "blue", "guidance_scale": 6.0}
    told["num_inference_steps"] = steps
    height, width = SIZE
    code = bases(
        FOX,
        height=height,
        width=width,
        latents=noise(),
        denoising_end=begin,
        output_type="latent",
        **told,
    ).images
    expected = theirs(FOX, image=code, denoising_start=begin, output_type="pt", **told).images[0]
    request = wish(
        steps=steps, negative="blue", guidance=Guidance(6.0), refiner=Refiner(ours, begin)
    )
    seen: list[Progress] = []
    found = generate(base, request, seen.append)[0]
    measured.close(found / 2 + 0.5, expected, 1e-3)
    assert [told.step for told in seen] == list(range(1, steps + 1))
    assert all(told.steps == steps for told in seen)
    plain = generate(base, replace(request, refiner=None))[0]
    assert float((plain - found).abs().max()) > 0.01


def test_a_seed_never_knows_its_batch(base: Model, ours: Model) -> None:
    several = replace(wish(refiner=Refiner(ours, 0.5), sampler="euler_ancestral"), seeds=(1, 2, 3))
    for seed, made in zip((1, 2, 3), generate(base, several), strict=True):
        assert torch.equal(generate(base, replace(several, seeds=(seed,)))[0], made)


def test_the_refiners_noise_is_not_the_bases(
    base: Model, ours: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its steps are counted from the first again, so their noise has another name."""
    names: list[str] = []

    def named(seeds: Sequence[int], name: str, like: Tensor) -> Noise:
        names.append(name)
        return stream(seeds, name, like)

    monkeypatch.setattr(ends, "stream", named)
    generate(base, wish(refiner=Refiner(ours, 0.5), sampler="euler_ancestral"))
    assert names == ["start", "step", "refine"]


def test_what_cannot_be_refined(base: Model, ours: Model) -> None:
    for begin in (0.0, 1.0, -1.0):
        with pytest.raises(RequestError, match="a refiner begins between 0 and 1, not at"):
            generate(base, wish(refiner=Refiner(ours, begin)))
    with pytest.raises(RequestError, match="from 0.99 on leaves no step of 4 to sdxl-refiner"):
        generate(base, wish(refiner=Refiner(ours, 0.99)))
    with pytest.raises(RequestError, match="from 0.001 on leaves no step of 1 to sdxl"):
        generate(base, wish(refiner=Refiner(ours, 0.001), steps=1))
    codec = replace(ours.codec, scale=0.18215)  # type: ignore[type-var]
    with pytest.raises(RequestError, match="cannot refine what sdxl makes: other codes"):
        generate(base, wish(refiner=Refiner(replace(ours, codec=codec), 0.8)))
    other = replace(
        ours,
        schedule=replace(
            ours.schedule, alphas_cumprod=torch.linspace(0.99, 0.01, 1000, dtype=torch.float64)
        ),
    )  # type: ignore[type-var]
    with pytest.raises(RequestError, match="sdxl-refiner has other noise levels than sdxl"):
        generate(base, wish(refiner=Refiner(other, 0.5)))


@pytest.mark.parity("image to image", "single file", family="sdxl-refiner")
def test_both_layouts(
    folders: tuple[Path, Path], ours: Model, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    family = small_refiner()
    prefix = family.file.places["network"]

    def recognise(listing: Listing) -> Report:
        whole = any(key.startswith(prefix) for key in listing.tensors)
        return Report(Path(), 0, "", (family.file if whole else family.folder).kind)

    monkeypatch.setattr(catalogue, "FAMILIES", (family,))
    monkeypatch.setattr(catalogue, "recognise", recognise)
    file, back = tmp_path / "a.safetensors", tmp_path / "back"
    convert(folders[1], file, "file")
    convert(file, back, "folder")
    assert any(key.startswith("conditioner.embedders.0.model.") for key in load_file(file)[0])
    request = wish(steps=2)
    made = generate(ours, request)[0]
    for place in (folders[1], file, back):
        model = catalogue.load(str(place), "cpu", precision="float32")
        measured.same(generate(model, request)[0], made)
    found = DiffusionPipeline.from_pretrained(back, local_files_only=True)
    assert type(found) is module.StableDiffusionXLImg2ImgPipeline
    assert found.config.requires_aesthetics_score
    assert not found.config.force_zeros_for_empty_prompt


def test_the_command_line(
    folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    kin = {"base": small("sdxl"), "refiner": small_refiner()}

    def family_of(path: Path, listing: Listing, name: str | None = None) -> Family:
        return kin[path.name]

    monkeypatch.setattr(catalogue, "family_of", family_of)
    words = ["generate", FOX, "--model", str(folders[0]), "--steps", "4", "--seed", "3"]
    words += ["--size", "64", "--device", "cpu", "--precision", "float32"]
    more = ["--refiner", str(folders[1]), "--refiner-from", "0.5"]
    assert main([*words, "-o", str(tmp_path / "plain.png")]) == 0
    assert main([*words, *more, "-o", str(tmp_path / "refined.png")]) == 0
    assert (tmp_path / "plain.png").read_bytes() != (tmp_path / "refined.png").read_bytes()


def test_true_sizes() -> None:
    """Those of the release's U-Net."""
    with torch.device("meta"):
        ours = build(SDXL_REFINER).parts["network"].state_dict()
        theirs = UNet2DConditionModel(
            block_out_channels=(384, 768, 1536, 1536),
            down_block_types=("DownBlock2D", *("CrossAttnDownBlock2D",) * 2, "DownBlock2D"),
            up_block_types=("UpBlock2D", *("CrossAttnUpBlock2D",) * 2, "UpBlock2D"),
            cross_attention_dim=1280,
            transformer_layers_per_block=4,
            attention_head_dim=(6, 12, 24, 24),
            use_linear_projection=True,
            addition_embed_type="text_time",
            addition_time_embed_dim=256,
            projection_class_embeddings_input_dim=2560,
        )
    found = to_ours(theirs.state_dict(), SDXL_REFINER.folder.tables["network"], ours)
    assert {n: t.shape for n, t in found.items()} == {n: t.shape for n, t in ours.items()}
