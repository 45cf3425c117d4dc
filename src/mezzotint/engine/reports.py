"""What a run tells while it runs: listeners, ``log.jsonl``, TensorBoard."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from mezzotint.diffusion.losses import LevelReport
from mezzotint.engine.state import TrainError
from mezzotint.families.model import Model
from mezzotint.files import atomic_write

LOG = "log.jsonl"
BINS = 10


@dataclass(frozen=True)
class Progress:
    """Where a run stands.  Means are over the steps since the last line of the log.

    loss: mean weighted loss; levels: the same by tenths of the time t (0 data, 1 noise), nan where
        nothing was drawn; none for an autoencoder.
    gradient_norm: before clipping; pictures_per_second: while stepping.
    network_share: share of that time in the network's forward and backward pass; waiting_share:
        spent waiting for data.
    seconds: of the whole run, over all restarts; wh: that it took till the last line of the log,
        measured or estimated as its last line says.
    """

    step: int
    steps: int
    pictures: int
    epoch: int
    loss: float
    levels: tuple[float, ...]
    gradient_norm: float
    learning_rate: float
    pictures_per_second: float
    network_share: float
    waiting_share: float
    seconds: float
    wh: float


def _ignore(_: Any) -> None: ...


@dataclass(frozen=True)
class Listener:
    """Functions that a run calls, in its first process.

    note: one line on what is being done; progress: after every step.
    sampler: with the averaged model and the pictures seen, when sample pictures are due.
    stop: asked after every step; True ends the run with a checkpoint, to go on another time.
    """

    note: Callable[[str], None] = _ignore
    progress: Callable[[Progress], None] = _ignore
    sampler: Callable[[Model, int], None] | None = None
    stop: Callable[[], bool] = field(default=lambda: False)


class Window:
    """Sums since the last line of the log; they are part of a checkpoint."""

    EDGES = torch.linspace(0, 1, BINS + 1, dtype=torch.float64)

    def __init__(self) -> None:
        self.sums = torch.zeros(2 * BINS + 5, dtype=torch.float64)

    def add(
        self, report: LevelReport, norm: float, seconds: float, network: float, waiting: float
    ) -> None:
        """One step's losses, gradient norm and times."""
        rest = torch.tensor([1, norm, seconds, network, waiting], dtype=torch.float64)
        self.sums += torch.cat([report.total, report.samples, rest])

    def progress(
        self,
        step: int,
        steps: int,
        batch: int,
        epoch: int,
        rate: float,
        seconds: float,
        levels: bool,
        wh: float,
    ) -> Progress:
        total, count = self.sums[:BINS], self.sums[BINS : 2 * BINS]
        number, norm, spent, network, waiting = self.sums[2 * BINS :].tolist()
        return Progress(
            step=step,
            steps=steps,
            pictures=step * batch,
            epoch=epoch,
            loss=float(total.sum() / count.sum()),
            levels=tuple((total / count).tolist()) if levels else (),
            gradient_norm=norm / number,
            learning_rate=rate,
            pictures_per_second=float(count.sum()) / spent,
            network_share=network / spent,
            waiting_share=waiting / spent,
            seconds=seconds,
            wh=wh,
        )


def _plain(value: Any) -> Any:
    """JSON has no nan: an empty bin is null there; six digits are enough to read."""
    if isinstance(value, tuple):
        return [_plain(entry) for entry in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if value == value else None
    return value


class Log:
    """``RUN/log.jsonl``, one JSON object a line, and TensorBoard's events if they are wanted.

    Args:
        step: where the run goes on; lines after it, left by a run that was killed later than its
            last checkpoint, are removed, so that no step is told twice.
    """

    def __init__(self, run: Path, step: int, tensorboard: bool) -> None:
        self.path = run / LOG
        if self.path.exists():
            self._truncate(step)
        self._board = _board(run, step) if tensorboard else None

    def _truncate(self, step: int) -> None:
        kept: list[bytes] = []
        for line in self.path.read_bytes().splitlines(keepends=True):
            try:
                after = json.loads(line)["step"] > step
            except ValueError:
                break  # the line that the kill cut
            if after or not line.endswith(b"\n"):
                break
            kept.append(line)
        with atomic_write(self.path) as file:
            file.writelines(kept)

    def write(self, progress: Progress) -> None:
        """Raises WriteError through the caller's next checkpoint if the disk is full."""
        values = {name: _plain(value) for name, value in asdict(progress).items()}
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(values) + "\n")
        if self._board is None:
            return
        for name in ("loss", "gradient_norm", "learning_rate", "pictures_per_second"):
            self._board.add_scalar(name, getattr(progress, name), progress.step)
        for number, value in enumerate(progress.levels):
            if value == value:
                self._board.add_scalar(f"levels/{number / BINS:.1f}", value, progress.step)

    def close(self) -> None:
        if self._board is not None:
            self._board.close()


def _board(run: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise TrainError(
            "train.tensorboard = true needs a package: install mezzotint[tracking], or leave it out"
        ) from error
    return SummaryWriter(str(run / "tensorboard"), purge_step=step + 1)
