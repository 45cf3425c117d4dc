"""Quantized weights stay packed in a model: the same pictures, with adapters too, bit for bit."""

from __future__ import annotations

import gc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import measured
from mezzotint.adapters.deltas import DeltaError
from mezzotint.adapters.lora import Style, attached, fit, index, read
from mezzotint.checkpoints.files import CheckpointError, save
from mezzotint.checkpoints.gguf import Packed, load_gguf
from mezzotint.checkpoints.keys import MATRIX, SAME, SWAPPED, to_theirs
from mezzotint.checkpoints.streamed import Pieces, Streamed, finite, give, shapes
from mezzotint.checkpoints.tables import control_flux
from mezzotint.engine.attach import open_adapter
from mezzotint.engine.generate import generate
from mezzotint.engine.request import Attached, Control, Request
from mezzotint.families import controls
from mezzotint.families.flow import Family, build, load
from mezzotint.families.model import Model
from mezzotint.families.precision import working
from mezzotint.networks.control_flux import ControlFlux, ControlFluxConfig
from mezzotint.networks.flux import FluxConfig
from pipelines import small_flow

gguf = pytest.importorskip("gguf")
KINDS = ("Q8_0", "Q5_0", "Q4_K")
_BLOCKS = {"Q8_0": (32, 34), "Q5_0": (32, 22), "Q4_K": (256, 144), "Q6_K": (256, 210)}
_SCALES = {"Q8_0": (0,), "Q5_0": (0,), "Q4_K": (0, 2), "Q6_K": (208,)}


def packed(kind: str, shape: tuple[int, ...], seed: int = 0, scale: float = 0.004) -> Packed:
    """Blocks of random bits, with scales of a usual size: any such block is a valid one."""
    elements, width = _BLOCKS[kind]
    dice = np.random.default_rng(seed)
    count = int(np.prod(shape)) // elements
    blocks = dice.integers(0, 256, (count, width), dtype=np.uint8)
    for place in _SCALES[kind]:
        scales = dice.uniform(0.5, 1.0, (count, 1)).astype(np.float16) * np.float16(scale)
        blocks[:, place : place + 2] = scales.view(np.uint8)
    return Packed(kind, shape, torch.from_numpy(blocks.reshape(-1)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_layer_gives_the_bits_of_the_unpacked_one(kind: str, dtype: torch.dtype) -> None:
    """Also where a weight is three of theirs, one of them of another kind, one not packed."""
    torch.manual_seed(0)
    pieces = Pieces(
        (
            (packed(kind, (16, 256)), SAME),
            (packed("Q6_K", (16, 256), 1), SWAPPED),
            (torch.randn(16, 256, 1, 1).half(), MATRIX),
        )
    )
    net = nn.Sequential(nn.Linear(256, 48))
    plain = nn.Linear(256, 48)
    bias = torch.randn(48).to(dtype)
    plain.weight = nn.Parameter(pieces.read(dtype))
    plain.bias = nn.Parameter(bias)
    state = {"0.weight": pieces, "0.bias": Pieces(((bias, SAME),))}
    rest = give(net, state, lambda _: dtype, "x")
    net.load_state_dict(rest, assign=True)
    layer = net[0]
    assert isinstance(layer, Streamed) and rest.keys() == {"0.bias"}
    x = torch.randn(5, 256).to(dtype)
    assert torch.equal(net(x), plain(x)) and layer.weight.dtype == dtype == working(net)
    assert shapes(net)["0.weight"].shape == (48, 256) and "0.weight" not in net.state_dict()


def test_what_does_not_fit_says_so() -> None:
    net = nn.Sequential(nn.Linear(256, 48))
    wrong = Pieces(((packed("Q8_0", (32, 256)), SAME),))
    with pytest.raises(CheckpointError, match=r"0.weight is \[32, 256\] in the file, \[48, 256\]"):
        give(net, {"0.weight": wrong}, lambda _: torch.float32, "x")


@pytest.mark.parametrize("kind", [*KINDS, "Q4_0", "Q4_1", "Q5_1", "Q2_K", "Q3_K", "Q5_K", "Q6_K"])
def test_scales_tell_what_is_not_finite(kind: str) -> None:
    """Byte by byte of a block: finite exactly if all of its numbers are."""
    number = gguf.GGMLQuantizationType[kind]
    elements, width = gguf.GGML_QUANT_SIZES[number]
    seen = set()
    for place in range(width - 1):
        data = torch.zeros(width, dtype=torch.uint8)
        data[place], data[place + 1] = 0xFF, 0x7E  # NaN, where it is a scale
        block = Packed(kind, (elements,), data)
        with np.errstate(all="ignore"):
            assert block.finite() == finite(block.unpack())
        seen.add(block.finite())
    assert seen == {True, False}


# --- LoRA on such weights ---------------------------------------------------------------------

_TABLE = {"q.{p}": "q.{p}", "o.{p}": "o.{p}"}


@pytest.mark.parametrize("kind", KINDS)
def test_deltas_act_on_use_and_leave_the_bytes_alone(kind: str) -> None:
    torch.manual_seed(0)
    weight = packed(kind, (32, 256))
    before = weight.data.clone()
    net = nn.ModuleDict({"q": nn.Linear(256, 32, bias=False), "o": nn.Linear(256, 32, bias=False)})
    plain = nn.ModuleDict(
        {"q": nn.Linear(256, 32, bias=False), "o": nn.Linear(256, 32, bias=False)}
    )
    for layer in plain.values():
        layer.weight = nn.Parameter(weight.unpack(), requires_grad=False)
    state = {f"{name}.weight": Pieces(((weight, SAME),)) for name in ("q", "o")}
    assert give(net, state, lambda _: torch.float32, "x") == {}
    known = index("network", shapes(net), [_TABLE], [Style("", dotted=True)])
    adapters = []
    for strength in (0.7, -0.2):
        file = {"q.lora_A.weight": torch.randn(4, 256), "q.lora_B.weight": torch.randn(32, 4)}
        file["q.dora_scale"] = torch.rand(32, 1) + 0.5
        adapters.append((fit(read(file), known), strength))
    x = torch.randn(3, 256)
    first = net["q"](x)
    with attached({"network": plain}, adapters):
        wanted = plain["q"](x)
    for order in (adapters, adapters[:1]):
        with attached({"network": net}, order):
            assert not torch.equal(net["q"](x), first)
            assert torch.equal(net["o"](x), plain["o"](x))
            if order is adapters:
                assert torch.equal(net["q"](x), wanted)
        assert torch.equal(net["q"](x), first) and torch.equal(weight.data, before)
        assert net["q"].change is None


def test_a_delta_that_does_not_fit_attaches_nothing() -> None:
    net = nn.ModuleDict({"q": nn.Linear(256, 32, bias=False), "o": nn.Linear(256, 32, bias=False)})
    state = {f"{n}.weight": Pieces(((packed("Q8_0", (32, 256)), SAME),)) for n in ("q", "o")}
    give(net, state, lambda _: torch.float32, "x")
    known = index("network", shapes(net), [_TABLE], [Style("", dotted=True)])
    good = {"q.lora_A.weight": torch.ones(1, 256), "q.lora_B.weight": torch.ones(32, 1)}
    bad = {"o.lora_A.weight": torch.ones(1, 99), "o.lora_B.weight": torch.ones(32, 1)}
    fitted = fit(read({**good, **bad}), known)
    with pytest.raises(DeltaError), attached({"network": net}, [(fitted, 1.0)]):
        pass
    assert net["q"].change is None and net["o"].change is None


# --- from a file to a picture -----------------------------------------------------------------


def wide() -> Family:
    """FLUX, small, but wide enough for blocks of 256."""
    family = small_flow("flux-dev")
    network = replace(
        family.network, axes=(32, 48, 48), heads=2, depth=1, single=1, context_width=24
    )
    return replace(family, network=network)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_is_checked_as_it_is(kind: torch.dtype) -> None:
    """Where a weight stays half as wide in the file as it is used: it is not widened for that."""
    net = nn.Sequential(nn.Linear(64, 64))
    weight = torch.randn(64, 64).to(kind)
    state = {"0.weight": Pieces(((weight, SAME),)), "0.bias": Pieces(((weight[0], SAME),))}
    rest = give(net, state, lambda _: torch.float32, "x", narrow=True)
    layer = net[0]
    assert isinstance(layer, Streamed) and layer.stays and torch.equal(layer.own, weight.float())
    assert rest.keys() == {"0.bias"} and rest["0.bias"].dtype == torch.float32
    for wrong in (float("nan"), float("-inf")):
        weight[3, 4] = wrong
        with pytest.raises(CheckpointError, match=r"x: tensor '0.weight' has numbers that are not"):
            give(nn.Sequential(nn.Linear(64, 64)), state, lambda _: torch.float32, "x", narrow=True)


class Made:
    """A random FLUX, in a GGUF file with packed matrices and in a file with the same numbers."""

    def __init__(self, folder: Path, kind: str) -> None:
        family = self.family = wide()
        torch.manual_seed(0)
        parts = build(family).parts
        self.gguf, self.plain = folder / "x.gguf", folder / "x.safetensors"
        writer = gguf.GGUFWriter(self.gguf, "flux")
        numbers: dict[str, Tensor] = {}
        self.packed = 0
        for part, module in parts.items():
            named = to_theirs(module.state_dict(), family.file.tables[part])
            for seed, (name, weight) in enumerate(named.items()):
                key = family.file.places[part] + name
                numbers[key] = weight
                if part == "network" and weight.ndim == 2 and not weight.shape[1] % 256:
                    block = packed(kind, tuple(weight.shape), seed)
                    rows = block.data.numpy().reshape(len(weight), -1)
                    writer.add_tensor(key, rows, raw_dtype=gguf.GGMLQuantizationType[kind])
                    numbers[key] = block.unpack()
                    self.packed += 1
                else:
                    writer.add_tensor(key, np.atleast_1d(weight.detach().numpy()))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        save(self.plain, numbers, {})

    def adapter(self, model: Model, path: Path) -> tuple[Attached, ...]:
        """A LoRA on all matrices of the transformer, in kohya's style."""
        torch.manual_seed(1)
        state: dict[str, Tensor] = {}
        named = to_theirs(shapes(model.parts["network"]), self.family.file.tables["network"])
        for name, weight in named.items():
            if weight.ndim == 2 and "blocks" in name:
                key = "lora_unet_" + name.removesuffix(".weight").replace(".", "_")
                state[key + ".lora_down.weight"] = torch.randn(2, weight.shape[1]) * 0.1
                state[key + ".lora_up.weight"] = torch.randn(len(weight), 2) * 0.1
        save(path, state, {})
        found = open_adapter(model, path)
        assert len(found.fitted) == len(state) // 2 > 10
        return (Attached("a", found.fitted, 0.8),)


def bits(model: Model) -> list[Tensor]:
    return [
        t.data.clone()
        for layer in model.parts["network"].modules()
        if isinstance(layer, Streamed)
        for t, _ in layer.packed.pieces
        if isinstance(t, Packed)
    ]


@pytest.mark.parity("text to image, and a LoRA", "GGUF", family="flux-dev")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pictures_are_those_of_the_unpacked_weights(
    kind: str, dtype: torch.dtype, tmp_path: Path
) -> None:
    made = Made(tmp_path, kind)
    kept, plain = (load(made.family, path, dtype) for path in (made.gguf, made.plain))
    assert len(bits(kept)) == made.packed > 10 and not bits(plain)
    request = Request("a fox", (1,), size=(32, 32), steps=2)
    first = generate(kept, request)[0]
    measured.same(first, generate(plain, request)[0])
    before = bits(kept)
    adapters = [made.adapter(model, tmp_path / "a.safetensors") for model in (kept, plain)]
    changed = [
        generate(model, replace(request, prompt="a fox <lora:a:0.8>", adapters=worn))[0]
        for model, worn in zip((kept, plain), adapters, strict=True)
    ]
    measured.same(*changed)
    assert not torch.equal(changed[0], first)
    assert torch.equal(generate(kept, request)[0], first)
    assert all(torch.equal(a, b) for a, b in zip(before, bits(kept), strict=True))


@pytest.mark.parity("ControlNet", "GGUF", family="flux-dev")
def test_a_control_network_beside_packed_weights(tmp_path: Path) -> None:
    """Of which one copy is packed too: the same picture as of the unpacked numbers."""
    made = Made(tmp_path, "Q8_0")
    assert isinstance(made.family.network, FluxConfig)
    blocks = replace(made.family.network, guided=False)
    torch.manual_seed(2)
    named = to_theirs(ControlFlux(ControlFluxConfig(blocks)).state_dict(), control_flux.DIFFUSERS)
    writer = gguf.GGUFWriter(tmp_path / "control.gguf", "flux")
    for seed, (name, weight) in enumerate(named.items()):
        if weight.ndim == 2 and not weight.shape[1] % 256:
            block = packed("Q8_0", tuple(weight.shape), seed)
            rows = block.data.numpy().reshape(len(weight), -1)
            writer.add_tensor(name, rows, raw_dtype=gguf.GGMLQuantizationType.Q8_0)
            named[name] = block.unpack()
        else:
            writer.add_tensor(name, np.atleast_1d(weight.detach().numpy()))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    save(tmp_path / "control.safetensors", named, {})
    image = torch.rand(3, 32, 32) * 2 - 1
    found = []
    for path in (made.gguf, made.plain):
        model = load(made.family, path)
        for control in (tmp_path / "control.gguf", tmp_path / "control.safetensors"):
            told = (Control(controls.load(model, control), image),)
            wish = Request("a fox", (1,), size=(32, 32), steps=2, controls=told)
            found.append(generate(model, wish)[0])
    for other in found[1:]:
        measured.same(found[0], other)
    plain = Request("a fox", (1,), size=(32, 32), steps=2)
    assert not torch.equal(found[0], generate(load(made.family, made.plain), plain)[0])


def test_they_take_less_memory(tmp_path: Path) -> None:
    """What torch holds for the packed matrices is what they take in the file."""
    made = Made(tmp_path, "Q4_K")
    kept = load(made.family, made.gguf)
    own = sum(t.numel() for t in bits(kept))
    layers = [m for m in kept.parts["network"].modules() if isinstance(m, Streamed)]
    numbers = sum(layer.packed.shape.numel() for layer in layers)
    assert own == numbers * 144 // 256  # 4.5 bits a number
    gc.collect()
    there = sum(t.numel() for t in kept.parts["network"].parameters())
    assert there < numbers / 10  # norms, biases and what is not packed


def test_a_file_with_a_scale_that_is_no_number_is_refused(tmp_path: Path) -> None:
    made = Made(tmp_path, "Q8_0")
    tensors, _ = load_gguf(made.gguf)
    name, victim = next((n, t) for n, t in tensors.items() if isinstance(t, Packed))
    data = bytearray(made.gguf.read_bytes())
    place = data.find(bytes(victim.data[:64].numpy()))
    data[place : place + 2] = b"\xff\x7e"
    made.gguf.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"network: tensor '.*' has numbers that are not fin"):
        load(made.family, made.gguf)
    assert name
