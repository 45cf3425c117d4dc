"""`mezzotint train`: a run with a progress bar, that Ctrl-C stops at a checkpoint."""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import FrameType

import torch
from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from mezzotint.engine.config import TrainConfig
from mezzotint.engine.config_file import read_config
from mezzotint.engine.generate import generate
from mezzotint.engine.reports import Listener, Progress
from mezzotint.engine.request import Request
from mezzotint.engine.train import train
from mezzotint.families.model import Model
from mezzotint.modalities import image as pictures
from mezzotint.provenance.grid import chosen

SAMPLES = "samples"
_LINE_EVERY = 60.0  # seconds between lines where there is no terminal for a bar


class _Show:
    """What a run tells, on standard error: a bar in a terminal, else a line now and then."""

    def __init__(self, console: Console, quiet: bool) -> None:
        self._console, self._quiet = console, quiet
        self._bar = Bar(
            TextColumn("{task.fields[told]}"),
            BarColumn(),
            TextColumn("{task.percentage:.1f} %"),
            TimeElapsedColumn(),
            TimeRemainingColumn(elapsed_when_finished=True),
            console=console,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        self._task: TaskID | None = None
        self._next = 0.0

    def note(self, text: str) -> None:
        if not self._quiet:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def progress(self, told: Progress) -> None:
        if self._quiet:
            return
        text = f"loss {told.loss:.4f}  {told.pictures_per_second:.1f} images/s"
        if self._console.is_terminal:
            if self._task is None:
                self._task = self._bar.add_task("", total=told.steps, told=text)
                self._bar.start()
            self._bar.update(self._task, completed=told.step, told=text)
        elif time.monotonic() >= self._next:
            self._next = time.monotonic() + _LINE_EVERY
            left = (told.steps - told.step) * told.pictures / told.step
            minutes = left / max(told.pictures_per_second, 1e-9) / 60
            self.note(f"step {told.step} of {told.steps}  {text}  {minutes:.0f} min left")

    def close(self) -> None:
        self._bar.stop()


@contextmanager
def _stopping() -> Iterator[list[int]]:
    """A list that is filled by the first Ctrl-C or SIGTERM; the second acts as always."""
    asked: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def ask(number: int, frame: FrameType | None) -> None:
        asked.append(number)
        print("stopping at a checkpoint; once more to stop at once", file=sys.stderr)
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, ask)
    try:
        yield asked
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _write_samples(config: TrainConfig, out: Path, model: Model, count: int) -> Path:
    """A contact sheet of the configuration's sample prompts; seeds 0, 1 … the same every time."""
    prompts = config.train.sample_prompts
    made = [
        pictures.to_image(generate(model, Request(prompt, (seed,)))[0])
        for seed, prompt in enumerate(prompts)
    ]
    folder = out / SAMPLES
    folder.mkdir(exist_ok=True)
    path = folder / f"{count:010d}.png"
    columns = math.ceil(math.sqrt(len(made)))
    pictures.write(pictures.contact_sheet(made, columns, prompts), path)
    return path


def run(args: argparse.Namespace) -> int:
    """Train, or go on; print the name of the model's file.  130 if it was stopped on the way."""
    config, electricity = read_config(Path(args.config)), chosen(args.grid)
    if args.skip_bad:
        config = replace(config, data=replace(config.data, skip_bad=True))
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    out = Path(args.out)
    follower = os.environ.get("RANK", "0") != "0"  # of torchrun: its first process speaks for all
    show = _Show(Console(stderr=True), args.quiet or follower)

    def sample(model: Model, count: int) -> None:
        show.note(f"samples: {_write_samples(config, out, model, count)}")

    with _stopping() as asked:
        listener = Listener(
            note=show.note,
            progress=show.progress,
            sampler=sample if config.train.sample_prompts else None,
            stop=lambda: bool(asked),
        )
        try:
            path = train(config, out, listener, electricity=electricity, meter=args.meter)
        finally:
            show.close()
    if path == out:
        show.note(f"stopped; the same command goes on with {out}")
        return 130
    if not follower:
        print(path)
    return 0
