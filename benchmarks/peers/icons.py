"""The model in the package: seconds a picture, and the memory of the whole process."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from mezzotint.apps.python import Maker
from mezzotint.engine.generate import generate
from mezzotint.engine.request import Guidance, Request
from mezzotint.families.catalogue import load, locate
from mezzotint.families.model import Model
from mezzotint.modalities.image import to_image, write
from peers.models import Scale, write_icons_shaped
from peers.report import Bar, Row, Section
from peers.timing import in_turns, ratios, seconds

RANDOM = "random"
PROMPT, SIZE, STEPS = "a red fox, flat style", 128, 20

# A child counts as large as its parent was until it has become its own program, and the operating
# system keeps that as its peak.  So a small process stands between.
_LAUNCHER = """
import os, subprocess, sys
child = subprocess.Popen(sys.argv[1:], stdout=subprocess.DEVNULL)
_, status, usage = os.wait4(child.pid, 0)
unit = 1 if sys.platform == "darwin" else 1024
print(os.waitstatus_to_exitcode(status), usage.ru_maxrss * unit)
"""

_STAGES = """
import json, sys
def told(what):
    lines = dict(line.split(":", 1) for line in open("/proc/self/status"))
    stages.append([what, *(int(lines[key].split()[0]) / 1000 for key in ("VmRSS", "VmHWM"))])
stages = []
told("the interpreter")
import torch
torch.set_num_threads(int(sys.argv[2]))
told("and torch")
import mezzotint.apps.making
told("and mezzotint with pillow, rich, tokenizers")
from mezzotint.families.catalogue import load
model = load(sys.argv[1])
told("and the model with its text encoder")
from mezzotint.engine.generate import generate
from mezzotint.engine.request import Guidance, Request
size = (int(sys.argv[3]),) * 2
generate(model, Request(sys.argv[4], (0,), size=size, steps=2, guidance=Guidance(3.0)))
told("and a picture")
print(json.dumps(stages))
"""


def _peak(model: str, threads: int, folder: Path) -> float:
    """Megabytes (10^6) that `mezzotint generate` takes at its peak, by the operating system."""
    command = [sys.executable, "-m", "mezzotint.apps.cli", "generate", PROMPT, "--seed", "1"]
    command += ["--model", model, "--size", str(SIZE), "--steps", str(STEPS), "--guidance", "3"]
    command += ["--threads", str(threads), "--quiet", "-o", str(folder / "peak.png")]
    done = subprocess.run(
        [sys.executable, "-c", _LAUNCHER, *command], stdout=subprocess.PIPE, check=True, text=True
    )
    code, peak = map(int, done.stdout.split())
    if code != 0:
        raise RuntimeError(f"mezzotint generate ended with exit code {code}")
    return peak / 1e6


def _stages(model: str, threads: int) -> list[Row]:
    """Resident memory as a process grows to its first picture; nothing where /proc is not."""
    if not Path("/proc/self/status").exists():
        return []
    command = [sys.executable, "-c", _STAGES, model, str(threads), str(SIZE), PROMPT]
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
    stages = json.loads(done.stdout)
    rows: list[Row] = []
    for what, resident, peak in stages:
        rows.append(Row(f"memory: {what}", (resident,), "MB"))
        if peak > resident + 10:
            rows.append(Row("memory: its peak until then", (peak,), "MB"))
    return rows


def _marks(model: Model, source: str, folder: Path, scale: Scale) -> tuple[float, ...]:
    """The time of a picture in a file, with recipe, credentials and watermark to without any."""
    maker, seeds = Maker.load(source), itertools.count()
    guidance, size = 3.0, (SIZE, SIZE)

    def whole() -> None:
        out = folder / "whole.png"
        maker.generate(
            PROMPT, seed=next(seeds), size=size, steps=STEPS, guidance=guidance, output=out
        )

    def bare() -> None:
        wish = Request(PROMPT, (next(seeds),), size=size, steps=STEPS, guidance=Guidance(guidance))
        write(to_image(generate(model, wish)[0]), folder / "bare.png")

    home = os.environ.get("MEZZOTINT_HOME")
    os.environ["MEZZOTINT_HOME"] = str(folder / "home")  # the user's own key is left alone
    try:
        return ratios(*in_turns([lambda: seconds(whole), lambda: seconds(bare)], scale.runs))
    finally:
        if home is None:
            del os.environ["MEZZOTINT_HOME"]
        else:
            os.environ["MEZZOTINT_HOME"] = home


def measure(scale: Scale, name: str, threads: int) -> Section:
    """Raises CheckpointError: there is no such model."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        place = folder / "shaped-like-icons.safetensors"
        if name == RANDOM:
            write_icons_shaped(place, scale)
        source = str(place) if name == RANDOM else str(locate(name))
        model = load(source)
        seeds = itertools.count()

        def picture() -> None:
            request = Request(
                PROMPT, (next(seeds),), size=(SIZE, SIZE), steps=STEPS, guidance=Guidance(3.0)
            )
            generate(model, request)

        (times,) = in_turns([lambda: seconds(picture)], scale.runs)
        marks = _marks(model, source, folder, scale)
        peak = _peak(source, threads, folder)
        rows = [
            Row("a picture, warm", tuple(times), "s", Bar("at most", 2.0)),
            Row("peak memory of `mezzotint generate`", (peak,), "MB", Bar("below", 1000)),
            Row("with all that it carries ÷ bare", marks, "", Bar("at most", 1.1)),
            *_stages(source, threads),
        ]
    weights = sum(weight.numel() for weight in model.network.parameters()) / 1e6
    what = (
        "**a stand-in with random weights, shaped as `icons` was planned** (`--model random`)"
        if name == RANDOM
        else f"`{name}`"
    )
    text = (
        f"The model is {what}, {weights:.1f} M parameters in its network. One picture of "
        f"{SIZE} px at {STEPS} steps with guidance on {torch.get_num_threads()} threads, the "
        "model loaded and one picture made before; the time of a picture in a PNG file with its "
        "recipe, Content Credentials and watermark to that of one without any, in turns; and the "
        "peak of a whole process of `mezzotint generate`, as the operating system counts it (1 GB "
        "is 1000 MB here)."
    )
    return Section("icons", "The model in the package", text, tuple(rows))
