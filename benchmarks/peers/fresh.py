"""From the start of a process to the first step, and its peak of memory, beside diffusers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path

import torch

from mezzotint.checkpoints.files import save
from mezzotint.checkpoints.keys import to_theirs
from mezzotint.engine.convert import convert
from mezzotint.families import catalogue
from mezzotint.families.precision import fastest
from mezzotint.families.sd1 import SD1
from peers.checkpoints import NO_HALF, filled
from peers.models import FULL, Scale
from peers.report import Bar, Row, Section
from peers.timing import in_turns, ratios

PIXELS, STEPS = 512, 1
SOONER, LESS, PEAK = 2.0, 0.6, 3200.0
_PEAK = """
import json, time
def peak():
    lines = open("/proc/self/status").read().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
first, done = [], []
def begins(*_):
    first or first.append(time.time())
def ends(*_):
    done or done.append(time.time())
"""
_OURS = """
import mezzotint, torch
torch.set_num_threads({threads})
maker = mezzotint.load({path!r}, precision="{kind}")
maker.model.network.register_forward_pre_hook(begins)
maker.model.network.register_forward_hook(ends)
maker.generate("a red fox", size=({pixels}, {pixels}), steps={steps}, guidance=7.5)
print(json.dumps([first[0], peak(), done[0]]))
"""
_THEIRS = """
import torch, warnings
warnings.filterwarnings("ignore")
torch.set_num_threads({threads})
from diffusers import StableDiffusionPipeline
made = StableDiffusionPipeline.{reader}, torch_dtype=torch.{kind}, safety_checker=None,
    local_files_only=True)
made.set_progress_bar_config(disable=True)
made.unet.register_forward_pre_hook(begins)
made.unet.register_forward_hook(ends)
with torch.inference_mode():
    made("a red fox", height={pixels}, width={pixels}, num_inference_steps={steps})
print(json.dumps([first[0], peak(), done[0]]))
"""
_FILE = "from_single_file({path!r}, config={folder!r}"
_FOLDER = "from_pretrained({folder!r}"


def _write(path: Path) -> None:
    """A file of the family as releases have it: float16, all parts; random weights."""
    state = {
        SD1.file.places[part] + name: tensor.half().contiguous()
        for part, network in catalogue.parts(SD1).items()
        for name, tensor in to_theirs(filled(network).state_dict(), SD1.file.tables[part]).items()
    }
    save(path, state, {})


def _run(code: str) -> tuple[float, float, float]:
    """Seconds from the start until the U-Net is called, the bytes at the peak, and the seconds
    until it has been called."""
    environment = {k: v for k, v in os.environ.items() if k != "THP_MEM_ALLOC_ENABLE"}
    where = [str(Path(__file__).parents[1]), os.environ.get("PYTHONPATH", "")]
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, where))
    began = time.time()
    done = subprocess.run(
        [sys.executable, "-c", _PEAK + code],
        stdout=subprocess.PIPE,
        check=True,
        text=True,
        env=environment,
    )
    first, peak, last = json.loads(done.stdout.splitlines()[-1])
    return first - began, peak, last - began


def measure(scale: Scale) -> Section:
    whole, rounds = scale is FULL, 3 if scale is FULL else 1
    with tempfile.TemporaryDirectory() as place:
        path, folder = Path(place, "model.safetensors"), Path(place, "folder")
        _write(path)
        convert(path, folder, "folder")
        facts = {
            "threads": torch.get_num_threads(),
            "path": str(path),
            "folder": str(folder),
            "pixels": PIXELS if whole else 64,
            "steps": STEPS,
        }
        rows: list[Row] = []
        half = fastest(torch.device("cpu")) == torch.bfloat16
        for kind in ("float32", "bfloat16")[: 1 + half] if whole else ("bfloat16",):
            ours = _OURS.format(kind=kind, **facts)
            file, parts = (
                _THEIRS.format(kind=kind, reader=reader.format(**facts), **facts)
                for reader in (_FILE, _FOLDER)
            )
            found = in_turns([partial(_run, code) for code in (ours, file, parts)], rounds)
            rows += _rows(kind, found, whole)
        size = path.stat().st_size / 1e9
    text = (
        f"A file of Stable Diffusion 1.5 in float16 ({size:.2f} GB, random weights) "
        "in the page cache, a fresh process each: the seconds from its start until the U-Net is "
        "called for the first time, and until that call has ended (what is read of the file only "
        "then is in there), and its peak of resident memory after a step with guidance and "
        f"decoding at {facts['pixels']} px. diffusers reads the file itself "
        "(`from_single_file`) and, for information, its own folder with the same weights."
    )
    if not half:
        text += f" {NO_HALF}"
    return Section("fresh", "From a file to the first step", text, tuple(rows))


def _rows(kind: str, found: list[list[tuple[float, float, float]]], whole: bool) -> list[Row]:
    (mine, file, parts), (own, theirs, _), (later, after, _) = (
        [[one[which] for one in each] for each in found] for which in (0, 1, 2)
    )
    peak = tuple(value / 1e6 for value in own)
    return [
        Row(
            f"{kind}: start to first step, diffusers ÷ ours",
            ratios(file, mine),
            "×",
            Bar("at least", SOONER),
        ),
        Row(f"{kind}: the same, diffusers from a folder", ratios(parts, mine), "×"),
        Row(
            f"{kind}: start to the end of the first step, diffusers ÷ ours",
            ratios(after, later),
            "×",
        ),
        Row(f"{kind}: start to first step, ours", tuple(mine), "s"),
        Row(f"{kind}: peak of memory, ours", peak, "MB", Bar("at most", PEAK) if whole else None),
        Row(
            f"{kind}: peak of memory, ours ÷ diffusers",
            ratios(own, theirs),
            "×",
            Bar("at most", LESS),
        ),
    ]
