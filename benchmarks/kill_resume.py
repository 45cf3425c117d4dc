"""Kill a training run at random instants with SIGKILL; does it resume to the same bits?

    python benchmarks/kill_resume.py            # 20 kills, a table, exit code 1 on any difference

A tiny U-Net with dropout, mirrored pictures and class conditioning is trained once without
interruption.  Then, for each kill, a fresh run is started in its own process, killed at a random
instant (while the data are checked or cached, in a step, in the middle of writing a checkpoint),
and run again to its end.  Compared are the SHA-256 of everything the last checkpoint holds
(weights, moments, averages, reports), that of the final model's weights, and the log's steps.
POSIX only (it forks, so that PyTorch is imported once).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import sys
import tempfile
import time
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image

from mezzotint.checkpoints.files import load
from mezzotint.engine import state
from mezzotint.engine.config_file import parse_config
from mezzotint.engine.train import MODEL, train

CONFIG = """
name = "tiny"
seed = 3
[data]
source = "pictures"
size = 8
channels = "rgba"
flip = true
[network]
kind = "unet"
width = 16
multipliers = [1, 2]
blocks = 1
attention = [false, true]
head_width = 16
dropout = 0.1
[model]
prediction = "v"
schedule = "cosine"
condition = "class"
[train]
pictures = 160
batch = 8
micro_batch = 4
learning_rate = 1e-3
warmup_pictures = 32
decay = "cosine"
loss = "min_snr"
snapshot_pictures = 40
checkpoint_minutes = 0
log_steps = 3
"""


class Outcome(NamedTuple):
    """Hashes of the last checkpoint's tensors and the model's weights, and the log's steps."""

    checkpoint: str
    model: str
    steps: tuple[int, ...]


def draw_pictures(folder: Path) -> None:
    """Thirty small pictures in three classes, the same every time."""
    dice = random.Random(0)
    for number in range(30):
        place = folder / "pictures" / ("red", "green", "blue")[number % 3]
        place.mkdir(parents=True, exist_ok=True)
        data = bytes(dice.randrange(256) for _ in range(8 * 8 * 4))
        Image.frombytes("RGBA", (8, 8), data).save(place / f"{number}.png")


def run_once(folder: Path, run: Path) -> None:
    """Train to the end, or go on from where the run stands."""
    train(parse_config(CONFIG, folder), run)


def outcome(run: Path) -> Outcome:
    """What a finished run left."""
    last = state.newest(run, cleans=False)
    assert last is not None
    tensors = {name: tensor for name, tensor in last.tensors.items() if name != "window"}
    weights, _ = load(run / MODEL)
    lines = (run / "log.jsonl").read_text().splitlines()
    steps = tuple(json.loads(line)["step"] for line in lines)
    return Outcome(state.digest("", tensors), state.digest("", weights), steps)


def start(folder: Path, run: Path) -> BaseProcess:
    """A process that trains; a forked one, so that it starts at once."""
    process = multiprocessing.get_context("fork").Process(target=run_once, args=(folder, run))
    process.start()
    return process


def kill_once(folder: Path, run: Path, after: float) -> str | None:
    """Kill a fresh run ``after`` seconds; the newest checkpoint then, None if it had ended."""
    process = start(folder, run)
    process.join(after)
    if process.exitcode is not None:
        return None
    process.kill()
    process.join()
    found = state.checkpoints(run)
    return found[-1].stem if found else "none yet"


def main(kills: int, seed: int) -> int:
    """The table; the number of runs that differ."""
    dice, differing = random.Random(seed), 0
    torch.set_num_threads(1)
    torch.optim.AdamW([torch.zeros(1, requires_grad=True)]).zero_grad()  # imports much, once
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        draw_pictures(folder)
        began = time.perf_counter()
        process = start(folder, folder / "whole")
        process.join()
        lasted = time.perf_counter() - began
        expected = outcome(folder / "whole")
        print(f"unkilled: {lasted:.2f} s, weights {expected.model[:16]}")
        print(" kill   after s   newest checkpoint   weights            same")
        number = 0
        while number < kills:
            run, after = folder / f"run-{time.monotonic_ns()}", dice.uniform(0, lasted)
            newest = kill_once(folder, run, after)
            if newest is None:  # it was faster than the unkilled run: no kill, so no trial
                continue
            number += 1
            process = start(folder, run)
            process.join()
            found = outcome(run)
            same = found == expected
            differing += not same
            print(
                f"{number:5d}  {after:8.3f}   {newest:18s}  {found.model[:16]}   "
                f"{'yes' if same else 'NO'}",
                flush=True,
            )
    print(f"{kills - differing} of {kills} bit-identical")
    return differing


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="kill a training run, resume it, compare the bits")
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    sys.exit(1 if main(arguments.kills, arguments.seed) else 0)
