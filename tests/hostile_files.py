"""Honest files of weights, and ways to change them as a stranger might: one function a kind."""

from __future__ import annotations

import io
import json
import os
import pickletools
import random
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mezzotint.checkpoints.files import save

_SD1 = "model.diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
_FLUX = "double_blocks.0.img_attn.qkv.weight"
_NUMBERS: tuple[Any, ...] = (
    *(-1, 0, 1, 2, 7, 63, 64, 65, 255, 256, 2**15, 2**31 - 1, 2**31, 2**32, 2**53, 2**62),
    *(2**63 - 1, 2**63, 2**64 - 1, 2**64, 10**30, 10**400, -(2**63), 0.5, 1e300, -0.0),
    *(float("nan"), float("inf"), True, False, None, "4", "", [], {}, [[]], [4], {"a": 1}),
)
_WORDS = (
    *("F32", "f32", "F16", "BF16", "F64", "I64", "U64", "F8_E4M3", "F8_E8M0", "F4", "BOOL", "C64"),
    *("", "x" * 5000, "\n", "\x1b[2J", "\ud800", "名前", "💥" * 100, "__metadata__", "..", "/"),
    *("../../etc/passwd", "/etc/passwd", "dtype", "shape", "data_offsets", "v_pred", "edm_mean"),
    *("epsilon", "v_prediction", "sample", "linear", "scaled_linear", "exponential", _SD1, _FLUX),
)


class Case(NamedTuple):
    """A file (or folder) to be read, and how it was made."""

    path: Path
    how: str


def tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        _SD1: torch.zeros(4, 768),
        "cond_stage_model.transformer.a.weight": torch.randn(3, 5),
        "half": torch.randn(7).half(),
        "brain": torch.randn(2, 2).bfloat16(),
        "number": torch.tensor(3.0),
        "none": torch.zeros(0, 4),
        "ids": torch.arange(5),
    }


# --- safetensors, by its JSON and by its bytes ------------------------------------------------


def _scalar(dice: random.Random) -> Any:
    return dice.choice(_NUMBERS if dice.random() < 0.6 else _WORDS)


def _nested(dice: random.Random) -> Any:
    """Tables in lists in tables."""
    value: Any = _scalar(dice)
    for _ in range(dice.choice((1, 3, 60, 70, 400, 900))):
        value = [value] if dice.random() < 0.5 else {str(dice.random()): value}
    return value


def _anything(dice: random.Random) -> Any:
    kind = dice.random()
    if kind < 0.7:
        return _scalar(dice)
    if kind < 0.8:
        return _nested(dice)
    return [_scalar(dice) for _ in range(dice.choice((0, 1, 2, 3, 65, 300)))]


def _text(document: Any) -> bytes:
    """JSON that may hold what JSON forbids."""
    return json.dumps(document).encode()


def _change_json(dice: random.Random, document: dict[str, Any]) -> None:
    """One thing of a document, at any depth."""
    place: Any = document
    while True:
        keys = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not keys:
            return
        key = dice.choice(keys)
        if isinstance(place[key], dict | list) and place[key] and dice.random() < 0.7:
            place = place[key]
            continue
        break
    action = dice.randrange(5)
    if action == 0:
        del place[key]
    elif action == 1 and isinstance(place, dict):
        place[str(dice.choice(_WORDS))] = place.pop(key)
    elif action == 2 and isinstance(place[key], int):
        place[key] = int(place[key]) + dice.choice((-1, 1, -8, 8, 2**32, 2**63))
    else:
        place[key] = _anything(dice)


def _tear_text(dice: random.Random, raw: bytes) -> bytes:
    """Text that is JSON no more, or means something twice."""
    kind = dice.randrange(7)
    if kind == 0:
        return raw[: dice.randrange(len(raw))]
    if kind == 1:  # a name twice
        return raw[:-1] + b"," + raw[1:]
    if kind == 2:
        return raw.replace(b":", b":" + b"[" * dice.choice((10, 1000, 100_000)), 1)
    if kind == 3:
        return b'{"' + b'\\"' * dice.choice((10, 50_000)) + raw
    if kind == 4:
        return raw.decode().encode(dice.choice(("utf-16", "utf-32", "utf-16-le")))
    if kind == 5:
        return b"{" + b'"":[],' * dice.choice((2, 20_000)) + raw[1:]
    return raw.replace(b"0", b"9" * dice.choice((20, 4000, 50_000)), 1)


def _change_bytes(dice: random.Random, data: bytes, head: int) -> bytes:
    """Flips, splices and lengths, mostly within the first ``head`` bytes."""
    found = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        if not found:
            break
        end = min(head, len(found)) if dice.random() < 0.8 else len(found)
        place = dice.randrange(max(end, 1))
        kind = dice.randrange(6)
        if kind == 0:
            found[place] ^= 1 << dice.randrange(8)
        elif kind == 1:
            size = dice.choice((1, 2, 4, 8))
            found[place : place + size] = dice.choice(
                (bytes(size), b"\xff" * size, dice.randbytes(size), b"\x7f" + b"\xff" * (size - 1))
            )
        elif kind == 2:
            del found[place : place + dice.choice((1, 8, 100))]
        elif kind == 3:
            found[place:place] = dice.randbytes(dice.choice((1, 8, 100)))
        elif kind == 4:
            other = dice.randrange(len(found))
            found[place:place] = found[other : other + dice.randrange(64)]
        else:
            del found[place:]
    return bytes(found)


def safetensors_file(dice: random.Random, folder: Path) -> Case:
    path = folder / "x.safetensors"
    metadata = {"format": "pt", "modelspec.architecture": "stable-diffusion-v1"}
    if dice.random() < 0.3:
        inner = _text({"prediction_type": _anything(dice), "beta": _anything(dice)}).decode()
        metadata[dice.choice(("mezzotint", "diffusers.scheduler_config"))] = inner
    save(path, tensors(), metadata)
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    kind = dice.randrange(4)
    if kind == 0:
        path.write_bytes(_change_bytes(dice, data, 8 + length))
        return Case(path, "bytes")
    document = json.loads(data[8 : 8 + length])
    if kind == 1:
        raw = _tear_text(dice, data[8 : 8 + length])
    else:
        for _ in range(dice.randint(1, 3)):
            if document:
                _change_json(dice, document)
        raw = _text(document)
    stated = len(raw) if dice.random() < 0.9 else dice.choice((0, 1, 2**31, 2**63, 2**64 - 1))
    path.write_bytes(stated.to_bytes(8, "little") + raw + data[8 + length :])
    return Case(path, "text" if kind == 1 else "fields")


# --- GGUF -------------------------------------------------------------------------------------


def _gguf_text(text: str | bytes, length: int | None = None) -> bytes:
    raw = text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass")
    return struct.pack("<Q", len(raw) if length is None else length) + raw


def gguf_file(dice: random.Random, folder: Path) -> Case:
    """Written field by field, each of which may lie."""
    path = folder / "x.gguf"
    whole = dice.random() < 0.3  # then its bytes are changed instead

    def lie(value: int, bits: int) -> int:
        if whole or dice.random() > 0.06:
            return value
        return dice.choice([n for n in _NUMBERS if type(n) is int and 0 <= n < 2**bits])

    fields: list[bytes] = []

    def field(name: str, kind: int, value: bytes) -> None:
        fields.append(_gguf_text(name) + struct.pack("<I", lie(kind, 32)) + value)

    field("general.architecture", 8, _gguf_text("flux"))
    field("general.alignment", 4, struct.pack("<I", lie(32, 32)))
    count = lie(3, 64)
    inner = dice.choice((4, 8, 9, 0, 12)) if dice.random() < 0.2 else 4
    field("some.list", 9, struct.pack("<IQ", inner, count) + struct.pack("<3I", 1, 2, 3))
    own = struct.pack("<IQ", 5, lie(2, 64)) + struct.pack("<2i", *dice.choice([(4, 64), (-4, -64)]))
    field(f"comfy.gguf.orig_shape.{_FLUX}", 9, own)
    if dice.random() < 0.1:
        field("some.list", 7, b"\x05")
    rows, data = [], b""
    for name, kind, shape, size in (
        (_FLUX, 8, (64, 4), 272),
        ("guidance_in.in_layer.weight", 1, (5, 3), 30),
        ("blocks", 12, (256, 1), 144),
        ("none", 0, (0,), 0),
    ):
        text = name if whole or dice.random() > 0.05 else str(dice.choice(_WORDS))
        sizes = [lie(n, 64) for n in shape] * (1 if dice.random() > 0.02 else 3)
        rows.append(
            _gguf_text(text)
            + struct.pack("<I", lie(len(sizes), 32))
            + b"".join(struct.pack("<Q", n) for n in sizes)
            + struct.pack("<IQ", lie(kind, 32), lie(len(data), 64))
        )
        data += bytes(size) + bytes(-size % 32)
    head = b"GGUF" + struct.pack("<IQQ", lie(3, 32), lie(len(rows), 64), lie(len(fields), 64))
    head += b"".join(fields) + b"".join(rows)
    raw = head + bytes(-len(head) % 32) + data
    path.write_bytes(_change_bytes(dice, raw, len(head)) if whole else raw)
    return Case(path, "bytes" if whole else "fields")


# --- pickles ----------------------------------------------------------------------------------


def _string(text: str) -> bytes:
    return b"X" + struct.pack("<I", len(text.encode())) + text.encode()


def traps(trap: Path) -> list[bytes]:
    """Fragments of programs that would do harm, or cost without end, run by Python itself."""
    command = f"touch {trap}"
    call = [
        (b"cposix\nsystem\n", command),
        (b"cos\nsystem\n", command),
        (b"cnt\nsystem\n", command),
        (b"csubprocess\ngetoutput\n", command),
        (b"cbuiltins\nexec\n", f"open({str(trap)!r}, 'w')"),
        (b"cbuiltins\neval\n", f"open({str(trap)!r}, 'w')"),
        (b"c__builtin__\neval\n", f"open({str(trap)!r}, 'w')"),
        (b"cbuiltins\n__import__\n", "antigravity"),
        (b"cpickle\nloads\n", "x"),
        (b"ctorch\nload\n", str(trap)),
        (b"ctorch.hub\nload\n", "somebody/code"),
        (b"cruntpy\n_run_code\n", "x"),
        (b"ctorch._utils\n_rebuild_tensor_v2\n", "x"),
        (b"ccollections\nOrderedDict\n", "xy"),
    ]
    found = [name + _string(text) + b"\x85R" for name, text in call]
    found += [name + _string(text) + b"\x85\x81" for name, text in call]
    found += [b"(" + name + _string(text) + b"o" for name, text in call]
    found += [
        b"(" + _string(text) + b"i" + name[1:] for name, text in call
    ]  # INST reads two lines, as GLOBAL does
    os_name = _string("os") + _string("system") + b"\x93"
    found += [
        os_name + _string(command) + b"\x85R",
        b"cbuiltins\ngetattr\ncos\n__dict__\n" + _string("system") + b"\x86R",
        b"}" + _string("__setstate__") + os_name + b"s" + _string(command) + b"b",
        b"ccollections\nOrderedDict\n)R}" + _string("__class__") + os_name + b"sb",
        b"ctorch._utils\n_rebuild_tensor_v2\nN}" + _string("__defaults__") + b")s\x86b",
        b"Pevil\n",
        _string("evil") + b"Q",
        b"(" + _string("storage") + os_name + _string("0") + _string("cpu") + b"K\x01tQ",
        *(b"\x82\x01", b"\x83\x01\x00", b"\x84\x01\x00\x00\x00", b"\x97", b"N\x98"),
        b"\x95" + b"\xff" * 8,  # FRAME
        *(b"\x8e" + b"\xff" * 7 + b"\x7f", b"\x96" + struct.pack("<Q", 2**40)),
        *(b"\x8d" + struct.pack("<Q", 2**62), b"B\xff\xff\xff\x7f", b"\x8b\xff\xff\xff\x7f"),
        *(b"r\xff\xff\xff\x7f", b"p99999999999999999999\n", b"g77\n", b"h\xfe"),
        b"I" + b"9" * 5000 + b"\n",
        b"L" + b"9" * 5000 + b"L\n",
        b"F1e999\n",
        b"V" + b"\\U0001f4a5" * 50 + b"\n",
        *(b"S'\\x00\\n'\n", b"Sunquoted\n", b"V\\ud800\n"),
        *(b"]" * 2000, b"}" * 2000, b"\x8f" * 2000, b"(" * 2000, b"(" * 2000 + b"t" * 2000),
        b")" + b"\x85" * 3000,  # a tuple in a tuple in a tuple
        b"]" + b"\x94\x85" * 500,
        b"K\x01" + b"2\x86" * 200 + b"}2K\x01s",  # doubled two hundred times, by reference
        b"}(K\x01" + b"2\x86" * 100 + b"N" + b"u",  # and hashed
        b"(K\x01" + b"2\x86" * 100 + b"\x91",
        b"\x8f(K\x01" + b"2\x86" * 100 + b"\x90",
        b"]\x942a",  # a list in itself
        b"}\x942" + _string("a") + b"Ns",
        b"}\x94" + _string("me") + b"h\x00s",
        b"0" * 50,
        b"2" * 2000,
        b"(\x91" + b"1",
        b"N(NNub",
        b"K\x01K\x02K\x03su",
        *(b"ae", b"R", b"\x81", b"\x92", b"b", b"t", b"\x93", b"Q", b"o", b"d", b"l"),
    ]
    return found


def _program(dice: random.Random, honest: bytes, bad: list[bytes]) -> bytes:
    """An honest program with instructions put in, left out, doubled and moved."""
    places = [place for _, _, place in pickletools.genops(honest) if place is not None]
    pieces = [honest[a:b] for a, b in zip(places, [*places[1:], len(honest)], strict=True)]
    for _ in range(dice.randint(1, 4)):
        place = dice.randrange(len(pieces))
        kind = dice.randrange(6)
        if kind < 3:
            pieces.insert(place, dice.choice(bad) + dice.choice((b"", b"0")))
        elif kind == 3:
            del pieces[place]
        elif kind == 4:
            pieces.insert(place, pieces[dice.randrange(len(pieces))])
        else:
            number = dice.choice((-1, 0, 2**31 - 1, 3, 255))
            pieces[place] = b"J" + struct.pack("<i", number)
        if not pieces:
            break
    return b"".join(pieces)


def _document() -> dict[str, object]:
    return {"epoch": 3, "state_dict": OrderedDict(tensors()), "rates": {"a": [1.0, 2.0]}}


def zip_file(dice: random.Random, folder: Path) -> Case:
    path = folder / "x.ckpt"
    torch.save(_document(), path)
    kind = dice.randrange(4)
    if kind == 0:
        data = path.read_bytes()
        path.write_bytes(_change_bytes(dice, data, len(data)))
        return Case(path, "bytes")
    if kind == 1:  # the directory and the end of it
        data = path.read_bytes()
        at = data.rindex(b"PK\x01\x02" if dice.random() < 0.5 else b"PK\x05\x06")
        path.write_bytes(data[:at] + _change_bytes(dice, data[at:], 200))
        return Case(path, "directory")
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
    bad = traps(folder / "trap")
    packing = dice.choice(
        (zipfile.ZIP_STORED,) * 4 + (zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    )
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in entries.items():
            if name.endswith("data.pkl"):
                data = _program(dice, data, bad) if kind == 2 else data
                if packing:
                    data += bytes(1 << 20)
                archive.writestr(name, data, packing)
            elif kind == 3 and dice.random() < 0.2:
                bomb = dice.choice((b"", data[:-1], bytes(1 << 20), data + data))
                archive.writestr(name, bomb, packing)
            else:
                archive.writestr(dice.choice((name,) * 20 + ("../../x", name + "/")), data)
    if packing and dice.random() < 0.5:  # as long as it says, it says
        data = bytearray(path.read_bytes())
        for mark, offset in ((b"PK\x03\x04", 18), (b"PK\x01\x02", 20)):
            at = data.find(mark)
            while at >= 0:
                data[at + offset + 4 : at + offset + 8] = data[at + offset : at + offset + 4]
                at = data.find(mark, at + 4)
        path.write_bytes(data)
    return Case(path, f"archive, packed {packing}")


def legacy_file(dice: random.Random, folder: Path) -> Case:
    path = folder / "x.bin"
    torch.save(_document(), path, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    file, parts, start = io.BytesIO(data), [], 0
    for _ in range(5):
        for _ in pickletools.genops(file):
            pass
        parts.append(data[start : file.tell()])
        start = file.tell()
    if dice.random() < 0.3:
        path.write_bytes(_change_bytes(dice, data, start))
        return Case(path, "bytes")
    part = dice.choice((0, 1, 2, 3, 3, 3, 3, 4))
    parts[part] = _program(dice, parts[part], traps(folder / "trap"))
    path.write_bytes(b"".join(parts) + data[start:])
    return Case(path, "program")


# --- shards and folders -----------------------------------------------------------------------


def shards(dice: random.Random, folder: Path) -> Case:
    path = folder / "model.safetensors.index.json"
    state = tensors()
    names = ["model-1.safetensors", "model-2.safetensors"]
    places = {name: names[n % 2] for n, name in enumerate(state)}
    for shard in names:
        save(folder / shard, {n: t for n, t in state.items() if places[n] == shard}, {})
    (folder / "elsewhere").mkdir()
    save(folder / "elsewhere/y.safetensors", {"a": torch.zeros(1)}, {})
    document: dict[str, Any] = {"metadata": {"total_size": 10}, "weight_map": places}
    kind = dice.randrange(4)
    raw = _text(document)
    if kind == 0:
        _change_json(dice, document)
        raw = _text(document)
    elif kind == 1:
        raw = _tear_text(dice, raw)
    elif kind == 2:
        places[dice.choice(list(places))] = dice.choice(
            [
                *("../x", "/etc/passwd", "elsewhere/y.safetensors", "elsewhere", ".", "..", ""),
                *("model.safetensors.index.json", "x" * 300, "a\n", "\0", "link", "fifo", "loop"),
            ]
        )
        raw = _text(document)
        for name, target in (("link", "/etc/passwd"), ("loop", "loop")):
            (folder / name).symlink_to(target)
        os.mkfifo(folder / "fifo")
    else:
        shard = folder / names[0]
        shard.write_bytes(_change_bytes(dice, shard.read_bytes(), 300))
    path.write_bytes(raw)
    return Case(path, f"index {kind}")


_INDEX = {
    "sd1": {
        "_class_name": "StableDiffusionPipeline",
        "unet": ["diffusers", "UNet2DConditionModel"],
        "scheduler": ["diffusers", "DDIMScheduler"],
        "safety_checker": [None, None],
    },
    "flux": {
        "_class_name": "FluxPipeline",
        "transformer": ["diffusers", "FluxTransformer2DModel"],
        "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    },
}
_SCHEDULER = {
    "sd1": {
        "beta_start": 0.00085,
        "beta_end": 0.012,
        "beta_schedule": "scaled_linear",
        "num_train_timesteps": 1000,
        "prediction_type": "epsilon",
        "rescale_betas_zero_snr": False,
        "trained_betas": [0.1, 0.2],
    },
    "flux": {
        "shift": 3.0,
        "use_dynamic_shifting": True,
        "base_image_seq_len": 256,
        "max_image_seq_len": 4096,
        "base_shift": 0.5,
        "max_shift": 1.15,
        "num_train_timesteps": 1000,
    },
}
_WEIGHTS = {
    "sd1": {
        "up_blocks.1.resnets.0.conv1.weight": (1,),
        "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight": (1, 768),
    },
    "flux": {
        "single_transformer_blocks.0.attn.to_q.weight": (1, 1),
        "time_text_embed.guidance_embedder.linear_1.weight": (1,),
    },
}


def diffusers_folder(dice: random.Random, folder: Path) -> Case:
    name = dice.choice(("sd1", "flux"))
    part = folder / ("unet" if name == "sd1" else "transformer")
    weights = part / "diffusion_pytorch_model.safetensors"
    part.mkdir()
    (folder / "scheduler").mkdir()
    save(weights, {n: torch.zeros(shape) for n, shape in _WEIGHTS[name].items()}, {})
    config = {"_class_name": "x", "in_channels": 4, "sizes": [1, 2]}
    documents: dict[Path, dict[str, Any]] = {
        folder / "model_index.json": json.loads(_text(_INDEX[name])),
        folder / "scheduler/scheduler_config.json": json.loads(_text(_SCHEDULER[name])),
        part / "config.json": config,
    }
    chosen = dice.choice(list(documents))
    kind = dice.randrange(5)
    if kind < 3:
        _change_json(dice, documents[chosen])
    for place, document in documents.items():
        place.write_bytes(_text(document))
    if kind == 3:
        chosen.write_bytes(_tear_text(dice, chosen.read_bytes()))
    if kind == 4:
        victim = dice.choice((chosen, weights))
        victim.unlink()
        target = dice.choice(("/etc/passwd", "/dev/zero", "loop", "../outside", "/nowhere", ""))
        if target:
            victim.symlink_to(target)
        else:
            os.mkfifo(victim)
    return Case(folder, f"{name} {kind}")


KINDS: dict[str, Callable[[random.Random, Path], Case]] = {
    "safetensors": safetensors_file,
    "gguf": gguf_file,
    "zip": zip_file,
    "legacy": legacy_file,
    "shards": shards,
    "folder": diffusers_folder,
}
