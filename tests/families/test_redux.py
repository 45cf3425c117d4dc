"""FLUX.1 Redux: pictures equal to `diffusers`, from a file and a folder; several pictures."""

from __future__ import annotations

import json
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from diffusers.pipelines.flux.modeling_flux import ReduxImageEncoder
from diffusers.pipelines.flux.pipeline_flux_controlnet import FluxControlNetPipeline
from diffusers.pipelines.flux.pipeline_flux_fill import FluxFillPipeline
from diffusers.pipelines.flux.pipeline_flux_prior_redux import FluxPriorReduxPipeline
from PIL import Image
from test_controls_flow import flux_control
from torch import Tensor
from transformers import SiglipVisionConfig, SiglipVisionModel
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

import measured
from mezzotint.adapters.embedder import Embedder, blended
from mezzotint.apps import image_prompts as front
from mezzotint.apps.cli import main
from mezzotint.apps.python import Maker
from mezzotint.checkpoints.files import CheckpointError, save
from mezzotint.checkpoints.files import load as load_file
from mezzotint.checkpoints.inspect import inspect
from mezzotint.diffusion.noise import batch
from mezzotint.engine.generate import generate
from mezzotint.engine.image_prompts import open_image_adapter, prepared
from mezzotint.engine.request import (
    Control,
    Guidance,
    ImagePrompt,
    Known,
    Request,
    RequestError,
)
from mezzotint.families import catalogue, controls
from mezzotint.families.flow import load, pack
from mezzotint.families.image_encoder import load_encoder
from mezzotint.families.ldm import load as load_ldm
from mezzotint.families.model import Model
from mezzotint.networks.siglip import SiglipConfig
from pipelines import flux, small, small_flow, stable_diffusion, stable_diffusion_3
from variants import flow_pipeline, ragged, small_flow_variant
from variants import picture as pixels

CPU = torch.device("cpu")
SIZE = (32, 64)
FOX = "a red fox, flat style"
TASK = "image prompt (Redux)"
SEEN = SiglipConfig(18, 4, 32, 2, 4, 40)


def picture(seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (20, 31, 3), dtype=np.uint8)
    return Image.fromarray(values)


def _prior(base: Any) -> Any:
    """The prior of a small pipeline."""
    torch.manual_seed(1)
    config = SiglipVisionConfig(
        hidden_size=SEEN.width,
        intermediate_size=SEEN.hidden,
        num_hidden_layers=SEEN.depth,
        num_attention_heads=SEEN.heads,
        image_size=SEEN.size,
        patch_size=SEEN.patch,
    )
    parts = {
        name: part for name, part in base.components.items() if "text" in name or "tok" in name
    }
    return FluxPriorReduxPipeline(
        image_encoder=SiglipVisionModel(config).eval(),
        feature_extractor=SiglipImageProcessorPil(size={"height": SEEN.size, "width": SEEN.size}),
        image_embedder=ReduxImageEncoder(SEEN.width, 24),
        **parts,
    )


class Ready:
    """Pipelines of theirs, our model of the same weights, and Redux in all its layouts."""

    def __init__(self, path: Path, base: Any, model: Model) -> None:
        self.base, self.model, self.path = base, model, path
        base.set_progress_bar_config(disable=True)
        self.prior = _prior(base)
        own = ("image_encoder", "feature_extractor", "image_embedder")  # all that the release has
        alone = {name: self.prior.components[name] for name in own}
        FluxPriorReduxPipeline(**alone).save_pretrained(path / "redux")
        embedder = path / "redux/image_embedder/diffusion_pytorch_model.safetensors"
        save(path / "redux.safetensors", load_file(embedder)[0], {})

    def shown(self, strength: float = 1.0, seed: int = 0, at: str = "redux") -> ImagePrompt:
        encoder = load_encoder(self.path / "redux/image_encoder", torch.float32, CPU)
        adapter = open_image_adapter(self.model, self.path / at)
        ready = encoder.ready(picture(seed), encoder.network.config.size)
        return prepared(adapter, encoder, ready, "picture", strength)

    def told(self, prompt: str, strengths: list[float] | None = None) -> dict[str, Tensor]:
        scales = {f"{kind}_embeds_scale": strengths or 1.0 for kind in ("prompt", "pooled_prompt")}
        images = [picture(seed) for seed in range(len(strengths or [1]))]
        prompts = [prompt] * len(images)
        return dict(self.prior(images, prompt=prompts, **scales))


@pytest.fixture(scope="module")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Ready:
    path, base = tmp_path_factory.mktemp("redux"), flux("flux-dev")
    base.save_pretrained(path / "model")
    return Ready(path, base, load(small_flow("flux-dev"), path / "model"))


def asked(*prompts: ImagePrompt, prompt: str = FOX, steps: int = 2, **more: Any) -> Request:
    wish = {"size": SIZE, "guidance": Guidance(3.5), **more}
    return Request(prompt, (3,), steps=steps, image_prompts=prompts, **wish)


def _noise(size: tuple[int, int] = SIZE) -> Tensor:
    return pack(batch([3], "start", 0, (16, size[0] // 8, size[1] // 8)))


def _expected(base: Any, steps: int, **told: Any) -> Tensor:
    return base(
        height=SIZE[0],
        width=SIZE[1],
        num_inference_steps=steps,
        latents=_noise(),
        output_type="pt",
        **{"guidance_scale": 3.5, **told},
    ).images[0]


@pytest.mark.parity(TASK, "diffusers folder", family="flux-dev")
@pytest.mark.parametrize("steps", [1, 4])
@pytest.mark.parametrize("prompt", [FOX, ""])
def test_one_picture_equals_diffusers(ready: Ready, prompt: str, steps: int) -> None:
    request = asked(ready.shown(), prompt=prompt, steps=steps)
    ours = generate(ready.model, request)[0]
    plain = generate(ready.model, replace(request, image_prompts=()))[0]
    assert (ours - plain).abs().max() > 1e-2  # the picture does something
    expected = _expected(ready.base, steps, **ready.told(prompt))
    measured.close(ours / 2 + 0.5, expected, 1e-3)


@pytest.mark.parity(TASK, "diffusers folder", family="flux-dev")
@pytest.mark.parametrize("strengths", [(0.7, 0.3), (0.2, 0.5, 0.3)])
def test_several_pictures_equal_diffusers(ready: Ready, strengths: tuple[float, ...]) -> None:
    """Where their strengths are 1 together, so that `diffusers` leaves the text as it is."""
    prompts = [ready.shown(strength, seed) for seed, strength in enumerate(strengths)]
    ours = generate(ready.model, asked(*prompts))[0]
    expected = _expected(ready.base, 2, **ready.told(FOX, list(strengths)))
    measured.close(ours / 2 + 0.5, expected, 1e-3)


@pytest.mark.parity(TASK, "diffusers folder", family="flux-dev")
def test_a_weaker_picture_leaves_the_text_as_it_is(ready: Ready) -> None:
    ours = generate(ready.model, asked(ready.shown(0.4)))[0]
    whole = ready.told(FOX)
    whole["prompt_embeds"][:, 512:] *= 0.4
    measured.close(ours / 2 + 0.5, _expected(ready.base, 2, **whole), 1e-3)


@pytest.mark.parity(TASK, "single file", family="flux-dev")
@pytest.mark.parametrize("at", ["redux.safetensors", "redux/image_embedder"])
def test_every_layout_makes_the_same_picture(ready: Ready, at: str) -> None:
    there = generate(ready.model, asked(ready.shown()))[0]
    measured.same(generate(ready.model, asked(ready.shown(at=at)))[0], there)


@pytest.mark.parity(TASK, "diffusers folder", family="flux-schnell")
def test_a_negative_prompt_is_told_no_picture(tmp_path: Path) -> None:
    base = flux("flux-schnell")
    base.save_pretrained(tmp_path / "model")
    ready = Ready(tmp_path, base, load(small_flow("flux-schnell"), tmp_path / "model"))
    embeds, pooled, _ = base.encode_prompt(FOX, None, max_sequence_length=256)
    features = ready.prior.encode_image([picture()], CPU, 1)
    with torch.no_grad():
        tokens = ready.prior.image_embedder(features).image_embeds
    expected = _expected(
        base,
        2,
        prompt_embeds=torch.cat([embeds, tokens], dim=1).detach(),
        pooled_prompt_embeds=pooled.detach(),
        negative_prompt="blue",
        true_cfg_scale=4.0,
        max_sequence_length=256,
    )
    request = asked(ready.shown(), guidance=Guidance(4.0), negative="blue")
    measured.close(generate(ready.model, request)[0] / 2 + 0.5, expected, 1e-3)


@pytest.mark.parity(TASK, "diffusers folder", family="flux-fill")
def test_beside_a_mask(tmp_path: Path) -> None:
    """Fill is told the picture that it paints over, and another one by Redux."""
    base = flow_pipeline("flux-fill")
    assert isinstance(base, FluxFillPipeline)
    base.save_pretrained(tmp_path / "model")
    ready = Ready(tmp_path, base, load(small_flow_variant("flux-fill"), tmp_path / "model"))
    expected = _expected(
        base,
        2,
        image=pixels(*SIZE)[None] / 2 + 0.5,
        mask_image=ragged(*SIZE)[None],
        strength=1.0,
        **ready.told(FOX),
    )
    request = asked(ready.shown(), known=Known(pixels(*SIZE), ragged(*SIZE)))
    ours, new = generate(ready.model, request)[0], ragged(*SIZE)
    measured.close((ours / 2 + 0.5) * new, expected * new, 1e-3)


@pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning")
@pytest.mark.parity(TASK, "diffusers folder", family="flux-dev")
def test_a_control_network_is_told_the_picture_too(ready: Ready, tmp_path: Path) -> None:
    used = flux_control("XLabs")
    used.save_pretrained(tmp_path / "control")
    hint = pixels(*SIZE)
    network = controls.load(ready.model, tmp_path / "control")
    request = asked(ready.shown(), controls=(Control(network, hint, 0.6),))
    parts = dict(ready.base.components, controlnet=used)
    del parts["image_encoder"], parts["feature_extractor"]
    base = FluxControlNetPipeline(**parts)
    base.set_progress_bar_config(disable=True)
    told = {"control_image": hint[None], "controlnet_conditioning_scale": 0.6}
    expected = _expected(base, 2, **told, **ready.told(FOX))
    ours = generate(ready.model, request)[0]
    plain = generate(ready.model, replace(request, controls=()))[0]
    assert (ours - plain).abs().max() > 1e-2
    measured.close(ours / 2 + 0.5, expected, 1e-3)


def test_pictures_share_where_their_strengths_are_more_than_one() -> None:
    one, two = torch.randn(2, 1, 5, 4)
    assert torch.equal(blended([(one, 1.0)]), one)  # type: ignore[arg-type]
    assert torch.allclose(blended([(one, 1.0), (two, 1.0)]), (one + two) / 2)  # type: ignore[arg-type]
    assert torch.allclose(blended([(one, 0.5), (two, 0.0)]), one / 2)  # type: ignore[arg-type]
    assert blended([(one, 0.0)]) is None and blended([]) is None


def test_strength_zero_is_without_it_and_seeds_stay_apart(ready: Ready) -> None:
    plain = generate(ready.model, asked())[0]
    assert torch.equal(generate(ready.model, asked(ready.shown(0.0)))[0], plain)
    request = replace(asked(ready.shown()), seeds=(7, 3))
    alone = generate(ready.model, asked(ready.shown()))[0]
    assert torch.equal(generate(ready.model, request)[1], alone)


# --- from the command line ---------------------------------------------------------------------


@pytest.fixture
def here(ready: Ready, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(ready.path)
    monkeypatch.setattr(catalogue, "FAMILIES", (small_flow("flux-dev"),))
    for seed in range(2):
        picture(seed).save(f"{seed}.png")
    return ready.path


def test_the_command_and_python_make_the_same(
    here: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also where weights are read when they are used, within a limit of memory."""
    common = ["generate", FOX, "--model", "model", "--size", "64x32", "--steps", "2", "--seed", "3"]
    common += ["--device", "cpu", "--precision", "float32"]
    shown = ["--image-prompt", "0.png:0.6", "--image-prompt", "1.png:0.3", "--ip-adapter"]
    made = []
    for number, more in enumerate(
        (
            ["redux"],
            ["redux.safetensors", "--image-encoder", "redux/image_encoder"],
            ["redux/image_embedder", "--memory", "900GB"],
        )
    ):
        path = tmp_path / f"{number}.png"
        assert main([*common, *shown, *more, "-o", str(path)]) == 0, capsys.readouterr().err
        with Image.open(path) as image:
            made.append(image.tobytes())
            said = json.loads(image.info["parameters"])
    assert made[0] == made[1] == made[2]
    assert said["image_prompts"] == ["0.png:0.6", "1.png:0.3"]
    assert said["ip_adapter"] == "image_embedder"
    maker = Maker.load("model", "cpu", precision="float32")
    prompts = [(Image.open("0.png"), 0.6), ("1.png", 0.3)]
    again = maker.generate(
        FOX, seed=3, size=SIZE, steps=2, image_prompts=prompts, ip_adapter="redux"
    )
    assert again.tobytes() == made[0]


def test_the_encoder_leaves_after_use(
    ready: Ready, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And so does the embedder: of a picture only its tokens stay."""
    left: list[weakref.ref[Any]] = []

    def seen(load: Any) -> Any:
        def wrapped(*args: Any) -> Any:
            found = load(*args)
            left.append(weakref.ref(found.network))
            return found

        return wrapped

    monkeypatch.setattr(front, "load_encoder", seen(load_encoder))
    monkeypatch.setattr(front, "open_image_adapter", seen(open_image_adapter))
    (prompt,) = front.image_prompts(ready.model, Path("redux"), None, [("0.png", 1.0)])
    assert len(left) == 2 and not any(ref() for ref in left)
    assert torch.equal(prompt.tokens, ready.shown().tokens)


@pytest.mark.parametrize("command", [["generate", "", "--model"], ["convert"]])
@pytest.mark.parametrize(
    ("at", "message"),
    [
        (
            "redux.safetensors",
            "is Redux for FLUX.1 (makes prompts of pictures), no model by itself",
        ),
        ("redux", "is Redux for FLUX.1 (makes prompts of pictures), no model by itself"),
        ("redux/image_embedder", "with --ip-adapter"),
        ("redux/image_encoder", "is image encoder SigLIP, no model by itself: give `generate` a"),
    ],
)
def test_it_is_no_model_by_itself(
    here: Path, capsys: pytest.CaptureFixture[str], command: list[str], at: str, message: str
) -> None:
    more = ["x.safetensors"] if command == ["convert"] else []
    assert main([*command, at, *more]) == 2
    told = capsys.readouterr().err
    assert message in told and len(told.strip().splitlines()) == 1


def test_inspect_says_what_they_are(ready: Ready) -> None:
    kinds = {
        "redux.safetensors": "Redux for FLUX.1 (makes prompts of pictures)",
        "redux/image_embedder": "Redux for FLUX.1 (makes prompts of pictures)",
        "redux/image_encoder": "image encoder SigLIP",
        "redux": "FluxPriorReduxPipeline",
    }
    assert {at: inspect(ready.path / at).kind for at in kinds} == kinds
    told = dict(inspect(ready.path / "redux").details)
    assert told["image_embedder"].startswith("Redux for FLUX.1")
    assert told["image_encoder"].startswith("image encoder SigLIP")


# --- what does not fit -------------------------------------------------------------------------


def test_keys_are_strict(ready: Ready, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    good = load_file(ready.path / "redux.safetensors")[0]

    def refused(change: dict[str, Tensor | None], message: str) -> None:
        state = {name: t for name, t in (good | change).items() if t is not None}
        save(path, state, {})
        with pytest.raises(CheckpointError, match=f"a.safetensors: .*{message}") as caught:
            open_image_adapter(ready.model, path)
        assert "\n" not in str(caught.value)

    up, bias = good["redux_up.weight"], "redux_down.bias"
    refused({"redux_out.bias": torch.ones(1)}, r"unknown key 'redux_out.bias' \(nearest: redux_")
    refused({bias: None}, "1 key is missing, the first for 'down.bias'")
    refused({bias: torch.ones(3)}, "shape")
    refused({bias: good[bias] * float("nan")}, "not finite")
    refused({"redux_up.weight": up[:, :, None].clone()}, r"shape \(72, 32, 1\): no matrix")
    refused({"redux_up.weight": up[:60].clone()}, "of width 20 and this model attends to 24")


def test_other_models_and_encoders_are_named(ready: Ready, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save(path, {"ip_adapter.1.to_k_ip.weight": torch.ones(2, 2)}, {})
    with pytest.raises(
        CheckpointError, match="is IP-Adapter, and flux-dev is told pictures by Red"
    ):
        open_image_adapter(ready.model, path)
    stable_diffusion().save_pretrained(tmp_path / "sd1")
    sd1 = load_ldm(small("sd1"), tmp_path / "sd1")
    for place in ("redux", "redux.safetensors"):
        with pytest.raises(CheckpointError, match="is Redux for FLUX.*, and sd1 .* by IP-Adapter"):
            open_image_adapter(sd1, ready.path / place)
    with pytest.raises(RequestError, match="sd1 takes no such image prompts"):
        generate(sd1, Request("", (1,), image_prompts=(ready.shown(),)))
    stable_diffusion_3().save_pretrained(tmp_path / "sd3")
    sd3 = load(small_flow("sd3"), tmp_path / "sd3")
    with pytest.raises(CheckpointError, match="redux: the model 'sd3' takes no image prompts"):
        open_image_adapter(sd3, ready.path / "redux")
    prompt, adapter = ready.shown(), open_image_adapter(ready.model, ready.path / "redux")
    assert isinstance(adapter, Embedder)
    encoder = load_encoder(ready.path / "redux/image_encoder", torch.float32, CPU)
    with pytest.raises(RequestError, match=r"of width 1152 \(SigLIP so400m/14 .*\), .* gives 32"):
        prepared(replace(adapter, image=1152), encoder, torch.zeros(3, 18, 18), "a", 1.0)
    for change, message in (
        (
            {"tokens": prompt.tokens[..., :3]},
            r"has tokens of shape .*, flux-dev takes \(1, N, 24\)",
        ),
        ({"strength": float("nan")}, "is no number"),
        ({"strength": 1.5}, r"the strength of 'picture' is 1.5; .* it lies in 0…1"),
        ({"strength": -0.5}, "is -0.5"),
    ):
        with pytest.raises(RequestError, match=message):
            generate(ready.model, asked(prompt._replace(**change)))
    other = prompt._replace(tokens=prompt.tokens[:, 1:])
    with pytest.raises(RequestError, match="of different encoders cannot be blended"):
        generate(ready.model, asked(prompt, other))
