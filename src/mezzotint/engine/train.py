"""Train a model from a folder of pictures; killed at any instant, it goes on bit by bit.

``train(config, run)`` writes into the run's folder: ``config.toml``, ``log.jsonl``,
``checkpoints/`` (the last two), ``snapshots/`` of the averaged weights, ``cache/`` of the data,
and at the end ``model.safetensors``.  Called again with the same folder it goes on from the last
checkpoint; the weights that come out are those of a run that was never stopped.
"""

from __future__ import annotations

import math
import os
import time
from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from mezzotint.diffusion.losses import LevelReport, level_report
from mezzotint.engine import ema, state
from mezzotint.engine.config import StepsConfig, TrainConfig, differences
from mezzotint.engine.config_file import parse_config, to_toml
from mezzotint.engine.objectives import Batch
from mezzotint.engine.prepare import Task, prepare
from mezzotint.engine.reports import Listener, Log, Progress, Window
from mezzotint.engine.state import Checkpoint, TrainError
from mezzotint.engine.team import Team, join
from mezzotint.families.precision import fastest
from mezzotint.files import atomic_write
from mezzotint.networks.dit import DiT
from mezzotint.provenance import energy, grid
from mezzotint.provenance.meter import Meter

MODEL = "model.safetensors"
CONFIG = "config.toml"
DRAWERS = 4
"""Threads, at most, that draw a GPU's batches: the noise takes most of it, and lets others run."""


@dataclass
class Run:
    """A run in progress: its weights and counters are what changes."""

    config: TrainConfig
    folder: Path
    team: Team
    task: Task
    weights: dict[str, nn.Parameter]
    averages: list[dict[str, Tensor]]
    optimizer: torch.optim.AdamW
    meter: Meter
    step: int = 0
    seconds: float = 0.0
    spent: energy.Energy = field(default_factory=energy.Energy)
    window: Window = field(default_factory=Window)

    @property
    def steps(self) -> int:
        return -(-self.config.train.pictures // self.config.train.batch)

    @property
    def pictures(self) -> int:
        return self.step * self.config.train.batch

    def count(self) -> energy.Energy:
        """All energy so far, over all restarts and processes, of which each does alike."""
        work = energy.times(self.meter.take(), self.team.size, self.team.machines)
        self.spent = energy.total((self.spent, work))
        return self.spent

    def due(self, every: int) -> bool:
        """Whether the step just done passed a multiple of ``every`` pictures (0: never)."""
        before = self.pictures - self.config.train.batch
        return every > 0 and self.pictures // every > before // every


# --- one step ---------------------------------------------------------------------------------


def learning_rate(train: StepsConfig, step: int) -> float:
    """The rate of a step, counted from 0: linear warm-up times the decay.

    "inverse_sqrt" is ``1 / sqrt(max(pictures / decay_pictures, 1))`` (Karras et al. 2024, eq. 67).
    """
    done = step * train.batch
    warm = min(1.0, (done + train.batch) / train.warmup_pictures) if train.warmup_pictures else 1.0
    left = 1 - min(1.0, done / train.pictures)
    factors = {
        "constant": 1.0,
        "linear": left,
        "cosine": (1 - math.cos(math.pi * left)) / 2,
        "inverse_sqrt": max(done / max(train.decay_pictures, 1), 1) ** -0.5,
    }
    return train.learning_rate * warm * factors[train.decay]


def _refuse(step: int, report: LevelReport, norm: float, levels: bool) -> TrainError:
    """The error for a loss or gradient that is not finite; the weights are as before."""
    means = report.mean().nan_to_num(math.inf).where(report.samples > 0, torch.tensor(-math.inf))
    worst = int(means.argmax())
    where = f" (worst at levels t = {worst / 10:.1f} to {worst / 10 + 0.1:.1f})" if levels else ""
    what = "loss" if not bool(report.total.isfinite().all()) else f"gradient's norm, {norm},"
    return TrainError(
        f"step {step}: the {what} is not finite{where}: lower train.learning_rate, lengthen "
        "train.warmup_pictures or set train.precision = 'fp32'; the last checkpoint is untouched"
    )


def _gradients(run: Run, micros: list[Batch]) -> tuple[LevelReport, float]:
    """Gradients of the batch's mean loss, summed over micro-batches and processes.

    Returns the batch's losses by level, and the seconds spent in the network.
    """
    train, objective, device = run.config.train, run.task.objective, run.team.device
    run.optimizer.zero_grad(set_to_none=True)
    losses: list[Tensor] = []
    started = time.perf_counter()
    for number, micro in enumerate(micros):
        # Dropout draws from the global generator: each pass has its own seed, so nothing carries
        # over a restart.
        torch.manual_seed(hash((run.config.seed, run.step, run.team.rank, number)) & 0x7FFFFFFF)
        with torch.autocast(device.type, torch.bfloat16, enabled=train.precision == "bf16"):
            each = objective.losses(micro.to(device))
        (each.sum() / train.batch).backward()
        losses.append(each.detach())
    collected = torch.cat(losses).cpu()
    network = time.perf_counter() - started
    times = torch.cat([micro.time for micro in micros])
    report = level_report(times, collected, Window.EDGES)
    gradients = [w.grad for w in run.weights.values() if w.grad is not None]
    run.team.sum(gradients)
    run.team.sum([report.total, report.samples])
    return report, network


def _step(run: Run, micros: list[Batch], waiting: float) -> None:
    """One optimization step; a loss or gradient that is not finite leaves the weights alone."""
    started, train = time.perf_counter(), run.config.train
    report, network = _gradients(run, micros)
    trained = [weight for weight in run.weights.values() if weight.grad is not None]
    norm = nn.utils.get_total_norm([w.grad for w in trained if w.grad is not None])
    size = float(norm)
    if not math.isfinite(size) or not bool(report.total.isfinite().all()):
        raise _refuse(run.step + 1, report, size, run.task.levels)
    if train.clip:
        nn.utils.clip_grads_with_norm_(trained, train.clip, norm)
    for group in run.optimizer.param_groups:
        group["lr"] = learning_rate(train, run.step)
    run.optimizer.step()
    run.step += 1
    weights = [weight.detach() for weight in run.weights.values()]
    for width, average in zip(train.ema, run.averages, strict=True):
        ema.update(list(average.values()), weights, run.step, ema.gamma_of(width))
    run.window.add(report, size, time.perf_counter() - started + waiting, network, waiting)


# --- data -------------------------------------------------------------------------------------


def _share(train: StepsConfig, team: Team, step: int) -> list[range]:
    """The sample numbers of this process's micro-batches in a step."""
    share = team.share(train.batch)
    first, last = step * train.batch + share.start, step * train.batch + share.stop
    size = train.micro_batch or len(share)
    return [range(start, min(start + size, last)) for start in range(first, last, size)]


def _batches(run: Run) -> Generator[list[Batch]]:
    """The batches of the steps left.

    A GPU's are drawn ahead by threads, into memory that it can read by itself.  On a CPU they are
    drawn in turn: a thread takes the network's threads out of step, which cost 7 ms a picture
    where drawing costs 0.4.
    """

    def draw(step: int) -> list[Batch]:
        shares = _share(run.config.train, run.team, step)
        return [run.task.objective.draw(numbers) for numbers in shares]

    steps = range(run.step, run.steps)
    if run.team.device.type == "cpu":
        yield from map(draw, steps)
        return
    pins = run.team.device.type == "cuda"

    def draw_ahead(step: int) -> list[Batch]:
        return [batch.pinned() if pins else batch for batch in draw(step)]

    yield from _ahead(draw_ahead, steps, max(1, min(DRAWERS, (os.cpu_count() or 1) - 1)))


def _ahead(
    draw: Callable[[int], list[Batch]], steps: range, threads: int
) -> Generator[list[Batch]]:
    """``draw`` of each step in order, by so many threads; one step more than those lies ready."""
    with ThreadPoolExecutor(threads, "mezzotint-data") as pool:
        ahead = deque(pool.submit(draw, step) for step in steps[: threads + 1])
        for step in steps:
            batches = ahead.popleft().result()
            if step + threads + 1 < steps.stop:
                ahead.append(pool.submit(draw, step + threads + 1))
            yield batches


# --- checkpoints ------------------------------------------------------------------------------


def _tensors(run: Run) -> dict[str, Tensor]:
    found: dict[str, Tensor] = {"window": run.window.sums}
    for name, weight in run.weights.items():
        found[f"network/{name}"] = weight.detach()
        moments = run.optimizer.state.get(weight, {})
        for key, value in moments.items():
            found[f"adam.{key}/{name}"] = value
    for number, average in enumerate(run.averages):
        found |= {f"ema.{number}/{name}": value for name, value in average.items()}
    return found


def _save(run: Run) -> None:
    """A checkpoint, by the first process."""
    if run.team.first:
        text = to_toml(run.config)
        checkpoint = Checkpoint(
            run.step,
            run.pictures,
            run.seconds,
            text,
            run.task.data,
            _tensors(run),
            energy.kept(run.count()),
        )
        state.write(run.folder, checkpoint)


def _restore(run: Run, checkpoint: Checkpoint) -> None:
    """Take over a checkpoint's tensors and counters."""
    tensors = checkpoint.tensors
    try:
        with torch.no_grad():
            for name, weight in run.weights.items():
                weight.copy_(tensors[f"network/{name}"])
                for average, number in zip(run.averages, range(len(run.averages)), strict=True):
                    average[name].copy_(tensors[f"ema.{number}/{name}"])
                if f"adam.step/{name}" not in tensors:
                    continue  # a weight that no gradient has reached
                run.optimizer.state[weight] = {
                    "step": tensors[f"adam.step/{name}"].clone().to(weight.device),
                    **{
                        key: torch.zeros_like(weight).copy_(tensors[f"adam.{key}/{name}"])
                        for key in ("exp_avg", "exp_avg_sq")
                    },
                }
    except (KeyError, RuntimeError) as error:
        raise TrainError(
            f"{run.folder}: the checkpoint is of another network ({error}): train in a new folder"
        ) from error
    run.window.sums.copy_(tensors["window"])
    run.step, run.seconds = checkpoint.step, checkpoint.seconds
    run.spent = energy.restored(checkpoint.energy)


def _check_resumed(config: TrainConfig, task: Task, checkpoint: Checkpoint, folder: Path) -> None:
    changed = differences(parse_config(checkpoint.config, folder), config)
    if changed:
        raise TrainError(
            f"{folder} holds a run with another configuration: {', '.join(changed)}: change it "
            "back, or train in a new folder"
        )
    if checkpoint.data != task.data:
        raise TrainError(
            f"{folder} holds a run on other data: files, captions, labels or weights have changed: "
            "bring them back, or train in a new folder"
        )


# --- the run ----------------------------------------------------------------------------------


def _settled(config: TrainConfig, folder: Path, team: Team) -> TrainConfig:
    """The configuration with its precision chosen: what a run has begun with, else the faster."""
    if config.train.precision != "auto":
        return config
    told, chosen = folder / CONFIG, "auto"
    if told.exists():  # a run's, which has chosen; or one that a person keeps there
        chosen = parse_config(told.read_text(), folder).train.precision
    if chosen == "auto":
        votes = torch.tensor([float(fastest(team.device) == torch.bfloat16)], device=team.device)
        team.sum([votes])
        chosen = "bf16" if int(votes) == team.size else "fp32"
    return replace(config, train=replace(config.train, precision=chosen))


@contextmanager
def _locked(folder: Path, first: bool) -> Iterator[None]:
    """One run a folder; the lock dies with the process that holds it."""
    if not first or os.name == "nt":
        yield
        return
    import fcntl

    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise TrainError(f"{folder}: another process is training there: wait for it") from error
        yield


def _check_sizes(train: StepsConfig, team: Team) -> None:
    if train.batch % team.size:
        raise TrainError(
            f"train.batch = {train.batch} does not divide over {team.size} processes: change it"
        )
    if train.micro_batch > train.batch // team.size:
        raise TrainError(
            f"train.micro_batch = {train.micro_batch} is more than a process's share of a batch, "
            f"{train.batch // team.size}: make it smaller, or 0"
        )


def _begin(config: TrainConfig, folder: Path, team: Team, task: Task, meter: Meter) -> Run:
    """A run at its start: fresh weights, or those of the newest checkpoint."""
    network = task.objective.network.to(team.device).train()
    if task.objective.frozen is not None:
        task.objective.frozen.to(team.device)
    if not isinstance(network, DiT):  # convolutions are faster with channels innermost
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    weights = dict(network.named_parameters())
    if set(weights) != set(network.state_dict()):
        raise TrainError("the network keeps state outside its weights: it cannot be resumed")
    matrices = [weight for weight in weights.values() if weight.ndim >= 2]
    vectors = [weight for weight in weights.values() if weight.ndim < 2]
    optimizer = torch.optim.AdamW(
        [
            {"params": matrices, "weight_decay": config.train.weight_decay},
            {"params": vectors, "weight_decay": 0.0},  # gains and biases have no scale to decay
        ],
        lr=config.train.learning_rate,
        betas=config.train.betas,
        fused=True,
    )
    averages = [{n: w.detach().clone() for n, w in weights.items()} for _ in config.train.ema]
    run = Run(config, folder, team, task, weights, averages, optimizer, meter)
    checkpoint = state.newest(folder, cleans=team.first)
    if checkpoint is not None:
        _check_resumed(config, task, checkpoint, folder)
        _restore(run, checkpoint)
    for step, path in ema.snapshots(folder).items() if team.first else ():
        if step > run.step:  # the run will come by there again
            path.unlink()
    if config.train.compile:
        network.compile()
    return run


def _finish(run: Run, electricity: grid.Grid) -> Path:
    """The final model: the chosen average of the weights, and in its notes what it took."""
    train, path = run.config.train, run.folder / MODEL
    width = train.ema[0] if train.final_ema is None else train.final_ema
    if width in train.ema:
        weights = run.averages[train.ema.index(width)]
    else:
        weights = ema.reconstruct(run.folder, width)
    notes = {"pictures": str(run.pictures), "seconds": f"{run.seconds:.0f}", "ema": str(width)}
    notes["energy"] = energy.line(run.spent, electricity)
    run.task.export(path, weights, notes)
    return path


def _report(run: Run, log: Log | None, listener: Listener) -> None:
    """After a step, in the first process: progress, log, snapshots, sample pictures."""
    train = run.config.train
    if log is None:
        return
    run.meter.lap()
    writes = run.step % train.log_steps == 0 or run.step == run.steps
    wh = (run.count() if writes else run.spent).wh
    epoch = run.pictures // run.task.items
    rate = learning_rate(train, run.step - 1)
    progress: Progress = run.window.progress(
        run.step, run.steps, train.batch, epoch, rate, run.seconds, run.task.levels, wh
    )
    listener.progress(progress)
    if writes:
        log.write(progress)
        run.window = Window()
    if run.due(train.snapshot_pictures) or (train.snapshot_pictures and run.step == run.steps):
        ema.write_snapshot(run.folder, run.step, train.ema, run.averages)
    if run.due(train.sample_pictures) and listener.sampler and run.task.preview:
        listener.sampler(run.task.preview(run.averages[0]), run.pictures)


def _stops(run: Run, listener: Listener) -> bool:
    """Whether the first process was asked to stop; all agree."""
    wish = torch.tensor([float(run.team.first and listener.stop())], device=run.team.device)
    run.team.sum([wish])
    return bool(wish > 0)


def _loop(run: Run, log: Log | None, listener: Listener) -> None:
    clock = saved = time.perf_counter()
    with closing(_batches(run)) as batches:
        while run.step < run.steps:
            asked = time.perf_counter()
            micros = next(batches)
            _step(run, micros, time.perf_counter() - asked)
            now = time.perf_counter()
            run.seconds, clock = run.seconds + now - clock, now
            _report(run, log, listener)
            stops = _stops(run, listener)
            if stops or now - saved > 60 * run.config.train.checkpoint_minutes:
                _save(run)
                saved = time.perf_counter()
            if stops:
                return


def train(
    config: TrainConfig,
    out: Path,
    listener: Listener | None = None,
    device: torch.device | None = None,
    electricity: grid.Grid | None = None,
    meter: Meter | None = None,
) -> Path:
    """Train, or go on; the path of the final model (of the run's folder if it was stopped).

    Args:
        out: the run's folder; made if it is not there.
        listener: what to call on the way.
        device: None takes a GPU if there is one.
        electricity: where it comes from; None takes the world's average.
        meter: of what was spent since it was made; None: since now.

    Raises:
        DatasetError, TrainError, ConfigError, CheckpointError, WriteError: each one line.
    """
    listener, electricity = listener or Listener(), electricity or grid.grid()
    with join(device) as team:
        meter = (meter or Meter()).watch(team.device)
        _check_sizes(config.train, team)
        if team.first:
            out.mkdir(parents=True, exist_ok=True)
        config = _settled(config, out, team)
        team.wait()
        gpus = [team.device] if team.device.type == "cuda" else []
        with _locked(out, team.first), torch.random.fork_rng(gpus):
            torch.manual_seed(config.seed)
            task = prepare(config, out, team, listener)
            run = _begin(config, out, team, task, meter)
            if not team.first:
                _loop(run, None, Listener())
                team.wait()
                return out / MODEL
            with atomic_write(out / CONFIG) as file:
                file.write(to_toml(config).encode())
            with closing(Log(out, run.step, config.train.tensorboard)) as log:
                _loop(run, log, listener)
            if run.step < run.steps:
                path = out
            else:
                _save(run)
                path = _finish(run, electricity)
            listener.note(f"energy: {energy.line(run.spent, electricity)}")
            team.wait()
            return path
