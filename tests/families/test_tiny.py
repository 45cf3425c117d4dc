"""How codes are shown while they form, and tiny autoencoders in the place of a model's own."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.pipelines.flux.pipeline_flux import FluxPipeline
from PIL import Image
from torch import Tensor

import measured
from mezzotint.adapters.seamless import seamless
from mezzotint.apps.cli import main
from mezzotint.checkpoints.files import CheckpointError, load, save
from mezzotint.checkpoints.inspect import Report
from mezzotint.checkpoints.keys import to_ours, to_theirs
from mezzotint.checkpoints.source import Listing
from mezzotint.checkpoints.streamed import Streamed
from mezzotint.checkpoints.tables import tiny_autoencoder as tables
from mezzotint.diffusion.noise import batch
from mezzotint.engine.convert import convert
from mezzotint.engine.generate import generate
from mezzotint.engine.request import Guidance, Progress, Request, Start
from mezzotint.families import catalogue
from mezzotint.families.catalogue import Family
from mezzotint.families.flow import pack
from mezzotint.families.model import Model
from mezzotint.families.separate import AUTOENCODER, TINY, Given
from mezzotint.networks.ldm_autoencoder import LdmAutoencoder
from mezzotint.networks.tiny_autoencoder import TinyAutoencoder, TinyAutoencoderConfig
from pipelines import flux, small, small_flow, stable_diffusion, tiny_autoencoder

SIZE = (64, 96)
FOX = "a red fox, flat style"
WISH = Request(FOX, (3,), size=SIZE, steps=3)
BOTH = frozenset({0, 1})


@pytest.fixture(scope="module", params=["sd1", "flux-dev"])
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def theirs(name: str) -> Any:
    made = flux() if name == "flux-dev" else stable_diffusion(name)
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def folder(theirs: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "folder"
    theirs.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def taesd(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("tiny") / "taesd"
    tiny_autoencoder(4 if name == "sd1" else 16).save_pretrained(path)
    return path


@pytest.fixture(autouse=True)
def known(name: str, monkeypatch: pytest.MonkeyPatch) -> Family:
    """Lets the small networks of a family be recognised, whose sizes no signature has."""
    family = small(name) if name == "sd1" else small_flow(name)

    def recognise(listing: Listing) -> Report:
        return Report(Path(), 0, "", family.folder.kind)

    monkeypatch.setattr(catalogue, "FAMILIES", (family,))
    monkeypatch.setattr(catalogue, "recognise", recognise)
    return family


def opened(folder: Path, *given: Given, **more: Any) -> Model:
    told = {"precision": "float32", **more}
    return catalogue.load(str(folder), "cpu", given=given, **told)


def shown(model: Model, wish: Request = WISH) -> tuple[Tensor, list[Tensor]]:
    """The picture, and what was shown at each step."""
    seen: list[Tensor] = []

    def listen(told: Progress) -> None:
        seen.append(told.preview())

    return generate(model, wish, listen)[0], seen


# --- in the place of the model's own ----------------------------------------------------------


@pytest.mark.parity("text to image with a tiny autoencoder", "separate files")
def test_the_picture_of_diffusers(
    name: str, theirs: Any, folder: Path, taesd: Path, known: Family
) -> None:
    """`diffusers`' pipeline with its ``AutoencoderTiny`` as the VAE."""
    (height, width), channels = SIZE, 4 if name == "sd1" else 16
    start = batch([3], "start", 0, (channels, height // 8, width // 8))
    own, theirs.vae = theirs.vae, tiny_autoencoder(channels)
    expected = theirs(
        FOX,
        height=height,
        width=width,
        num_inference_steps=4,
        guidance_scale=3.5,
        latents=pack(start) if isinstance(theirs, FluxPipeline) else start,
        output_type="pt",
    ).images[0]
    theirs.vae = own
    model = opened(folder, Given(taesd, "vae"))
    file = taesd / "diffusion_pytorch_model.safetensors"
    assert model.notes == (f"vae is from {file}, in place of its own",)
    assert isinstance(model.parts[AUTOENCODER], TinyAutoencoder)
    wish = replace(WISH, steps=4, guidance=Guidance(3.5))
    if name == "sd1":
        wish = replace(wish, sampler="ddim", spacing="trailing")
    found, seen = shown(model, wish)
    assert float(found.std()) > 0.1
    measured.close(found / 2 + 0.5, expected, 1e-3)
    assert torch.equal(seen[-1], found)  # it is quick enough to show what it makes


def forms(folder: Path, taesd: Path) -> dict[str, Path]:
    """The weights of a tiny autoencoder in every layout, two of which lack the encoder."""
    state = load(taesd / "diffusion_pytorch_model.safetensors")[0]
    config = TinyAutoencoderConfig(latent_channels=state["decoder.layers.0.weight"].shape[1])
    ours = to_ours(state, tables.DIFFUSERS, TinyAutoencoder(config).state_dict())
    halves = {
        half: {name: value for name, value in ours.items() if name.startswith(half)}
        for half in ("encoder", "decoder")
    }
    scaled = {"vae_scale": torch.tensor(0.5), "vae_shift": torch.tensor(0.1)}
    made = {
        "diffusers": state,
        "combined": {**to_theirs(ours, tables.COMBINED), **scaled},
        "decoder": to_theirs(halves["decoder"], tables.DECODER),
        "half": {n: t for n, t in state.items() if n.startswith("decoder.")},
        "encoder": to_theirs(halves["encoder"], tables.ENCODER),
    }
    folder.mkdir(exist_ok=True)
    for what, tensors in made.items():
        save(folder / f"{what}.safetensors", tensors, {})
    return {what: folder / f"{what}.safetensors" for what in made}


@pytest.mark.parametrize("name", ["sd1"], indirect=True, scope="module")
@torch.inference_mode()
def test_every_layout_makes_the_same(name: str, folder: Path, taesd: Path, tmp_path: Path) -> None:
    paths = forms(tmp_path, taesd)
    theirs = tiny_autoencoder(4 if name == "sd1" else 16)
    code = torch.randn(1, theirs.config.latent_channels, 4, 4)
    media = torch.rand(1, 3, 32, 32) * 2 - 1
    expected, encoded = theirs.decode(code).sample, theirs.encode(media).latents
    for what in ("diffusers", "combined", "decoder", "half"):
        codec = opened(folder, Given(paths[what], "vae")).codec
        torch.testing.assert_close(codec.decode(code), expected, atol=1e-5, rtol=1e-5)
        if what in ("decoder", "half"):
            with pytest.raises(ValueError, match="is the decoder alone: give a file with both"):
                codec.encode(media)
        else:
            torch.testing.assert_close(codec.encode(media), encoded, atol=1e-5, rtol=1e-5)
    for what in ("combined", "decoder"):
        seen = opened(folder, Given(paths[what])).show(code)
        assert torch.equal(seen, codec.decode(code)[0].clamp(-1, 1))


@pytest.mark.parametrize("name", ["sd1"], indirect=True, scope="module")
def test_a_path_begins_at_its_code(name: str, folder: Path, taesd: Path) -> None:
    """Image to image: what is drawn after is encoded by it."""
    model = opened(folder, Given(taesd, "vae"))
    media = torch.rand(3, *SIZE, generator=torch.Generator().manual_seed(0)) * 2 - 1
    wish = replace(WISH, start=Start(media, 0.5), steps=2)
    with torch.inference_mode():
        code = model.codec.encode(media[None])[0]
    coded = replace(wish, start=Start(code, 0.5, coded=True))
    assert torch.equal(generate(model, wish)[0], generate(model, coded)[0])


@pytest.mark.parametrize("name", ["flux-dev"], indirect=True, scope="module")
def test_a_model_may_lack_another(folder: Path, taesd: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy, ignore=shutil.ignore_patterns("vae"))
    with pytest.raises(CheckpointError, match="is not whole, it lacks vae: give --part vae=FILE"):
        opened(copy, Given(taesd))
    wish = replace(WISH, steps=1)
    made = [generate(opened(path, Given(taesd, "vae")), wish)[0] for path in (copy, folder)]
    assert torch.equal(*made)


# --- what is shown meanwhile ------------------------------------------------------------------


def test_a_picture_does_not_depend_on_what_is_shown(
    folder: Path, taesd: Path, known: Family, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is decoded by the model's own autoencoder but the picture, once."""
    plain, previewing = opened(folder), opened(folder, Given(taesd))
    file = taesd / "diffusion_pytorch_model.safetensors"
    assert previewing.notes == (f"previews are by {file}",)
    expected = generate(plain, WISH)[0]
    decoded: list[int] = []
    own = LdmAutoencoder.decode

    def decode(network: LdmAutoencoder, z: Tensor) -> Tensor:
        decoded.append(1)
        return own(network, z)

    monkeypatch.setattr(LdmAutoencoder, "decode", decode)
    found, small_ones = shown(plain)
    again, large_ones = shown(previewing)
    assert torch.equal(found, expected) and torch.equal(again, expected)
    assert len(decoded) == 2
    height, width = SIZE
    assert [tuple(one.shape) for one in small_ones] == [(3, height // 8, width // 8)] * 3
    assert [tuple(one.shape) for one in large_ones] == [(3, height, width)] * 3
    for seen in (small_ones, large_ones):
        assert all(float(one.abs().max()) <= 1 and float(one.std()) > 0.01 for one in seen)


@pytest.mark.parametrize("name", ["sd1"], indirect=True, scope="module")
@torch.inference_mode()
def test_seamless(folder: Path, taesd: Path) -> None:
    """A shifted code is a shifted picture, and the other way round."""
    model = opened(folder, Given(taesd, "vae"))
    code = torch.randn(1, *model.codec.shape((32, 32)))
    media = torch.rand(1, 3, 32, 32)
    with seamless(model.parts.values(), BOTH):
        whole, encoded = model.codec.decode(code), model.codec.encode(media)
        for axis in (2, 3):
            moved = model.codec.decode(code.roll(1, axis))
            torch.testing.assert_close(moved, whole.roll(8, axis), atol=1e-4, rtol=1e-4)
            back = model.codec.encode(media.roll(8, axis))
            torch.testing.assert_close(back, encoded.roll(1, axis), atol=1e-4, rtol=1e-4)
    assert not torch.allclose(model.codec.decode(code.roll(1, 2)), whole.roll(8, 2), atol=1e-3)


@pytest.mark.parametrize("name", ["sd1"], indirect=True, scope="module")
@pytest.mark.parametrize("role", ["vae", None])
def test_memory(role: str | None, folder: Path, taesd: Path, name: str) -> None:
    """It is counted, and read when it is used; no bit depends on it."""
    given = Given(taesd, role)
    part = TINY if role is None else AUTOENCODER
    usual = opened(folder, given)
    layers = [m for m in usual.parts[part].modules() if isinstance(m, Streamed)]
    assert len(layers) > 25 and not any(layer.stays for layer in layers)
    kept = opened(folder, given, limit=catalogue.Limit(10**12, SIZE))
    assert kept.notes[-1].startswith("everything stays in memory")
    assert not [m for m in kept.parts[part].modules() if isinstance(m, Streamed)]
    wish = replace(WISH, steps=1)
    (one, first), (other, second) = shown(usual, wish), shown(kept, wish)
    assert torch.equal(one, other) and torch.equal(first[0], second[0])


# --- what does not go -------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["flux-dev"], indirect=True, scope="module")
def test_what_does_not_fit_is_named(
    name: str, folder: Path, taesd: Path, tmp_path: Path, known: Family
) -> None:
    other = tmp_path / "other"
    tiny_autoencoder(16 if name == "sd1" else 4).save_pretrained(other)
    paths = forms(tmp_path / "forms", taesd)
    unlike = r"is tiny autoencoder .*, and does not fit .* \({}: its decoder.layers.0.weight is .*"
    half = "is encoder of the tiny autoencoder .*, and does not fit .*taesd"
    cases = {
        (other, None): unlike.format("taesd"),
        (other, "vae"): unlike.format("vae"),
        (taesd, "clip_l"): "is tiny autoencoder .*, and is none of its clip_l",
        (paths["encoder"], None): half,
        (paths["encoder"], "taesd"): half,
    }
    for (path, part), message in cases.items():
        with pytest.raises(CheckpointError, match=message) as caught:
            opened(folder, Given(path, part))
        assert "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match="are both taesd: give one of them"):
        opened(folder, Given(taesd), Given(paths["decoder"]))
    for part in (None, "vae"):
        with pytest.raises(CheckpointError, match="is a tiny autoencoder, for which a check"):
            convert(folder, tmp_path / "a.safetensors", "file", given=[Given(taesd, part)])


@pytest.mark.parametrize("name", ["sd1"], indirect=True, scope="module")
def test_from_the_command_line(
    folder: Path, taesd: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What makes the picture is in its metadata."""
    words = ["generate", "a fox", "--model", str(folder), "--steps", "1", "--size", "64"]
    words += ["--device", "cpu", "--precision", "float32", "--seed", "1"]
    parts: dict[str, list[str]] = {"own": [], "seen": [f"{taesd}"], "tiny": [f"vae={taesd}"]}
    pictures: dict[str, bytes] = {}
    for what, part in parts.items():
        given = [word for value in part for word in ("--part", value)]
        assert main([*words, *given, "--output", str(tmp_path / f"{what}.png")]) == 0
        with Image.open(tmp_path / f"{what}.png") as image:
            pictures[what] = image.tobytes()
            said = json.loads(image.info["parameters"])
            assert said.get("parts", []) == [value.replace(str(taesd), "taesd") for value in part]
    assert pictures["own"] == pictures["seen"] != pictures["tiny"]
    told = capsys.readouterr().err
    assert "previews are by" in told and "vae is from" in told
