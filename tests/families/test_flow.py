"""Stable Diffusion 3, 3.5 and FLUX.1, small: from prompt to picture, equal to `diffusers`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.transformers.transformer_flux import FluxTransformer2DModel
from diffusers.models.transformers.transformer_sd3 import SD3Transformer2DModel
from diffusers.pipelines.flux.pipeline_flux import FluxPipeline
from torch import Tensor
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTextModelWithProjection,
    T5EncoderModel,
)
from transformers import T5Config as TheirT5Config

import measured
from mezzotint.apps.cli import main
from mezzotint.checkpoints.files import CheckpointError, save
from mezzotint.checkpoints.keys import to_ours, to_theirs
from mezzotint.checkpoints.source import describe, open_folder
from mezzotint.diffusion.noise import batch
from mezzotint.diffusion.schedules import RectifiedFlow, resolution_shift
from mezzotint.engine.generate import generate
from mezzotint.engine.request import Guidance, Request, RequestError
from mezzotint.families import catalogue
from mezzotint.families.flow import ByTokens, Family, build, load, pack, scheduled, unpack
from mezzotint.families.flux1 import FLUX_DEV, FLUX_SCHNELL
from mezzotint.families.model import Model
from mezzotint.families.sd3 import SD3
from pipelines import FLOWS, FlowPipeline, flux, small_flow, stable_diffusion_3

SIZE = (32, 64)  # height and width: what exchanges them is seen


@pytest.fixture(scope="module", params=FLOWS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def theirs(name: str) -> FlowPipeline:
    pipeline = flux(name) if name.startswith("flux") else stable_diffusion_3(name)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


@pytest.fixture(scope="module")
def folder(name: str, theirs: FlowPipeline, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp(name) / "folder"
    theirs.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def ours(name: str, folder: Path) -> Model:
    return load(small_flow(name), folder)


def in_one_file(family: Family, folder: Path) -> dict[str, Tensor]:
    """The folder's weights in the original layout, by our tables backwards."""
    model, layout = load(family, folder), family.file
    state: dict[str, Tensor] = {"text_encoders.clip_l.logit_scale": torch.ones(())}
    for part, module in model.parts.items():
        weights = module.state_dict()
        if part in family.identity:
            del weights["projection.weight"]
        named = to_theirs(weights, layout.tables[part])
        state |= {layout.places[part] + name: value for name, value in named.items()}
    return state


def request(prompt: str = "a red fox, flat style", **more: Any) -> Request:
    return Request(prompt, (3,), **{"size": SIZE, **more})


def assert_same_picture(
    theirs: FlowPipeline, ours: Model, steps: int, scale: float, negative: str = ""
) -> None:
    """Within 1e-3, of the same noise, with the defaults of both."""
    height, width = SIZE
    latents = batch([3], "start", 0, (16, height // 8, width // 8))
    told: dict[str, Any] = {"guidance_scale": scale, "negative_prompt": negative or None}
    if isinstance(theirs, FluxPipeline):
        latents = pack(latents)
        if not theirs.transformer.config.guidance_embeds:
            told = {"true_cfg_scale": scale, "negative_prompt": negative}
        told["max_sequence_length"] = 512 if theirs.transformer.config.guidance_embeds else 256
    expected = theirs(
        "a red fox, flat style",
        height=height,
        width=width,
        num_inference_steps=steps,
        latents=latents,
        output_type="pt",
        **told,
    ).images[0]
    found = generate(ours, request(negative=negative, steps=steps, guidance=Guidance(scale)))[0]
    assert found.shape == (3, *SIZE)
    assert float(found.std()) > 0.01
    measured.close(found / 2 + 0.5, expected, 1e-3)


@pytest.mark.parity("text to image", "diffusers folder")
@pytest.mark.parametrize("steps", [1, 4, 20])
@pytest.mark.parametrize("scale", [1.0, 5.0])
def test_from_prompt_to_picture(
    name: str, theirs: FlowPipeline, ours: Model, steps: int, scale: float
) -> None:
    negative = "blue" if scale > 1 and name != "flux-dev" else ""
    assert_same_picture(theirs, ours, steps, scale, negative)


@pytest.mark.parity("text to image, other shifts of the flow", "diffusers folder")
@pytest.mark.parametrize(
    ("kin", "flow"),
    [
        ("flux-schnell", {"shift": 5.0}),
        ("flux-schnell", {"use_dynamic_shifting": True, "base_shift": 0.7, "max_shift": 2.0}),
        ("sd3", {"shift": 5.0}),
        ("sd3", {"use_dynamic_shifting": True}),
    ],
)
def test_a_folder_says_how_its_flow_is_shifted(
    kin: str, flow: dict[str, object], tmp_path: Path
) -> None:
    theirs = flux(kin, **flow) if kin.startswith("flux") else stable_diffusion_3(kin, **flow)
    theirs.set_progress_bar_config(disable=True)
    theirs.save_pretrained(tmp_path)
    said = open_folder(tmp_path).configs["scheduler"]
    family = scheduled(small_flow(kin), said, "")
    assert family.shift != FLOWS[kin].shift
    assert_same_picture(theirs, load(family, tmp_path), 4, 1.0)


def test_the_command_says_what_a_checkpoint_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(catalogue, "FAMILIES", (small_flow("sd3"),))
    stable_diffusion_3(t5=False).save_pretrained(tmp_path / "folder")
    capsys.readouterr()
    words = ["generate", "a fox", "--model", str(tmp_path / "folder"), "--steps", "1"]
    words += ["--device", "cpu", "--size", "64x32", "--output", str(tmp_path / "a.png")]
    assert main(words) == 0
    assert "there is no T5 text encoder in this checkpoint" in capsys.readouterr().err


@pytest.mark.parity("text to image without T5", "diffusers folder", family="sd3")
def test_without_t5_zeros_stand_for_it_and_the_model_says_so(tmp_path: Path) -> None:
    theirs = stable_diffusion_3(t5=False)
    theirs.set_progress_bar_config(disable=True)
    theirs.save_pretrained(tmp_path / "folder")
    ours = load(small_flow("sd3"), tmp_path / "folder")
    assert "t5" not in ours.parts
    assert any("T5" in note for note in ours.notes)
    assert_same_picture(theirs, ours, 4, 5.0, "blue")
    save(tmp_path / "model.safetensors", in_one_file(small_flow("sd3"), tmp_path / "folder"), {})
    file = load(small_flow("sd3"), tmp_path / "model.safetensors")
    assert file.notes == ours.notes
    assert torch.equal(generate(file, request(steps=1))[0], generate(ours, request(steps=1))[0])
    (tmp_path / "folder/text_encoder_3").mkdir()
    with pytest.raises(CheckpointError, match="has a text_encoder_3 that its model_index.json"):
        load(small_flow("sd3"), tmp_path / "folder")


def test_a_t5_that_is_named_must_be_there(tmp_path: Path) -> None:
    stable_diffusion_3().save_pretrained(tmp_path)
    assert load(small_flow("sd3"), tmp_path).notes == ()
    shutil.rmtree(tmp_path / "text_encoder_3")
    with pytest.raises(CheckpointError, match="has no text_encoder_3, the T5 text encoder"):
        load(small_flow("sd3"), tmp_path)


@pytest.mark.parity("text to image", "single file")
def test_models_are_known_by_their_path(
    name: str, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """File and folder, each told from its kin by the header, make one picture bit for bit."""
    monkeypatch.setattr(catalogue, "FAMILIES", tuple(small_flow(kin) for kin in FLOWS))
    file = tmp_path / "model.safetensors"
    save(file, in_one_file(small_flow(name), folder), {})
    models = [catalogue.load(str(path), "cpu") for path in (folder, file)]
    assert [model.name for model in models] == [name, name]
    pictures = [generate(model, request(steps=2))[0] for model in models]
    measured.same(*pictures)


def test_a_seed_never_knows_its_batch(ours: Model) -> None:
    wish = request(steps=2, guidance=Guidance(3.0))
    together = generate(ours, replace(wish, seeds=(1, 2, 3)))
    for seed, picture in zip((1, 2, 3), together, strict=True):
        assert torch.equal(generate(ours, replace(wish, seeds=(seed,)))[0], picture)


@torch.no_grad()
def test_a_long_prompt_is_read_whole(name: str, ours: Model) -> None:
    """CLIP reads it in chunks; beside a short one, nothing that fills this up is told."""
    prompts = ["a fox " * 50, "a fox"]
    told = ours.conditioner(prompts)
    assert told.context is not None and told.vector is not None
    wish = request(prompts[0], steps=1, guidance=Guidance(3.0))
    assert bool(generate(ours, wish)[0].isfinite().all())
    if not name.startswith("flux"):
        assert told.context.mask is not None
        assert told.context.mask.sum(dim=1).tolist() == [2 * 77 + 256, 77 + 256]
        x, time = torch.randn(2, 16, 4, 8), torch.tensor([500.0, 500.0])
        both = ours.call(x, time, told)
        for n, prompt in enumerate(prompts):
            alone = ours.call(x[n : n + 1], time[:1], ours.conditioner([prompt]))
            assert torch.equal(both[n : n + 1], alone)
    with pytest.raises(ValueError, match=r"tokens of T5, this model reads \d+: shorten it"):
        ours.conditioner(["a fox " * 300])


@pytest.mark.parametrize(
    "wish",
    [
        {"negative": "blue"},
        {"guidance": Guidance(interval=(0.1, 0.5))},
        {"guidance": Guidance(rescale=0.5)},
        {"guidance": Guidance(apg=True)},
        {"guidance": Guidance(cfg_zero_star=True)},
    ],
)
def test_a_distilled_network_reads_no_negative_prompt(wish: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match="flux-dev has its guidance distilled into it"):
        generate(build(small_flow("flux-dev")), request(**wish))


def test_blocks_can_be_left_out_and_attention_not_perturbed(ours: Model) -> None:
    plain = generate(ours, request(steps=1))[0]
    wish = Guidance(skip=frozenset({1}), skip_scale=2.0)
    assert not torch.equal(plain, generate(ours, request(steps=1, guidance=wish))[0])
    wish = Guidance(perturb=frozenset({1}), perturb_scale=2.0)
    with pytest.raises(ValueError, match="no attention to perturb"):
        generate(ours, request(steps=1, guidance=wish))


def test_pack_is_what_the_pipeline_has() -> None:
    x = torch.randn(2, 16, 6, 10)
    assert torch.equal(pack(x), FluxPipeline._pack_latents(x, 2, 16, 6, 10))
    assert torch.equal(unpack(pack(x), 3, 5), x)


def test_the_flow_is_shifted_by_the_size() -> None:
    with torch.device("meta"):
        dev, schnell, medium = (build(small_flow(n)) for n in ("flux-dev", "flux-schnell", "sd3"))
    assert dev.schedule == RectifiedFlow(resolution_shift(64 * 64))
    assert dev.schedule_of((256, 512)) == RectifiedFlow(resolution_shift(16 * 32))
    assert schnell.schedule_of((256, 512)) == RectifiedFlow(1.0)
    assert medium.schedule_of((256, 512)) == RectifiedFlow(3.0)


# --- what cannot be ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"shift": "x"}, "^a/b: shift is 'x': no number above 0$"),
        ({"shift": 0}, "shift is 0: no number above 0"),
        ({"shift": True}, "shift is True: no number above 0"),
        ({"shift": float("nan")}, "shift is nan: no number above 0"),
        ({"num_train_timesteps": 100}, "num_train_timesteps is 100; known is 1000"),
        ({"use_dynamic_shifting": "yes"}, "use_dynamic_shifting is 'yes': true or false"),
        ({"use_dynamic_shifting": True, "max_shift": []}, r"max_shift is \[\]: no number"),
        ({"use_dynamic_shifting": True, "max_image_seq_len": 9}, "max_image_seq_len is 9: not"),
        ({"time_shift_type": "linear"}, "time_shift_type is 'linear'; known is 'exponential'"),
        ({"use_karras_sigmas": True}, "use_karras_sigmas is True; known is False"),
        ({"shift_terminal": 0.1}, "shift_terminal is 0.1; known is None"),
        ({"invert_sigmas": True}, "invert_sigmas is True; known is False"),
        ({"prediction_type": "epsilon"}, "prediction_type is 'epsilon'; known is 'flow_pred"),
    ],
)
def test_what_a_scheduler_may_not_say(config: dict[str, object], message: str) -> None:
    with pytest.raises(CheckpointError, match=message) as caught:
        scheduled(SD3, config, "a/b")
    assert "\n" not in str(caught.value)


def test_a_scheduler_that_says_nothing_is_the_familys() -> None:
    for family in FLOWS.values():
        assert scheduled(family, {"_class_name": "any"}, "a/b") == family
    assert scheduled(FLUX_DEV, {"use_dynamic_shifting": False, "shift": 2}, "").shift == 2
    assert scheduled(SD3, {"use_dynamic_shifting": True}, "").shift == ByTokens()


def _gone(prefix: str) -> Callable[[dict[str, Tensor]], object]:
    def change(state: dict[str, Tensor]) -> None:
        for key in [key for key in state if key.startswith(prefix)]:
            del state[key]

    return change


def _bare(state: dict[str, Tensor]) -> None:
    """The transformer alone, as it was released."""
    prefix = "model.diffusion_model."
    found = {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
    state.clear()
    state.update(found)


ALL_TEXTS = "text_encoders.clip_l.transformer, text_encoders.t5xxl.transformer"


@pytest.fixture(scope="module")
def schnell(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Tensor]:
    path = tmp_path_factory.mktemp("schnell")
    flux("flux-schnell").save_pretrained(path)
    return in_one_file(small_flow("flux-schnell"), path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_bare, "is not whole, it lacks clip_l, t5, vae: give --part clip_l=FILE --part t5=FILE"),
        (_gone("text_encoders."), "is not whole, it lacks clip_l, t5: give --part clip_l=FILE"),
        (_gone("vae."), "is not whole, it lacks vae: give --part vae=FILE$"),
        (_gone("text_encoders.t5xxl"), "is not whole, it lacks t5: give --part t5=FILE$"),
        (lambda s: s.update(strange=torch.zeros(1)), "nothing of this family is called 'strange'"),
        (
            lambda s: s.update({"model.diffusion_model.odd.weight": torch.zeros(1)}),
            "network: unknown key 'odd.weight'",
        ),
        (lambda s: s.pop("vae.decoder.conv_in.bias"), "autoencoder: 1 key is missing"),
        (
            lambda s: s.update({"text_encoders.t5xxl.transformer.scaled_fp8": torch.zeros(1)}),
            "t5: unknown key 'scaled_fp8'",
        ),
    ],
)
def test_every_tensor_counts(
    change: Callable[[dict[str, Tensor]], object],
    message: str,
    schnell: dict[str, Tensor],
    tmp_path: Path,
) -> None:
    state = dict(schnell)
    change(state)
    path = tmp_path / "model.safetensors"
    save(path, state, {})
    with pytest.raises(CheckpointError, match=message) as caught:
        load(small_flow("flux-schnell"), path)
    assert "\n" not in str(caught.value)
    assert catalogue.family_of(path, describe(path)) == FLUX_SCHNELL


@pytest.mark.parametrize("name", ["sd3", "flux-schnell"], indirect=True)
def test_a_folders_own_tokenizer_is_read(name: str, folder: Path, tmp_path: Path) -> None:
    """Another word list gives other tokens; one that cannot be read is an error."""
    family = small_flow(name)
    shutil.copytree(folder, tmp_path / "copy")
    path = tmp_path / "copy" / family.t5.tokenizer / "tokenizer.json"
    own = json.loads(path.read_text("utf-8"))
    words = own["model"]["vocab"]
    first, second = (next(i for i, w in enumerate(words) if w[0] == t) for t in ("▁red", "▁blue"))
    words[first][0], words[second][0] = words[second][0], words[first][0]
    path.write_text(json.dumps(own), "utf-8")
    other = load(family, tmp_path / "copy").conditioner(["blue"]).context
    ours = load(family, folder)
    same, wrong = (ours.conditioner([text]).context for text in ("red", "blue"))
    assert other is not None and same is not None and wrong is not None
    count = family.t5.length
    assert torch.equal(other.values[:, -count:], same.values[:, -count:])
    assert not torch.equal(other.values[:, -count:], wrong.values[:, -count:])
    path.write_text("{", "utf-8")
    with pytest.raises(CheckpointError, match="tokenizer.json: is not a tokenizer: "):
        load(family, tmp_path / "copy")


# --- the sizes of the releases ----------------------------------------------------------------

_SD3 = {"sample_size": 128, "num_attention_heads": 24, "caption_projection_dim": 1536}
_SD3_DEEP = {**_SD3, "num_layers": 24, "pos_embed_max_size": 192}
_MEDIUM = {"pos_embed_max_size": 384, "dual_attention_layers": tuple(range(13))}
_LARGE = {"num_attention_heads": 38, "caption_projection_dim": 2432, "num_layers": 38}
_NORMED = {"qk_norm": "rms_norm"}
TRANSFORMERS: dict[str, Callable[[], torch.nn.Module]] = {
    "sd3": lambda: SD3Transformer2DModel(**_SD3_DEEP),
    "sd35-medium": lambda: SD3Transformer2DModel(**{**_SD3_DEEP, **_MEDIUM, **_NORMED}),
    "sd35-large": lambda: SD3Transformer2DModel(**{**_SD3_DEEP, **_LARGE, **_NORMED}),
    "flux-dev": lambda: FluxTransformer2DModel(guidance_embeds=True),
    "flux-schnell": lambda: FluxTransformer2DModel(guidance_embeds=False),
}


@pytest.mark.parametrize("name", FLOWS)
def test_true_sizes(name: str) -> None:
    """Every tensor of the released networks, as their configurations make them, has its place."""
    family = FLOWS[name]
    clip = CLIPTextConfig(
        vocab_size=49_408, num_hidden_layers=12, hidden_size=768, intermediate_size=3072,
        projection_dim=768,
    )  # fmt: skip
    wide = CLIPTextConfig(
        vocab_size=49_408, num_hidden_layers=32, hidden_size=1280, intermediate_size=5120,
        projection_dim=1280,
    )  # fmt: skip
    t5 = TheirT5Config(
        d_model=4096, d_ff=10_240, num_layers=24, num_heads=64, feed_forward_proj="gated-gelu"
    )
    with torch.device("meta"):
        ours = build(family)
        theirs = {
            "network": TRANSFORMERS[name](),
            "text": CLIPTextModel(clip),
            "t5": T5EncoderModel(t5),
            "autoencoder": AutoencoderKL(
                latent_channels=16,
                layers_per_block=2,
                block_out_channels=(128, 256, 512, 512),
                down_block_types=("DownEncoderBlock2D",) * 4,
                up_block_types=("UpDecoderBlock2D",) * 4,
                use_quant_conv=False,
                use_post_quant_conv=False,
            ),
        }
        if "text2" in family.texts:
            theirs["text"] = CLIPTextModelWithProjection(clip)
            theirs["text2"] = CLIPTextModelWithProjection(wide)
    assert theirs.keys() == ours.parts.keys()
    for part, module in theirs.items():
        wanted = ours.parts[part].state_dict()
        found = to_ours(module.state_dict(), family.folder.tables[part], wanted)
        assert {n: t.shape for n, t in found.items()} == {n: t.shape for n, t in wanted.items()}
