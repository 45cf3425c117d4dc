"""Memory: what is read when it is used, and that no bit of a picture depends on it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from mezzotint.adapters.lora import attached, fit, read
from mezzotint.apps.cli import main
from mezzotint.checkpoints.streamed import Scratch, Streamed
from mezzotint.engine.generate import generate
from mezzotint.engine.request import Guidance, Request
from mezzotint.families import catalogue, flow, ldm, memory
from mezzotint.families.memory import TooLittleError, parse
from mezzotint.families.model import Model
from mezzotint.families.sd1 import SD1
from pipelines import FLOWS, flux, small, small_flow, stable_diffusion, stable_diffusion_3
from variants import small_flow_variant

REQUEST = Request("a red fox", (1, 2), size=(64, 64), steps=2, guidance=Guidance(3.0))


def models(name: str, folder: Path, kind: torch.dtype) -> tuple[Model, Model]:
    """The same checkpoint, kept in memory and read as it is used."""
    if name in FLOWS:
        pipeline = flux(name) if name.startswith("flux") else stable_diffusion_3(name)
        family, load = small_flow(name), flow.load
    else:
        pipeline, family, load = stable_diffusion(name), small(name), ldm.load
    pipeline.save_pretrained(folder)
    kept = load(family, folder, kind)  # type: ignore[arg-type]
    return kept, load(family, folder, kind, dict.fromkeys(kept.parts, 0))  # type: ignore[arg-type]


def streamed(model: Model) -> list[Streamed]:
    return [m for part in model.parts.values() for m in part.modules() if isinstance(m, Streamed)]


@pytest.mark.parametrize("kind", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["sd1", "sdxl", "sd35-medium", "flux-dev"])
def test_no_bit_depends_on_what_stays(name: str, kind: torch.dtype, tmp_path: Path) -> None:
    kept, read = models(name, tmp_path, kind)
    names = {
        f"Streamed{name}" for name in ("Linear", "Conv2d", "Convolution", "Embedding", "Enlarge")
    }
    assert not streamed(kept) and len(streamed(read)) > 20
    assert {type(m).__name__ for m in streamed(read)} == names
    for one, other in zip(generate(kept, REQUEST), generate(read, REQUEST), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_half_precision_stays_half(
    kind: torch.dtype, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a limit: texts and the autoencoder are read when used, the denoiser stays as it is
    in the file; with adapters, too, the pictures are those of where all was read."""
    stable_diffusion("sd1", 768).to(kind).save_pretrained(tmp_path)
    family = small("sd1", 768)
    monkeypatch.setattr(catalogue, "FAMILIES", (family,))
    usual = catalogue.load(str(tmp_path), "cpu", precision="float32")
    kept = catalogue.load(str(tmp_path), "cpu", precision="float32", limit=catalogue.Limit(10**12))
    assert kept.notes[-1].startswith("everything stays") and not streamed(kept)
    for name, part in usual.parts.items():
        found = [m for m in part.modules() if isinstance(m, Streamed)]
        assert len(found) > 5 and all(m.stays is (name == "network") for m in found)
    assert torch.equal(generate(usual, REQUEST)[0], generate(kept, REQUEST)[0])
    known = usual.targets()  # type: ignore[misc]
    names = [n for n in known if n.startswith(("unet.", "text_encoder.")) and "attn" in n]
    assert len(names) > 10
    torch.manual_seed(0)
    state: dict[str, torch.Tensor] = {}
    for name in names:
        target = known[name]
        weight = kept.parts[target.network].state_dict()[target.part.name]
        rows = len(weight) // len(target.part.shares)
        state[f"{name}.lora_A.weight"] = torch.randn(2, weight.shape[1])
        state[f"{name}.lora_B.weight"] = torch.randn(rows, 2) * 0.1
    fitted, plain = fit(read(state), known), generate(usual, REQUEST)[0]
    made: list[torch.Tensor] = []
    for model in (usual, kept):
        with attached(model.parts, [(fitted, 0.5)]):
            made.append(generate(model, REQUEST)[0])
    assert torch.equal(*made) and not torch.equal(made[0], plain)
    assert torch.equal(generate(usual, REQUEST)[0], plain)
    in_half = catalogue.load(str(tmp_path), "cpu", precision="bfloat16")
    assert not [m for m in in_half.network.modules() if isinstance(m, Streamed)]


def test_scratch_is_not_taken_from_who_has_it() -> None:
    scratch, cpu = Scratch(), torch.device("cpu")

    def room(*shape: int) -> torch.Tensor:
        order = torch.channels_last if len(shape) == 4 else torch.contiguous_format
        return scratch(shape, torch.float32, order, cpu)

    place = room(64, 64).data_ptr()
    first = room(32, 64)
    assert first.data_ptr() == place
    part = first.fill_(1).chunk(2)[1]
    del first
    other = room(64, 64).fill_(2)
    assert other.data_ptr() != place and bool((part == 1).all())
    del part, other
    kernel = room(8, 4, 3, 3)
    assert kernel.data_ptr() == place
    assert kernel.is_contiguous(memory_format=torch.channels_last)


def test_part_of_a_network_stays(tmp_path: Path) -> None:
    """The first layers, as many as there is room for."""
    _, all_read = models("sd1", tmp_path, torch.float32)
    sizes = [
        m.packed.shape.numel() * 4
        for m in all_read.parts["network"].modules()
        if isinstance(m, Streamed)
    ]
    room = {"network": sum(sizes) // 2}
    some = ldm.load(small("sd1"), tmp_path, torch.float32, room)
    left = sum(m.packed.shape.numel() * 4 for m in streamed(some))
    assert 0.3 * sum(sizes) < left <= sum(sizes) - room["network"] + max(sizes)
    assert torch.equal(generate(some, REQUEST)[0], generate(all_read, REQUEST)[0])


def test_a_limit_is_for_the_largest_picture_and_counts_a_reference() -> None:
    limit, shadow = catalogue.Limit, catalogue.shadow(small("sd1"))
    assert limit(1).largest(shadow) == SD1.defaults.size
    assert limit(1, (64, 100), 1.5).largest(shadow) == (96, 152)
    dev, kontext = (
        memory.needs(catalogue.shadow(family), (512, 512), torch.bfloat16)
        for family in (small_flow("flux-dev"), small_flow_variant("flux-kontext"))
    )
    assert kontext.step > 1.5 * dev.step and kontext.decode == dev.decode


def test_the_plan_takes_what_is_used_least_first() -> None:
    bf16, size = torch.bfloat16, (512, 512)
    shadow = catalogue.shadow(SD1)
    all_of_it, said = memory.plan(shadow, size, bf16, 30_000_000_000)
    assert not all_of_it and said.startswith("everything stays in memory")
    seen = []
    for more in (3.2, 2.9, 2.6, 1.5, 1.3):
        gigabytes = memory.resident() / 1e9 + more
        room, said = memory.plan(shadow, size, bf16, int(gigabytes * 1e9))
        seen.append(list(room))
        assert not room or "read from the file when used: 100 % of the text" in said
        taken = float(said.rpartition("about ")[2].split(" GB")[0])
        assert taken <= gigabytes + 0.05
    assert seen == sorted(seen, key=len)
    assert seen[-1] == ["text", "autoencoder", "network"]
    with pytest.raises(TooLittleError, match=r"sd1 needs .* GB for a picture of this size"):
        memory.plan(shadow, size, bf16, 500_000_000)
    larger = memory.needs(catalogue.shadow(SD1), (1024, 1024), bf16)
    assert larger.decode > 3.5 * memory.needs(catalogue.shadow(SD1), size, bf16).decode


def test_every_family_is_counted() -> None:
    for family in catalogue.FAMILIES:
        model = catalogue.shadow(family)
        step, decode = memory.needs(model, family.defaults.size, torch.bfloat16)
        assert 10_000_000 < step < 5_000_000_000, family.name
        assert 100_000_000 < decode < 5_000_000_000, family.name


def test_amounts() -> None:
    assert parse("6GB") == 6_000_000_000 and parse(" 1.5 gb") == 1_500_000_000
    assert parse("800MB") == 800_000_000
    for wrong in ("6", "GB", "-1GB", "6 TB", "nan GB"):
        with pytest.raises(ValueError, match="is no amount of memory: write 6GB or 800MB"):
            parse(wrong)


def test_from_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says what it chose; too little is an error; its own models take no limit."""
    stable_diffusion("sd1", 768).save_pretrained(tmp_path / "a")
    monkeypatch.setattr(catalogue, "FAMILIES", (small("sd1", 768),))
    base = [
        "generate",
        "a fox",
        "--model",
        str(tmp_path / "a"),
        "--size",
        "64",
        "--steps",
        "1",
        "--seed",
        "1",
    ]
    base += ["--device", "cpu", "--precision", "float32", "--no-preview"]
    for name, more in (("b", []), ("c", ["--memory", "90GB"])):
        assert main([*base, "-o", str(tmp_path / f"{name}.png"), *more]) == 0
    assert "everything stays in memory: about" in capsys.readouterr().err
    assert main([*base, "-o", str(tmp_path / "d.png"), "--memory", "100MB"]) == 2
    assert "0.1 GB were given: give more" in capsys.readouterr().err
    assert main(["generate", "a fox", "--memory", "1GB", "-o", str(tmp_path) + "/"]) == 2
    assert "leave the memory out" in capsys.readouterr().err
    pictures = [Image.open(tmp_path / f"{name}.png").tobytes() for name in ("b", "c")]
    assert pictures[0] == pictures[1]


_UNLOADS = """
import sys
import mezzotint
from mezzotint.families import catalogue, memory
from pipelines import small
catalogue.FAMILIES = (small("sd1", 768),)
for _ in range(3):
    print(memory.resident(), flush=True)
    maker = mezzotint.load(sys.argv[1], device="cpu", precision="float32", memory="30GB")
    maker.generate("a fox", size=(64, 64), steps=1)
    print(memory.resident(), flush=True)
    maker.unload()
print(memory.resident(), flush=True)
try:
    maker.generate("a fox")
except ValueError as error:
    print(error)
"""


@pytest.mark.skipif(not memory.resident(), reason="the system does not say what a process takes")
def test_what_is_freed_is_freed(tmp_path: Path) -> None:
    """The first picture brings kernels and a tokenizer, which stay; a model leaves nothing."""
    stable_diffusion("sd1", 768).save_pretrained(tmp_path)
    found = subprocess.run(
        [sys.executable, "-c", _UNLOADS, str(tmp_path)],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[1],
    ).stdout.splitlines()
    *sizes, said = found
    _, _, before, loaded, between, again, after = map(int, sizes)
    assert loaded > before + 100_000_000 and again > between + 100_000_000
    assert abs(between / before - 1) < 0.05 and abs(after / before - 1) < 0.05
    assert said == "this model was unloaded: load it again"


def test_adapters_act_on_what_is_read(tmp_path: Path) -> None:
    """Attached and detached, the same bits as where it stays (see also test_streamed.py)."""
    kept, other = models("sd1", tmp_path, torch.float32)
    known = kept.targets()  # type: ignore[misc]
    assert known.keys() == other.targets().keys()  # type: ignore[misc]
    name = next(n for n in known if n.startswith("unet.") and n.endswith("conv1"))
    part = known[name].part
    weight = kept.parts["network"].state_dict()[part.name]
    torch.manual_seed(0)
    state = {
        f"{name}.lora_A.weight": torch.randn(2, *weight.shape[1:]),
        f"{name}.lora_B.weight": torch.randn(len(weight), 2, 1, 1),
    }
    fitted = fit(read(state), known)
    before = generate(other, REQUEST)[0]
    made = []
    for model in (kept, other):
        with attached(model.parts, [(fitted, 0.5)]):
            made.append(generate(model, REQUEST)[0])
    assert torch.equal(*made) and not torch.equal(made[0], before)
    assert torch.equal(generate(other, REQUEST)[0], before)
