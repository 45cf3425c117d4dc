"""Prompts as users write them, and adapters, from the words to the picture, on a small SD1."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from mezzotint.adapters.deltas import DeltaError
from mezzotint.apps import cli
from mezzotint.apps.errors import UsageError
from mezzotint.apps.named import Adapters, decided
from mezzotint.checkpoints.files import CheckpointError, save
from mezzotint.checkpoints.keys import to_theirs
from mezzotint.diffusion.noise import batch
from mezzotint.engine.attach import open_adapter
from mezzotint.engine.generate import generate
from mezzotint.engine.prompts import PromptError
from mezzotint.engine.request import Attached, Guidance, Progress, Request, RequestError
from mezzotint.families.catalogue import PACKAGED
from mezzotint.families.flow import load as load_flow
from mezzotint.families.ldm import load
from mezzotint.families.model import Model
from pipelines import Pipeline, flux, small, small_flow, stable_diffusion, stable_diffusion_3

STEPS = 4


@pytest.fixture(scope="module")
def theirs() -> Pipeline:
    made = stable_diffusion()
    made.set_progress_bar_config(disable=True)
    return made


@pytest.fixture(scope="module")
def model(theirs: Pipeline, tmp_path_factory: pytest.TempPathFactory) -> Model:
    path = tmp_path_factory.mktemp("sd1") / "folder"
    theirs.save_pretrained(path)
    return load(small("sd1"), path)


def wish(prompt: str, **more: object) -> Request:
    return replace(
        Request(prompt, (3,), size=(64, 64), steps=STEPS, guidance=Guidance(3.0)),
        **more,  # type: ignore[arg-type]
    )


def drawn(model: Model, prompt: str, **more: object) -> Tensor:
    return generate(model, wish(prompt, **more))[0]


def walked(model: Model, prompt: str, **more: object) -> list[Tensor]:
    """What is believed after each step."""
    seen: list[Tensor] = []

    def listen(told: Progress) -> None:
        seen.append(told.preview())

    generate(model, wish(prompt, **more), listen)
    return seen


# --- weights ----------------------------------------------------------------------------------


@torch.inference_mode()
def test_weights_lead_away_from_the_empty_prompt(model: Model, theirs: Pipeline) -> None:
    """``empty + w (features − empty)``, token by token, by the encoder of transformers."""
    assert model.weighted is not None
    told = model.weighted([[("a ", 1.0), ("fox", 1.3), (" in snow", 0.0)]])

    def features(text: str) -> Tensor:
        ids = theirs.tokenizer(text, padding="max_length", return_tensors="pt").input_ids
        return theirs.text_encoder(ids).last_hidden_state[0]

    full, empty = features("a fox in snow"), features("")
    weights = torch.ones(77, 1)
    weights[2], weights[3:5] = 1.3, 0.0  # start, a, fox, in, snow, end
    assert told.context is not None
    torch.testing.assert_close(
        told.context.values[0], empty + weights * (full - empty), atol=1e-5, rtol=1e-5
    )


def test_weight_one_is_off(model: Model) -> None:
    plain = drawn(model, "a red fox, flat")
    assert torch.equal(drawn(model, "a (red fox:1), flat"), plain)
    assert not torch.equal(drawn(model, r"a red \(fox\), flat"), plain)  # brackets to be read
    assert not torch.equal(drawn(model, "a (red fox), flat"), plain)
    assert torch.equal(
        drawn(model, "a fox", negative="(blue:1)"), drawn(model, "a fox", negative="blue")
    )
    assert not torch.equal(
        drawn(model, "a fox", negative="(blue:1.5)"), drawn(model, "a fox", negative="blue")
    )


@torch.inference_mode()
def test_a_break_begins_a_chunk(model: Model) -> None:
    assert model.weighted is not None
    told = model.weighted([[("a fox", 1.0)], [("snow", 1.0)]]).context
    alone = model.conditioner(["a fox"]).context
    assert told is not None and alone is not None
    assert told.values.shape[1] == 2 * 77
    torch.testing.assert_close(told.values[:, :77], alone.values)
    drawn(model, "a fox BREAK snow", negative="blue")


@pytest.mark.parametrize("name", ["sd3", "flux-schnell"])
def test_families_of_flow_read_weights_too(name: str, tmp_path: Path) -> None:
    pipeline = flux(name) if name.startswith("flux") else stable_diffusion_3(name)
    pipeline.save_pretrained(tmp_path / "a")
    model = load_flow(small_flow(name), tmp_path / "a")
    assert model.weighted is not None
    with torch.inference_mode():
        plain = model.conditioner(["a fox"]).context
        empty = model.conditioner([""]).context
        strong = model.weighted([[("a fox", 1.5)]]).context
        same = model.weighted([[("a fox", 1.0)]]).context
    assert plain is not None and empty is not None and strong is not None and same is not None
    assert torch.equal(same.values, plain.values)
    moved = (strong.values - plain.values)[0].abs().amax(dim=1) > 0
    t5 = strong.values.shape[1] - small_flow(name).t5.length
    words = [t5 + n for n in range(3)]  # "a", "fox" and perhaps a space, of T5
    assert moved[words[0]] and not moved[t5 + 10 :].any()
    led = empty.values + 1.5 * (plain.values - empty.values)
    torch.testing.assert_close(strong.values[0, words[0]], led[0, words[0]])
    assert bool(drawn(model, "[a (fox:1.2):wolf:0.5]").isfinite().all())


# --- from step to step ------------------------------------------------------------------------


@pytest.mark.parametrize("sampler", ["ddim", "dpmpp_2m", "euler_ancestral"])
def test_a_prompt_changes_at_its_step(model: Model, sampler: str) -> None:
    fox, wolf = (walked(model, name, sampler=sampler) for name in ("fox", "wolf"))
    changed = walked(model, "[fox:wolf:0.5]", sampler=sampler)
    assert torch.equal(changed[0], fox[0]) and torch.equal(changed[1], fox[1])
    assert not torch.equal(changed[2], fox[2])
    assert not torch.equal(changed[3], wolf[3])
    for prompt, same in (("[fox:wolf:4]", fox), ("[fox:wolf:0]", wolf), ("[fox|fox]", fox)):
        found = walked(model, prompt, sampler=sampler)
        assert all(torch.equal(a, b) for a, b in zip(found, same, strict=True))
    assert torch.equal(walked(model, "[fox|wolf]", sampler=sampler)[0], fox[0])


def test_the_negative_prompt_changes_too_and_under_every_guidance(model: Model) -> None:
    plain = walked(model, "fox", negative="blue", guidance=Guidance(3.0, apg=True))
    changed = walked(model, "fox", negative="[blue:red:2]", guidance=Guidance(3.0, apg=True))
    assert torch.equal(plain[1], changed[1]) and not torch.equal(plain[2], changed[2])


def test_seeds_of_a_batch_are_what_they_are_alone(model: Model) -> None:
    prompt = "a [(fox:1.2):wolf:0.5] BREAK [snow|rain]"
    together = generate(model, wish(prompt, seeds=(1, 2, 3)))
    for seed, picture in zip((1, 2, 3), together, strict=True):
        assert torch.equal(drawn(model, prompt, seeds=(seed,)), picture)


def test_what_cannot_be_read_is_an_error(model: Model) -> None:
    with pytest.raises(PromptError, match="is not closed"):
        drawn(model, "a (fox")
    with pytest.raises(RequestError, match="asks for <lora:ink>, which is not there"):
        drawn(model, "a fox <lora:ink>")
    with pytest.raises(RequestError, match="ask for it in the prompt only"):
        drawn(model, "a fox", negative="<lora:ink>")


def test_choices_by_the_seed(tmp_path: Path) -> None:
    (tmp_path / "animal.txt").write_text("fox\n\nwolf\n", "utf-8")
    made = {decided("{red|blue} __animal__", seed, tmp_path) for seed in range(40)}
    assert made == {"red fox", "red wolf", "blue fox", "blue wolf"}
    for name in ("plant", "/etc/passwd"):
        with pytest.raises(UsageError, match=f"the wildcard __{name}__ needs a file"):
            decided(f"__{name}__", 0, tmp_path)
    assert decided("__../animal__", 0, tmp_path / "x") == "__../animal__"  # dots name nothing
    (tmp_path / "marked.txt").write_bytes("\ufeffhen\r\n".encode())
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep/small_cat.txt").write_text("cat", "utf-8")
    assert decided("__marked__ __deep/small_cat__", 0, tmp_path) == "hen cat"
    (tmp_path / "latin.txt").write_bytes("bär".encode("latin-1"))
    with pytest.raises(UsageError, match=r"latin.txt: is no text in UTF-8"):
        decided("__latin__", 0, tmp_path)
    with pytest.raises(UsageError, match="the wildcard __deep__ needs a file"):
        decided("__deep__", 0, tmp_path)


# --- adapters ---------------------------------------------------------------------------------


def deltas(model: Model, style: str) -> dict[str, Tensor]:
    """A LoRA of rank 2 on all attention of the U-Net and of the text encoder, in a key style."""
    torch.manual_seed(1)
    down, up = {
        "kohya": (".lora_down.weight", ".lora_up.weight"),
        "peft": (".lora_A.weight", ".lora_B.weight"),
        "diffusers": (".lora.down.weight", ".lora.up.weight"),
    }[style]
    family = small("sd1")
    state: dict[str, Tensor] = {}
    for part, kohya, dotted in (
        ("network", "lora_unet_", "unet."),
        ("text", "lora_te_", "text_encoder."),
    ):
        named = to_theirs(model.parts[part].state_dict(), family.folder.tables[part])
        for name, weight in named.items():
            module = name.removesuffix(".weight")
            if not module.endswith(("to_q", "to_k", "to_v", "to_out.0", "q_proj", "v_proj")):
                continue
            key = kohya + module.replace(".", "_") if style == "kohya" else dotted + module
            state[key + down] = torch.randn(2, weight.shape[1])
            state[key + up] = torch.randn(len(weight), 2) * 0.2
    return state


def bits(model: Model) -> dict[str, Tensor]:
    return {
        f"{part}.{name}": value.clone()
        for part, module in model.parts.items()
        for name, value in module.state_dict().items()
    }


def test_every_key_style_makes_diffusers_picture(
    model: Model, theirs: Pipeline, tmp_path: Path
) -> None:
    """n of n keys apply, and afterwards nothing is left of them."""
    plain, before = drawn(model, "a fox"), bits(model)
    made: list[Tensor] = []
    for style in ("kohya", "peft", "diffusers"):
        state = deltas(model, style)
        save(tmp_path / f"{style}.safetensors", state, {})
        adapter = open_adapter(model, tmp_path / f"{style}.safetensors")
        assert len(adapter.fitted) == len(state) // 2 and not adapter.left_out
        worn = (Attached(style, adapter.fitted, 0.7),)
        made.append(drawn(model, f"a fox <lora:{style}:0.7>", adapters=worn))
        assert torch.equal(drawn(model, "a fox"), plain)
    assert torch.equal(made[0], made[1]) and torch.equal(made[1], made[2])
    assert float((made[0] - plain).abs().max()) > 1e-3
    assert all(torch.equal(before[name], value) for name, value in bits(model).items())
    theirs.load_lora_weights(deltas(model, "peft"), adapter_name="x")
    theirs.set_adapters("x", 0.7)
    expected = theirs(
        "a fox",
        height=64,
        width=64,
        num_inference_steps=STEPS,
        guidance_scale=3.0,
        latents=batch([3], "start", 0, (4, 8, 8)),
        output_type="pt",
    ).images[0]
    theirs.unload_lora_weights()
    worn = (Attached("x", open_adapter(model, tmp_path / "peft.safetensors").fitted, 0.7),)
    found = drawn(model, "a fox", adapters=worn, sampler="ddim", spacing="trailing")
    assert float((found / 2 + 0.5 - expected).abs().max()) < 1e-3


def test_what_does_not_fit_says_so(model: Model, tmp_path: Path) -> None:
    state, path = deltas(model, "kohya"), tmp_path / "a.safetensors"
    key = next(iter(state)).split(".")[0]
    renamed = {name.replace(key, key.replace("to_q", "to_x")): t for name, t in state.items()}
    save(path, renamed, {})
    with pytest.raises(CheckpointError, match=r"1 of \d+ modules .*to_x'.*nearest: .*to_[qkv]\)"):
        open_adapter(model, path)
    found = open_adapter(model, path, partial=True)
    assert found.left_out == (key.replace("to_q", "to_x"),)
    save(path, {**state, next(iter(state)): state[next(iter(state))] * torch.nan}, {})
    with pytest.raises(CheckpointError, match="has numbers that are not finite"):
        open_adapter(model, path)
    first = next(name for name in state if name.endswith("down.weight"))
    save(path, {**state, first: torch.ones(2, 3)}, {})
    before = bits(model)
    with pytest.raises(DeltaError, match="do not make a weight"):
        drawn(model, "a fox", adapters=(Attached("a", open_adapter(model, path).fitted, 1.0),))
    assert all(torch.equal(before[name], value) for name, value in bits(model).items())


def test_files_are_found_by_name(model: Model, tmp_path: Path) -> None:
    save(tmp_path / "ink style.safetensors", deltas(model, "kohya"), {})
    found = Adapters(model, [], tmp_path, partial=False)
    (worn,) = found.of("a fox <lora:ink style:0.5>")
    assert worn.name == "ink style" and worn.strength == 0.5 and len(worn.fitted) > 10
    assert found.of("a fox") == ()
    with pytest.raises(ValueError, match="no adapter 'ink styl' in .*nearest: ink style"):
        found.of("<lora:ink styl>")
    deep = Adapters(model, [], tmp_path / "deep", partial=False)
    for name in ("../ink style", str(tmp_path / "ink style")):
        with pytest.raises(UsageError, match=r"a prompt names files in .*deep \(--lora-dir\) only"):
            deep.of(f"<lora:{name}>")
    with pytest.raises(ValueError, match="unknown <hyper:…>"):
        found.of("<hyper:ink style>")


def test_the_command_refuses_adapters_for_icons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    save(tmp_path / "a.safetensors", {"x.lora_down.weight": torch.ones(1, 1)}, {})
    assert PACKAGED["icons"].is_file()
    assert cli.main(["generate", "a fox", "--lora", "a.safetensors:0.5"]) == 2
    assert "the model 'icons' takes no adapters" in capsys.readouterr().err
    assert cli.main(["generate", "a __plant__"]) == 2
    assert "needs a file wildcards/plant.txt" in capsys.readouterr().err
    assert list(tmp_path.glob("*.png")) == []
