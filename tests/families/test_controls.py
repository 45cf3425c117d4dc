"""Control networks, small: equal to `diffusers`, in every layout, several at once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.pipelines.controlnet.pipeline_controlnet import StableDiffusionControlNetPipeline
from diffusers.pipelines.controlnet.pipeline_controlnet_sd_xl import (
    StableDiffusionXLControlNetPipeline,
)
from PIL import Image
from torch import Tensor

import measured
from mezzotint.apps.cli import main
from mezzotint.checkpoints.files import CheckpointError, save
from mezzotint.checkpoints.files import load as load_file
from mezzotint.checkpoints.inspect import Report, inspect
from mezzotint.checkpoints.keys import to_theirs
from mezzotint.checkpoints.source import Listing
from mezzotint.checkpoints.tables import control_unet
from mezzotint.diffusion.level import Conditioning, Tokens
from mezzotint.diffusion.noise import batch
from mezzotint.engine import hints
from mezzotint.engine.generate import generate
from mezzotint.engine.hints import HINTS
from mezzotint.engine.request import Control, Enlarge, Guidance, Request, RequestError
from mezzotint.families import catalogue, controls
from mezzotint.families.ldm import load
from mezzotint.families.model import Model
from mezzotint.modalities.image import to_image
from mezzotint.networks.control_unet import ControlUNet
from pipelines import small, small_flow, stable_diffusion
from variants import mask, picture

SIZE = (64, 96)
FOX = "a red fox, flat style"


@pytest.fixture(scope="module", params=["sd1", "sd2", "sdxl"])
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def base(name: str) -> Any:
    return stable_diffusion(name)


def network(base: Any, seed: int) -> ControlNetModel:
    """With numbers where training begins with zeros, small ones at the ports."""
    made = ControlNetModel.from_unet(base.unet)
    torch.manual_seed(seed)
    with torch.no_grad():
        for weight in made.parameters():
            weight.normal_(0, 0.05).add_(1.0 * (weight.ndim == 1 and bool(weight.mean() > 9)))
    return made.eval()


@pytest.fixture(scope="module")
def networks(base: Any) -> list[ControlNetModel]:
    return [network(base, seed) for seed in (1, 2)]


@pytest.fixture(scope="module")
def folders(
    name: str, base: Any, networks: list[ControlNetModel], tmp_path_factory: pytest.TempPathFactory
) -> list[Path]:
    place = tmp_path_factory.mktemp(name)
    base.save_pretrained(place / "base")
    for number, each in enumerate(networks):
        each.save_pretrained(place / f"control{number}")
    return [place / "base", place / "control0", place / "control1"]


@pytest.fixture(scope="module", autouse=True)
def recognised() -> Any:
    """Headers tell the true widths; these are small."""
    own = controls.recognise

    def recognise(listing: Listing) -> Report:
        return (
            replace(own(listing), kind="ControlNet")
            if "zero" in str(listing.tensors)
            or any("controlnet_cond" in key for key in listing.tensors)
            else own(listing)
        )

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(controls, "recognise", recognise)
        yield


@pytest.fixture(scope="module")
def ours(name: str, folders: list[Path]) -> Model:
    return load(small(name), folders[0])


def expected(base: Any, used: Any, steps: int, scale: float, **told: Any) -> Tensor:
    parts = {key: part for key, part in base.components.items() if key != "image_encoder"}
    if "text_encoder_2" in parts:
        made: Any = StableDiffusionXLControlNetPipeline(
            **parts, controlnet=used, add_watermarker=False
        )
    else:
        made = StableDiffusionControlNetPipeline(
            **parts, controlnet=used, requires_safety_checker=False
        )
    made.set_progress_bar_config(disable=True)
    image = picture(*SIZE)[None] / 2 + 0.5
    several = isinstance(used, list)
    return made(
        FOX,
        image=[image, 1 - image] if several else image,
        negative_prompt="blue" if scale > 1 else None,
        height=SIZE[0],
        width=SIZE[1],
        num_inference_steps=steps,
        guidance_scale=scale,
        latents=batch([3], "start", 0, (4, SIZE[0] // 8, SIZE[1] // 8)),
        output_type="pt",
        **told,
    ).images[0]


def wish(steps: int, scale: float, *used: Control, **more: Any) -> Request:
    return Request(
        FOX,
        (3,),
        "blue" if scale > 1 else "",
        SIZE,
        steps,
        Guidance(scale),
        "ddim",
        "trailing",
        controls=used,
        **more,
    )


@pytest.mark.parity("ControlNet", "diffusers folder")
@pytest.mark.parametrize(("steps", "scale"), [(1, 1.0), (4, 1.0), (4, 6.0), (20, 6.0)])
def test_from_prompt_and_picture_to_picture(
    base: Any,
    networks: list[ControlNetModel],
    folders: list[Path],
    ours: Model,
    steps: int,
    scale: float,
) -> None:
    control = Control(controls.load(ours, folders[1]), picture(*SIZE), 0.7)
    wanted = expected(base, networks[0], steps, scale, controlnet_conditioning_scale=0.7)
    found = generate(ours, wish(steps, scale, control))[0]
    measured.close(found / 2 + 0.5, wanted, 1e-3)
    plain = generate(ours, wish(steps, scale))[0]
    assert float((found - plain).abs().max()) > 0.01


@pytest.mark.parity("two ControlNets, each for a part of the way", "diffusers folder")
def test_two_at_once(
    base: Any, networks: list[ControlNetModel], folders: list[Path], ours: Model
) -> None:
    first, second = (controls.load(ours, folder) for folder in folders[1:])
    ends: dict[str, list[float]] = {
        "controlnet_conditioning_scale": [0.7, 0.4],
        "control_guidance_start": [0.0, 0.25],
        "control_guidance_end": [0.5, 1.0],
    }
    wanted = expected(base, networks, 4, 6.0, **ends)
    two = (
        Control(first, picture(*SIZE), 0.7, 0.0, 0.5),
        Control(second, -picture(*SIZE), 0.4, 0.25, 1.0),
    )
    found = generate(ours, wish(4, 6.0, *two))[0]
    measured.close(found / 2 + 0.5, wanted, 1e-3)
    for one in two:
        assert not torch.equal(generate(ours, wish(4, 6.0, one))[0], found)


@pytest.mark.parity("ControlNet", "single file")
def test_every_layout_is_the_same_network(
    name: str, folders: list[Path], ours: Model, tmp_path: Path
) -> None:
    """The original file, with and without its prefix, and the folder's file by itself."""
    control = controls.load(ours, folders[1])
    assert isinstance(control.network, ControlUNet)
    config = control.network.config
    table = control_unet.original(config.depths, config.blocks, convolutions=name == "sd1")
    state = to_theirs(control.network.state_dict(), table)
    save(tmp_path / "a.safetensors", {f"control_model.{k}": v for k, v in state.items()}, {})
    save(tmp_path / "b.safetensors", state, {})
    request = wish(2, 3.0, Control(control, picture(*SIZE)))
    made = generate(ours, request)[0]
    file = folders[1] / "diffusion_pytorch_model.safetensors"
    for path in (tmp_path / "a.safetensors", tmp_path / "b.safetensors", file):
        same = wish(2, 3.0, Control(controls.load(ours, path), picture(*SIZE)))
        measured.same(generate(ours, same)[0], made)


def test_a_seed_never_knows_its_batch(folders: list[Path], ours: Model) -> None:
    request = wish(2, 3.0, Control(controls.load(ours, folders[1]), picture(*SIZE)))
    several = generate(ours, replace(request, seeds=(1, 2, 3)))
    for seed, made in zip((1, 2, 3), several, strict=True):
        assert torch.equal(generate(ours, replace(request, seeds=(seed,)))[0], made)
    twice = replace(request, enlarge=Enlarge(2.0, 0.5))
    assert generate(ours, twice)[0].shape == (3, 128, 192)


def test_what_does_not_fit_says_so(folders: list[Path], ours: Model, tmp_path: Path) -> None:
    state, _ = load_file(folders[1] / "diffusion_pytorch_model.safetensors")
    state = dict(state)
    state["controlnet_mid_blocks.weight"] = state.pop("controlnet_mid_block.weight")
    save(tmp_path / "a.safetensors", state, {})
    with pytest.raises(CheckpointError, match="unknown key 'controlnet_mid_blocks.weight'"):
        controls.load(ours, tmp_path / "a.safetensors")
    save(tmp_path / "b.safetensors", {"x": torch.zeros(1)}, {})
    with pytest.raises(CheckpointError, match="is nothing that is known, not a control network"):
        controls.load(ours, tmp_path / "b.safetensors")
    control = controls.load(ours, folders[1])
    for wrong, message in (
        (Control(control, picture(64, 64)), "the control's picture has shape"),
        (Control(control, picture(*SIZE), 1.0, 0.5, 0.5), "0 <= from < to <= 1"),
        (Control(control, picture(*SIZE), float("nan")), "strength must be a number"),
    ):
        with pytest.raises(RequestError, match=message):
            generate(ours, wish(2, 3.0, wrong))


def test_a_family_without_controls_takes_none() -> None:
    model = replace(catalogue.shadow(small_flow("sd3")), controls=())
    with pytest.raises(CheckpointError, match="sd3 takes no control network"):
        controls.load(model, "x.safetensors")


def test_true_sizes(name: str) -> None:
    """The tensors of `diffusers`' network at the size of the releases, each taken once."""
    family = {f.name: f for f in catalogue.FAMILIES}[name]
    config = replace(family.unet, in_channels=4)  # type: ignore[union-attr]
    heads = {"sd1": 8, "sd2": (5, 10, 20, 20), "sdxl": (5, 10, 20)}[name]
    told: dict[str, Any] = {
        "attention_head_dim": heads,
        "cross_attention_dim": config.context_width,
    }
    if name != "sd1":
        told["use_linear_projection"] = True
    if name == "sdxl":
        told |= {
            "block_out_channels": (320, 640, 1280),
            "down_block_types": ("DownBlock2D", *["CrossAttnDownBlock2D"] * 2),
            "transformer_layers_per_block": (1, 2, 10),
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 256,
            "projection_class_embeddings_input_dim": 2816,
        }
    with torch.device("meta"):
        theirs = ControlNetModel(**told).state_dict()
        own = ControlUNet(config)
    for table in (
        control_unet.diffusers(name == "sd1"),
        control_unet.original(config.depths, config.blocks, name == "sd1"),
    ):
        named = to_theirs(own.state_dict(), table)
        if "conv_in.weight" in named:
            assert {k: v.shape for k, v in named.items()} == {k: v.shape for k, v in theirs.items()}
        assert len(named) == len(theirs) == {"sd1": 340, "sd2": 340, "sdxl": 844}[name]


def test_hints() -> None:
    """A disc: one closed line around it, and nothing where it is even."""
    x = torch.arange(64) - 31.5
    disc = torch.where(torch.hypot(x[:, None], x) < 20, 1.0, -1.0).expand(3, -1, -1)
    made = {name: hint(disc) for name, hint in HINTS.items()}
    for each in made.values():
        assert each.shape == disc.shape and float(each.min()) >= -1 and float(each.max()) <= 1
    line = made["canny"][0] > 0
    away = (torch.hypot(x[:, None], x) - 20).abs()
    assert float(away[line].max()) < 1.6 and 90 < int(line.sum()) < 170
    assert set(made["canny"].unique().tolist()) == {-1.0, 1.0}
    assert float(made["edges"][0][away > 6].max()) < -0.99
    torch.testing.assert_close(made["luminance"], disc)
    assert int((made["scribble"][0] > 0).sum()) > 3 * int(line.sum())
    assert float((made["tile"] - disc).abs().mean()) < 0.25
    assert float((made["blur"] - disc).abs().mean()) > float((made["tile"] - disc).abs().mean())
    torch.testing.assert_close(made["depth"], disc)
    torch.testing.assert_close(hints.find("depth")(disc * 0.2 + 0.3), disc)
    assert torch.equal(made["pose"], disc)
    assert torch.equal(hints.find("canny-inverted")(disc), -made["canny"])
    with pytest.raises(ValueError, match="the same everywhere: give one with near and far"):
        hints.find("depth-inverted")(torch.zeros(3, 8, 8))
    for name, near in (("softedge", "edges"), ("hed", "edges"), ("lineart", "canny")):
        with pytest.raises(ValueError, match=f"takes a trained detector .nearest: {near}.: choose"):
            hints.find(name)


def test_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = stable_diffusion("sd1", 768)
    base.save_pretrained(tmp_path / "base")
    network(base, 1).save_pretrained(tmp_path / "control")
    assert "ControlNet for SD1" in str(
        inspect(tmp_path / "control/diffusion_pytorch_model.safetensors").kind
    )
    monkeypatch.setattr(catalogue, "FAMILIES", (small("sd1", 768),))
    to_image(picture(*SIZE)).save(tmp_path / "edges.png")
    told = ["generate", "a fox", "--model", str(tmp_path / "base"), "--size", "96x64"]
    told += ["--steps", "2", "--seed", "1", "--no-preview", "--precision", "float32"]
    given = f"{tmp_path / 'control'}={tmp_path / 'edges.png'},canny,strength=0.8,to=0.5"
    for name, more in (("a", ["--control", given]), ("b", [])):
        assert main([*told, "-o", str(tmp_path / f"{name}.png"), *more]) == 0

    first, second = (Image.open(tmp_path / f"{name}.png") for name in ("a", "b"))
    assert first.tobytes() != second.tobytes()
    assert '"hint": "canny"' in first.info["parameters"]
    to_image(mask(*SIZE) * 2 - 1).save(tmp_path / "mask.png")
    edit = ["--image", str(tmp_path / "edges.png"), "--mask", str(tmp_path / "mask.png")]
    paints = ["--control", f"{tmp_path / 'control'},strength=0.8"]
    assert main([*told, *edit, *paints, "-o", str(tmp_path / "c.png")]) == 0
    with Image.open(tmp_path / "c.png") as painted:
        said = json.loads(painted.info["parameters"])
    assert said["controls"] == [{"file": "control", "strength": 0.8}]
    for name in ("a", "c"):  # again, from what lies beside it
        made, again = tmp_path / f"{name}.png", tmp_path / f"{name}-again.png"
        assert main(["generate", "--from", str(made), "-o", str(again)]) == 0
        assert Image.open(again).tobytes() == Image.open(made).tobytes()
    assert str(tmp_path) not in first.info["parameters"]
    capsys.readouterr()
    for wrong, message in (
        ("x", "--control x without a picture is told what is painted over: give --image"),
        ("x=", "give FILE=PICTURE"),
        ("x,canny", "canny is made of a picture: give FILE=PICTURE"),
        ("x=y,strength=a", "strength=a of 'x=y,strength=a': give a number"),
        ("x=y,cany", "no hint 'cany'"),
        ("x=y,weight=3", "give a hint, strength=, from=, to= and mode="),
        ("x=y,hed", "no hint 'hed', which takes a trained detector (nearest: edges)"),
        (f"{tmp_path / 'control'}={tmp_path / 'edges.png'},mode=tile", "leave mode= out"),
    ):
        assert main([*told, "--control", wrong]) == 2
        assert message in capsys.readouterr().err


def test_image_prompts_are_not_for_control_networks(folders: list[Path], ours: Model) -> None:
    """Their tokens stand before the text's, which alone a control network is told."""
    control = controls.load(ours, folders[1])
    seen: list[Tensor] = []

    def keep(x: Tensor, time: Tensor, conditioning: Conditioning, weaker: object = None) -> Tensor:
        seen.extend(r for r in conditioning.residuals or () if r is not None)
        return x

    model = replace(ours, call=keep)  # type: ignore[arg-type]
    acting = controls.Acting(control, control.hint(picture(*SIZE)), 1.0)
    x, time = batch([3], "start", 0, (4, 8, 12)), torch.tensor([500.0])
    told = ours.conditioner([FOX])
    assert told.context is not None
    if ours.framing is not None:
        assert told.vector is not None
        told = told._replace(vector=torch.cat([told.vector, ours.framing(SIZE)], 1))
    more = torch.cat([torch.randn(1, 4, told.context.values.shape[2]), told.context.values], 1)
    with torch.inference_mode():
        controls.controlled(model, [acting]).call(x, time, told)
        controls.controlled(model, [acting], 4).call(x, time, told._replace(context=Tokens(more)))
    half = len(seen) // 2
    assert half > 3 and all(map(torch.equal, seen[:half], seen[half:]))


def test_a_long_prompt_beside_a_short_one(
    folders: list[Path], ours: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In one batch with it, nothing that fills up the short one is told to the network."""
    control = Control(controls.load(ours, folders[1]), picture(*SIZE), 0.8)
    request = replace(wish(2, 5.0, control), prompt="a fox " * 60)
    found = generate(ours, request)[0]
    monkeypatch.setattr("mezzotint.diffusion.guidance.fits", lambda *_: False)
    assert torch.allclose(found, generate(ours, request)[0], atol=1e-5)
