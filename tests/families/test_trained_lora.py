"""A LoRA that is really trained, on the networks of `diffusers`, and written as trainers write it.

Its pictures here are those of the networks that it was trained on, with its layers still in them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import measured
from mezzotint.adapters.lora import Style, Target, index
from mezzotint.checkpoints.files import CheckpointError, save
from mezzotint.diffusion.noise import batch
from mezzotint.engine.attach import open_adapter
from mezzotint.engine.generate import generate
from mezzotint.engine.request import Attached, Guidance, Request
from mezzotint.families import flow, ldm
from mezzotint.families.model import Model
from pipelines import flux, small, small_flow, stable_diffusion, stable_diffusion_3

RANK, ALPHA, STRENGTH, STEPS = 3, 2.0, 0.8, 2
SIZE = (32, 64)
_TEXT = ("q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2")
_TRAINED = {
    "sd1": ("to_q", "to_k", "to_v", "to_out.0", "ff.net.0.proj", "ff.net.2"),
    "sd3": ("to_q", "to_k", "to_v", "to_out.0", "add_q_proj", "add_k_proj", "add_v_proj"),
    "flux": (
        "to_q",
        "to_k",
        "to_v",
        "to_out.0",
        "ff.net.2",
        "single_transformer_blocks.0.proj_mlp",
    ),
}
_TRAINED["sdxl"] = _TRAINED["sd1"]
_TRAINED["flux"] += ("single_transformer_blocks.1.proj_mlp", "proj_out")


class LoraLinear(nn.Module):
    """``W x + (alpha / r) B A x`` (Hu et al. 2021, eq. 3) around a frozen layer."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.down = nn.Parameter(torch.randn(RANK, base.in_features) * base.in_features**-0.5)
        self.up = nn.Parameter(torch.zeros(base.out_features, RANK))
        self.strength = 1.0
        self.second: tuple[Tensor, Tensor] | None = None

    @property
    def weight(self) -> Tensor:  # which some networks ask for its type
        return self.base.weight

    def forward(self, x: Tensor) -> Tensor:
        change = F.linear(F.linear(x, self.down), self.up * self.strength)
        if self.second is not None:
            change = change + F.linear(F.linear(x, self.second[0]), self.second[1])
        return self.base(x) + ALPHA / RANK * change


def wrap(network: nn.Module, ends: tuple[str, ...]) -> dict[str, LoraLinear]:
    """LoRA around each linear layer whose name ends so; by the network's own names."""
    network.requires_grad_(False)
    found: dict[str, LoraLinear] = {}
    for name, layer in list(network.named_modules()):
        inside = ".attn" in name or "proj" in name or "transformer_blocks" in name
        if isinstance(layer, nn.Linear) and name.endswith(ends) and (inside or "layers" in name):
            if name == "proj_out" or "norm" in name:
                continue
            parent, _, leaf = name.rpartition(".")
            found[name] = LoraLinear(layer)
            setattr(network.get_submodule(parent), leaf, found[name])
    return found


def _inputs(name: str) -> dict[str, Any]:
    """What the denoiser of a small pipeline is given: ``(x, told)``."""
    draw = torch.Generator().manual_seed(5)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=draw)

    time = torch.tensor([300.0, 700.0])
    if name in ("sd1", "sdxl"):
        told: dict[str, Any] = {"sample": normal(2, 4, 8, 8), "timestep": time}
        told["encoder_hidden_states"] = normal(2, 7, 8 if name == "sd1" else 16)
        if name == "sdxl":
            vector = {"text_embeds": normal(2, 8), "time_ids": normal(2, 6).abs() * 100}
            told["added_cond_kwargs"] = vector
        return told
    if name == "sd3":
        return {
            "hidden_states": normal(2, 16, 8, 8),
            "timestep": time,
            "encoder_hidden_states": normal(2, 7, 24),
            "pooled_projections": normal(2, 16),
        }
    ids = torch.stack(
        torch.meshgrid(torch.arange(1), torch.arange(4), torch.arange(4), indexing="ij"), -1
    )
    return {
        "hidden_states": normal(2, 16, 64),
        "timestep": time / 1000,
        "guidance": torch.full((2,), 3.5),
        "encoder_hidden_states": normal(2, 7, 24),
        "pooled_projections": normal(2, 8),
        "txt_ids": torch.zeros(7, 3),
        "img_ids": ids.flatten(0, 2).float(),
    }


def train(
    network: nn.Module, layers: Mapping[str, LoraLinear], told: dict[str, Any]
) -> list[float]:
    """Ten steps of AdamW towards a random target; the loss before each."""
    parameters = [p for layer in layers.values() for p in (layer.down, layer.up)]
    optimizer = torch.optim.AdamW(parameters, lr=0.02)
    target: Tensor | None = None
    losses: list[float] = []
    for _ in range(10):
        out = network(**told)[0]
        if target is None:
            target = out.detach() + torch.randn(
                out.shape, generator=torch.Generator().manual_seed(6)
            )
        loss = (out - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


class Trained(NamedTuple):
    """A pipeline with trained layers in it, our model of it without, and those layers.

    layers: of each of our parts, by the names of `diffusers`' modules.
    """

    name: str
    theirs: Any
    ours: Model
    family: Any
    layers: dict[str, dict[str, LoraLinear]]
    losses: dict[str, list[float]]


PIPELINES: dict[str, Callable[[], Any]] = {
    "sd1": stable_diffusion,
    "sdxl": lambda: stable_diffusion("sdxl"),
    "sd3": stable_diffusion_3,
    "flux": flux,
}


@pytest.fixture(scope="module", params=PIPELINES)
def trained(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    name: str = request.param
    theirs = PIPELINES[name]()
    theirs.set_progress_bar_config(disable=True)
    path = tmp_path_factory.mktemp(name) / "folder"
    theirs.save_pretrained(path)
    if name in ("sd1", "sdxl"):
        family = small(name)
        ours = ldm.load(family, path)
    else:
        family = small_flow({"sd3": "sd3", "flux": "flux-dev"}[name])
        ours = flow.load(family, path)
    torch.manual_seed(1)
    denoiser = theirs.unet if name in ("sd1", "sdxl") else theirs.transformer
    layers = {"network": wrap(denoiser, _TRAINED[name])}
    losses = {"network": train(denoiser, layers["network"], _inputs(name))}
    for part, place in (("text", "text_encoder"), ("text2", "text_encoder_2")):
        if part in family.texts:
            encoder = getattr(theirs, place)
            layers[part] = wrap(encoder, _TEXT)
            told = {"input_ids": torch.tensor([[49406, 320, 1125, 49407]]), "return_dict": False}
            losses[part] = train(encoder, layers[part], told)
    return Trained(name, theirs, ours, family, layers, losses)


# --- the file, in each key style --------------------------------------------------------------

Pair = tuple[Tensor, Tensor]


def _text_name(module: str) -> str:
    """As files have it, whether or not this release of `transformers` does."""
    return module if module.startswith("text_model.") else f"text_model.{module}"


def _denoiser(trained: Trained) -> str:
    return "unet." if trained.name in ("sd1", "sdxl") else "transformer."


def _dotted(trained: Trained, ends: tuple[str, str], bare: str | None = None) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    places = {"network": _denoiser(trained) if bare is None else bare}
    places |= {"text": "text_encoder.", "text2": "text_encoder_2."}
    for part, layers in trained.layers.items():
        for module, layer in layers.items():
            key = places[part] + (module if part == "network" else _text_name(module))
            state[key + ends[0]] = layer.down.detach()
            state[key + ends[1]] = layer.up.detach() * (ALPHA / RANK)
    return state


def _originals(trained: Trained, pairs: Mapping[str, Pair]) -> dict[str, Pair]:
    """The pairs by the names of the original layout; those of a fused weight as one of its size.

    Several low-rank changes side by side are one: ``diag(B1, B2) [A1; A2]``.
    """
    state = trained.ours.parts["network"].state_dict()
    bare, folder, file = (Style("", dotted=True),), trained.family.folder, trained.family.file
    theirs = index("network", state, [folder.tables["network"]], bare)
    originals = index("network", state, [file.tables["network"]], bare)
    found: dict[str, Pair] = {}
    for name, (_, part) in originals.items():
        pieces = {
            target.part.index: module
            for module, target in theirs.items()
            if module in pairs and _covers(Target("network", part), target)
        }
        if not pieces:
            continue
        chosen = [pairs[pieces[n]] for n in sorted(pieces)]
        found[name] = (torch.cat([a for a, _ in chosen]), torch.block_diag(*(b for _, b in chosen)))
    return found


def _covers(whole: Target, piece: Target) -> bool:
    if whole.part.name != piece.part.name:
        return False
    return len(whole.part.shares) == 1 or whole.part.index == piece.part.index


def _kohya(trained: Trained) -> dict[str, Tensor]:
    """SD1 by the names of `diffusers`, the others by those of the original layouts."""
    pairs = {
        module: (layer.down.detach(), layer.up.detach())
        for module, layer in trained.layers["network"].items()
    }
    if trained.name != "sd1":
        pairs = _originals(trained, pairs)
    named = {f"lora_unet_{module.replace('.', '_')}": pair for module, pair in pairs.items()}
    alone = trained.name == "sd1"
    for part, prefix in (("text", "lora_te_" if alone else "lora_te1_"), ("text2", "lora_te2_")):
        for module, layer in trained.layers.get(part, {}).items():
            key = prefix + _text_name(module).replace(".", "_")
            named[key] = (layer.down.detach(), layer.up.detach())
    state: dict[str, Tensor] = {}
    for key, (down, up) in named.items():
        state[f"{key}.lora_down.weight"], state[f"{key}.lora_up.weight"] = down, up
        state[f"{key}.alpha"] = torch.tensor(ALPHA / RANK * len(down))
    return state


STYLES: dict[str, Callable[[Trained], dict[str, Tensor]]] = {
    "kohya": _kohya,
    "peft": lambda t: _dotted(t, (".lora_A.weight", ".lora_B.weight"), "base_model.model."),
    "diffusers": lambda t: _dotted(t, (".lora_A.weight", ".lora_B.weight")),
    "diffusers before PEFT": lambda t: _dotted(t, (".lora.down.weight", ".lora.up.weight")),
}


def written(trained: Trained, style: str, folder: Path) -> tuple[Path, dict[str, Tensor]]:
    state = STYLES[style](trained)
    path = folder / "trained.safetensors"
    save(path, {name: value.contiguous() for name, value in state.items()}, {})
    return path, state


# --- tests ------------------------------------------------------------------------------------


def test_it_was_trained(trained: Trained) -> None:
    for part, losses in trained.losses.items():
        assert len(trained.layers[part]) >= 6
        assert losses[-1] < losses[0] - 0.01, part
        learnt = sum(bool(layer.up.any()) for layer in trained.layers[part].values())
        assert learnt >= len(trained.layers[part]) - 2  # SD3's last block asks the text nothing


def _expected(trained: Trained, strength: float) -> Tensor:
    for layers in trained.layers.values():
        for layer in layers.values():
            layer.strength = strength
    height, width = SIZE
    channels = 4 if trained.name in ("sd1", "sdxl") else 16
    latents = batch([3], "start", 0, (channels, height // 8, width // 8))
    told: dict[str, Any] = {}
    if trained.name == "flux":
        latents, told = flow.pack(latents), {"max_sequence_length": 512}
    with torch.inference_mode():
        return trained.theirs(
            "a red fox, flat style",
            height=height,
            width=width,
            num_inference_steps=STEPS,
            guidance_scale=3.0,
            latents=latents,
            output_type="pt",
            **told,
        ).images[0]


def _found(trained: Trained, *worn: Attached) -> Tensor:
    more = {"sampler": "ddim", "spacing": "trailing"} if trained.name in ("sd1", "sdxl") else {}
    prompt = "a red fox, flat style"
    request = Request(
        prompt, (3,), size=SIZE, steps=STEPS, guidance=Guidance(3.0), adapters=worn, **more
    )
    return generate(trained.ours, request)[0] / 2 + 0.5


@pytest.mark.parity("a trained LoRA, in four key styles", "diffusers folder")
@pytest.mark.parametrize("style", STYLES)
def test_n_of_n_keys_apply_and_make_the_trained_networks_picture(
    trained: Trained, style: str, tmp_path: Path
) -> None:
    path, state = written(trained, style, tmp_path)
    adapter = open_adapter(trained.ours, path)
    modules = [key for key in state if key.endswith((".lora_A.weight", "down.weight"))]
    assert len(adapter.fitted) == len(modules) and adapter.left_out == ()
    assert 2 * len(modules) + sum(key.endswith(".alpha") for key in state) == len(state)
    plain = _found(trained)
    found = _found(trained, Attached("x", adapter.fitted, STRENGTH))
    expected = _expected(trained, STRENGTH)
    measured.close(found, expected, 1e-3)
    assert float((plain - expected).abs().max()) > 3e-3  # it does something
    assert torch.equal(_found(trained), plain)


@pytest.mark.parity("two LoRAs at once", "diffusers folder")
def test_two_at_once(trained: Trained, tmp_path: Path) -> None:
    """The trained one, and a second of other numbers at another strength."""
    torch.manual_seed(2)
    first = open_adapter(trained.ours, written(trained, "kohya", tmp_path)[0])
    layers = [layer for own in trained.layers.values() for layer in own.values()]
    kept = [(layer.down.data, layer.up.data) for layer in layers]
    for layer, (down, up) in zip(layers, kept, strict=True):
        layer.down.data, layer.up.data = torch.randn_like(down) * 0.1, torch.randn_like(up) * 0.2
    second = open_adapter(trained.ours, written(trained, "peft", tmp_path)[0])
    for layer, (down, up) in zip(layers, kept, strict=True):
        layer.second = layer.down.data, layer.up.data * -0.6
        layer.down.data, layer.up.data = down, up
    worn = (Attached("a", first.fitted, STRENGTH), Attached("b", second.fitted, -0.6))
    expected = _expected(trained, STRENGTH)
    for layer in layers:
        layer.second = None
    measured.close(_found(trained, *worn), expected, 1e-3)
    assert float((_expected(trained, STRENGTH) - expected).abs().max()) > 3e-3


@pytest.mark.parametrize("style", STYLES)
def test_one_renamed_key_fails_and_is_named(trained: Trained, style: str, tmp_path: Path) -> None:
    path, state = written(trained, style, tmp_path)
    victim = next(key for key in state if "attn" in key)
    module, ending = victim.rsplit(".lora", 1)
    for renamed in (f"{module.replace('attn', 'atnn')}.lora{ending}", f"{module}.lara{ending}"):
        changed = {renamed if key == victim else key: value for key, value in state.items()}
        save(path, {name: value.contiguous() for name, value in changed.items()}, {})
        with pytest.raises(CheckpointError) as caught:
            open_adapter(trained.ours, path)
        assert renamed.split(".lora")[0] in str(caught.value) and "\n" not in str(caught.value)
