"""Embeddings and image prompts from the command line and from Python, on a small SD1."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from diffusers.models.controlnets.controlnet import ControlNetModel
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from PIL import Image
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from mezzotint.apps import cli, values
from mezzotint.apps.errors import UsageError
from mezzotint.apps.image_prompts import encoder_of
from mezzotint.apps.python import Maker
from mezzotint.checkpoints.files import save
from mezzotint.engine.request import RequestError
from mezzotint.families import catalogue
from pipelines import small, stable_diffusion

WIDTH, POOLED = 768, 24


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the true width, an embedding, an adapter and its encoder, and a picture."""
    path = tmp_path_factory.mktemp("prompted")
    theirs = stable_diffusion(width=WIDTH)
    theirs.save_pretrained(path / "sd1")
    generator = torch.Generator().manual_seed(0)
    (path / "embeddings").mkdir()
    vectors = torch.randn(2, WIDTH, generator=generator)
    save(path / "embeddings/ugly.safetensors", {"emb_params": vectors}, {})
    save(path / "toy.safetensors", {"<toy>": -vectors}, {})
    save(path / "adapter.safetensors", _adapter(theirs.unet, generator), {})
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=16,
        intermediate_size=16,
        projection_dim=POOLED,
        num_hidden_layers=2,
        num_attention_heads=2,
        image_size=16,
        patch_size=4,
    )
    CLIPVisionModelWithProjection(config).save_pretrained(path / "image_encoder")
    pixels = np.random.default_rng(0).integers(0, 256, (20, 31, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path / "shown.png")
    control = ControlNetModel.from_unet(theirs.unet)
    for weight in control.parameters():
        weight.data += torch.randn(weight.shape, generator=generator) * 0.05
    control.save_pretrained(path / "control")
    return path


def _adapter(unet: UNet2DConditionModel, generator: torch.Generator) -> dict[str, torch.Tensor]:
    shapes: dict[str, tuple[int, ...]] = {
        "image_proj.proj.weight": (4 * WIDTH, POOLED),
        "image_proj.proj.bias": (4 * WIDTH,),
        "image_proj.norm.weight": (WIDTH,),
        "image_proj.norm.bias": (WIDTH,),
    }
    for number, name in enumerate(unet.attn_processors):
        if name.endswith("attn2.processor"):
            width = unet.get_submodule(name.removesuffix(".processor")).to_k.weight.shape[0]
            for kind in ("k", "v"):
                shapes[f"ip_adapter.{number}.to_{kind}_ip.weight"] = (width, WIDTH)
    return {n: torch.randn(s, generator=generator) * s[-1] ** -0.5 for n, s in shapes.items()}


@pytest.fixture
def here(files: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.chdir(files)
    monkeypatch.setattr(catalogue, "FAMILIES", (small("sd1", WIDTH),))
    return tmp_path


def _made(out: Path, prompt: str, *options: str) -> tuple[bytes, dict[str, object]]:
    common = ["--model", "sd1", "--size", "64", "--steps", "2", "--seed", "1", "--quiet"]
    code = cli.main(
        ["generate", prompt, *common, "--precision", "float32", "-o", str(out), *options]
    )
    assert code == 0
    with Image.open(out) as image:
        return image.tobytes(), json.loads(image.info["parameters"])


def test_from_the_command_line(here: Path) -> None:
    prompts = ["--image-prompt", "shown.png:0.6", "--ip-adapter", "adapter.safetensors"]
    options = [
        [],
        ["--negative", "embedding:ugly"],
        ["--negative", "(embedding:ugly:1.3)"],
        prompts,
        [*prompts, "--image-prompt", "shown.png"],
        ["--negative", "embedding:ugly", *prompts],
    ]
    made = [_made(here / f"{n}.png", "a fox", *option) for n, option in enumerate(options)]
    assert len({pixels for pixels, _ in made}) == len(options)
    assert made[1][1]["embeddings"] == ["ugly"] and "embeddings" not in made[0][1]
    assert made[4][1]["image_prompts"] == ["shown.png:0.6", "shown.png:1"]
    assert made[3][1]["ip_adapter"] == "adapter.safetensors"
    named = [*prompts, "--image-encoder", "image_encoder"]
    again, said = _made(here / "again.png", "a fox", *named)
    assert again == made[3][0] and said["image_encoder"] == "image_encoder"
    toy = _made(here / "toy.png", "a <toy>", "--embedding", "toy.safetensors")[0]
    named_so = _made(here / "own.png", "a beast", "--embedding", "toy.safetensors=beast")[0]
    assert toy == named_so and toy != _made(here / "no.png", "a beast")[0]


def test_python_steers_by_the_same_control_networks(here: Path) -> None:
    edges, soft = "control=shown.png,canny,strength=0.8", "control=shown.png,edges,to=0.5"
    pixels, said = _made(here / "a.png", "a fox", "--control", edges, "--control", soft)
    assert said["controls"] == [
        {"file": "control", "picture": "shown.png", "hint": "canny", "strength": 0.8},
        {"file": "control", "picture": "shown.png", "hint": "edges", "to": 0.5},
    ]
    maker = Maker.load("sd1", "cpu", precision="float32")
    told = {"seed": 1, "size": (64, 64), "steps": 2}
    made = maker.generate("a fox", controls=[edges, soft], **told)  # type: ignore[arg-type]
    assert made.tobytes() == pixels
    plain = maker.generate("a fox", **told)  # type: ignore[arg-type]
    assert plain.tobytes() != pixels
    with pytest.raises(RequestError, match="give FILE=PICTURE, and perhaps ,canny"):
        maker.generate("a fox", controls=["control="])
    with pytest.raises(RequestError, match="control is told what is painted over, and where"):
        maker.generate("a fox", controls=["control"])


def test_python_makes_the_same(here: Path) -> None:
    pixels, _ = _made(
        here / "a.png",
        "a beast",
        *("--embedding", "toy.safetensors=beast", "--image-prompt", "shown.png:0.6"),
        *("--ip-adapter", "adapter.safetensors"),
    )
    maker = Maker.load("sd1", "cpu", precision="float32")
    for shown in ("shown.png", Image.open("shown.png")):
        made = maker.generate(
            "a beast",
            seed=1,
            size=(64, 64),
            steps=2,
            embeddings={"beast": "toy.safetensors"},
            image_prompts=[(shown, 0.6)],
            ip_adapter="adapter.safetensors",
        )
        assert made.tobytes() == pixels
    with pytest.raises(ValueError, match="--size: 'broad' is no size: give N or WxH"):
        maker.generate("a", size="broad")
    with pytest.raises(RequestError, match="image prompts need the file"):
        maker.generate("a", image_prompts=[("shown.png", 1.0)])
    with pytest.raises(RequestError, match="are for pictures"):
        maker.generate("a", ip_adapter="adapter.safetensors")


def test_made_again_from_what_it_carries(
    here: Path, files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Adapters and embeddings too, given or named by a prompt; another file is an error."""
    (files / "loras").mkdir(exist_ok=True)
    generator, unit = (
        torch.Generator().manual_seed(3),
        "lora_unet_mid_block_resnets_0_time_emb_proj",
    )
    for name in ("loras/ink", "wash"):
        down, up = (torch.randn(s, generator=generator) for s in ((2, 128), (64, 2)))
        weights = {f"{unit}.lora_down.weight": down, f"{unit}.lora_up.weight": up}
        save(files / f"{name}.safetensors", weights, {})
    plain, _ = _made(here / "plain.png", "a beast")
    first, said = _made(
        here / "a.png",
        "{a|one} beast <lora:ink:0.7>",
        *("--negative", "embedding:ugly", "--embedding", f"{files}/toy.safetensors=beast"),
        *("--lora", f"{files}/wash.safetensors:0.3333333333333333", "--allow-partial"),
        *("--image-prompt", f"{files}/shown.png:0.6", "--ip-adapter", "adapter.safetensors"),
        *("--region", "0,0,0.5,1=a {fox|wolf}"),
    )
    carried = said["options"], said["files"]
    options, used = cast("tuple[dict[str, object], list[dict[str, str]]]", carried)
    assert first != plain and options["lora"] == ["wash.safetensors:0.3333333333333333"]
    assert {(file["option"], file["name"]) for file in used} == {
        ("model", "sd1"),
        ("lora", "wash.safetensors"),
        ("lora", "ink.safetensors"),
        ("embedding", "toy.safetensors"),
        ("embedding", "ugly.safetensors"),
        ("image-prompt", "shown.png"),
        ("ip-adapter", "adapter.safetensors"),
        ("image-encoder", "image_encoder"),
    }
    assert str(files).encode() not in (here / "a.png").read_bytes()
    wish = ["generate", "--from", str(here / "a.png"), "--quiet"]
    assert cli.main([*wish, "-o", str(here / "b.png")]) == 0
    with Image.open(here / "b.png") as again:
        assert again.tobytes() == first
    (files / "loras/ink.safetensors").write_bytes((files / "wash.safetensors").read_bytes())
    capsys.readouterr()
    assert cli.main([*wish, "-o", str(here / "c.png")]) == 2
    told = capsys.readouterr().err
    assert "ink.safetensors is not the ink.safetensors that made" in told
    assert told.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--image-prompt", "shown.png"], "--image-prompt needs --ip-adapter"),
        (["--ip-adapter", "adapter.safetensors"], "need --image-prompt"),
        (["--image-encoder", "image_encoder"], "need --image-prompt"),
        (["--negative", "embedding:ugli"], "no embedding 'ugli' in embeddings (nearest: ugly)"),
        (["--embedding", "toy.safetensors"], "no prompt says '<toy>'"),
        (["--embedding", "toy.safetensor=fox"], "no such file (nearest: toy.safetensors)"),
        (
            ["--image-prompt", "no.png", "--ip-adapter", "adapter.safetensors"],
            "no.png: no such file",
        ),
        (
            ["--image-prompt", "shown.png", "--ip-adapter", "toy.safetensors"],
            "toy.safetensors: is no IP-Adapter",
        ),
    ],
)
def test_errors_are_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    common = ["generate", "a fox", "--model", "sd1", "--size", "64", "--steps", "1"]
    assert cli.main([*common, "-o", str(here / "a.png"), *options]) == 2
    told = capsys.readouterr().err
    assert message in told and len(told.strip().splitlines()) == 1


def test_where_the_encoder_is(here: Path) -> None:
    assert encoder_of(Path("adapter.safetensors"), None) == Path("image_encoder")
    assert encoder_of(Path("adapter.safetensors"), Path("x")) == Path("x")
    with pytest.raises(UsageError, match="name a file or a folder with --image-encoder"):
        encoder_of(here / "adapter.safetensors", None)


def test_a_colon_in_a_pictures_name(here: Path) -> None:
    odd = here / "a:0.5"
    assert values.image_prompt(str(odd)) == (here / "a", 0.5)
    odd.touch()
    assert values.image_prompt(str(odd)) == (odd, 1.0)
    assert values.image_prompt("a:b.png") == (Path("a:b.png"), 1.0)
