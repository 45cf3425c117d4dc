"""Our trainer beside what diffusers' script for unconditional generation does in each step.

The script is ``examples/unconditional_image_generation/train_unconditional.py`` of diffusers at
its defaults.  :func:`theirs` takes the same steps with the same libraries, with two differences
that are in its favour: pictures come straight from their files (not through the package
`datasets`), and it shows no progress bar and writes no log.
"""

from __future__ import annotations

import functools
import json
import random
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from diffusers.optimization import get_scheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.training_utils import EMAModel
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mezzotint.engine.config_file import parse_config
from mezzotint.engine.reports import Listener, Progress
from mezzotint.engine.train import train
from mezzotint.families.precision import fastest
from mezzotint.networks.unet import UNet, UNetConfig
from peers.models import Scale
from peers.report import Bar, Row, Section
from peers.timing import in_turns, median, ratios

SIZE = 64


class Rate(NamedTuple):
    """Pictures a second, and what a picture costs in milliseconds.

    data: waiting for it; network: forward and backward pass; rest: the optimizer and all else.
    """

    pictures: float
    data: float
    network: float
    rest: float


def _rate(steps: Sequence[tuple[float, float, float]], batch: int) -> Rate:
    """From the seconds of each step: the whole, waiting, in the network."""
    whole, data, network = (sum(column) for column in zip(*steps, strict=True))
    count = len(steps) * batch
    each = [1000 * value / count for value in (data, network, whole - data - network)]
    return Rate(count / whole, *each)


def draw_pictures(folder: Path, count: int) -> None:
    """Noise over gradients as PNG files, the same every time."""
    folder.mkdir(parents=True)
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[0:SIZE, 0:SIZE] * (160 // SIZE)
    ramps = np.stack([rows, columns, np.full_like(rows, 40)], axis=-1)  # (H, W, 3)
    for number in range(count):
        noise = generator.integers(0, 64, ramps.shape)
        picture = (np.roll(ramps, number, axis=-1) + noise).astype(np.uint8)
        Image.fromarray(picture).save(folder / f"{number:04d}.png")


# --- ours ---------------------------------------------------------------------------------------


def _toml(network: UNetConfig, scale: Scale, precision: str) -> str:
    """A run of which only the beginning is taken, on the trainer's defaults where it has them."""
    shape = {
        key: getattr(network, key) for key in ("width", "multipliers", "blocks", "attention")
    } | {"head_width": network.head_width}
    lines = "\n".join(f"{key} = {json.dumps(value)}" for key, value in shape.items())
    return f"""
name = "speed"
[data]
source = "pictures"
size = {SIZE}
cache_folder = "cache"
[network]
kind = "unet"
{lines}
[model]
prediction = "eps"
schedule = "linear"
[train]
pictures = {100 * scale.pictures}
batch = {scale.batch}
learning_rate = 1e-4
warmup_pictures = {500 * scale.batch}
decay = "cosine"
precision = "{precision}"
log_steps = 1
"""


def ours(folder: Path, scale: Scale, precision: Literal["bf16", "fp32"]) -> Rate:
    """`train` on a folder of pictures, stopped after enough steps."""
    told: list[tuple[float, Progress]] = []
    listener = Listener(
        progress=lambda progress: told.append((time.perf_counter(), progress)),
        stop=lambda: len(told) > scale.warm + scale.steps,
    )
    config = parse_config(_toml(scale.trained, scale, precision), folder)
    with tempfile.TemporaryDirectory(dir=folder) as run:
        train(config, Path(run), listener, torch.device("cpu"))
    steps: list[tuple[float, float, float]] = []
    for (before, _), (now, progress) in zip(
        told[scale.warm :], told[scale.warm + 1 :], strict=False
    ):
        spent = scale.batch / progress.pictures_per_second
        parts = progress.waiting_share * spent, progress.network_share * spent
        steps.append((now - before, *parts))
    return _rate(steps, scale.batch)


# --- theirs -------------------------------------------------------------------------------------


class _Pictures(Dataset[Tensor]):
    """Opened, resized, cropped at random and scaled to [−1, 1] each time one is asked for."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.iterdir())

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(self.paths[index]) as file:
            picture = file.convert("RGB")
        factor = SIZE / min(picture.size)
        if factor != 1:
            size = tuple(round(edge * factor) for edge in picture.size)
            picture = picture.resize(size, Image.Resampling.BILINEAR)
        left, top = (random.randint(0, edge - SIZE) for edge in picture.size)
        if picture.size != (SIZE, SIZE):
            picture = picture.crop((left, top, left + SIZE, top + SIZE))
        unit = torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous().float() / 255
        return (unit - 0.5) / 0.5


@dataclass
class _Peer:
    """The script's objects, as `accelerate` prepared them."""

    accelerator: Accelerator
    network: Any
    optimizer: Any
    loader: Any
    rate: Any
    ema: EMAModel | None
    scheduler: DDPMScheduler
    dtype: torch.dtype

    def step(self, pictures: Tensor) -> float:
        """One step of training; the seconds in the network, its loss and the backward pass."""
        clean = pictures.to(self.dtype)
        noise = torch.randn(clean.shape, dtype=self.dtype)
        times = torch.randint(0, self.scheduler.config.num_train_timesteps, (len(clean),)).long()
        noisy = self.scheduler.add_noise(clean, noise, times)
        with self.accelerator.accumulate(self.network):
            began = time.perf_counter()
            loss = F.mse_loss(self.network(noisy, times).float(), noise.float())
            self.accelerator.backward(loss)
            loss.detach().item()
            network = time.perf_counter() - began
            self.accelerator.clip_grad_norm_(self.network.parameters(), 1.0)
            self.optimizer.step()
            self.rate.step()
            self.optimizer.zero_grad()
        if self.ema is not None:
            self.ema.step(self.network.parameters())
        return network


def _peer(folder: Path, scale: Scale, precision: Literal["bf16", "no"], use_ema: bool) -> _Peer:
    AcceleratorState._reset_state(True)  # one process holds one precision, or is told so
    accelerator = Accelerator(cpu=True, mixed_precision=precision)
    torch.manual_seed(0)
    network = UNet(scale.trained)
    ema = None
    if use_ema:
        ema = EMAModel(
            network.parameters(), decay=0.9999, use_ema_warmup=True, inv_gamma=1.0, power=0.75
        )
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=1e-4, betas=(0.95, 0.999), weight_decay=1e-6, eps=1e-8
    )
    loader = DataLoader(_Pictures(folder / "pictures"), batch_size=scale.batch, shuffle=True)
    rate = get_scheduler(
        "cosine", optimizer, num_warmup_steps=500, num_training_steps=100 * len(loader)
    )
    prepared = accelerator.prepare(network, optimizer, loader, rate)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    scheduler = DDPMScheduler(num_train_timesteps=1000, beta_schedule="linear")
    return _Peer(accelerator, *prepared, ema, scheduler, dtype)


def theirs(
    folder: Path, scale: Scale, precision: Literal["bf16", "no"], use_ema: bool = False
) -> Rate:
    """The steps of the script; pictures are read in the main process, as is its default."""
    peer = _peer(folder, scale, precision, use_ema)
    peer.network.train()
    steps: list[tuple[float, float, float]] = []
    batches = iter(peer.loader)
    for number in range(scale.warm + scale.steps):
        began = time.perf_counter()
        pictures = next(batches, None)
        if pictures is None:  # the next epoch
            batches = iter(peer.loader)
            pictures = next(batches)
        data = time.perf_counter() - began
        network = peer.step(pictures)
        if number >= scale.warm:
            steps.append((time.perf_counter() - began, data, network))
    return _rate(steps, scale.batch)


# --- side by side -------------------------------------------------------------------------------


def _parts(name: str, rates: Sequence[Rate]) -> list[Row]:
    rows = [Row(f"{name}: pictures a second", tuple(r.pictures for r in rates), "pictures/s")]
    for part in ("network", "data", "rest"):
        values = tuple(getattr(rate, part) for rate in rates)
        rows.append(Row(f"{name}: a picture, {_PARTS[part]}", values, "ms"))
    return rows


_PARTS = {
    "network": "forward and backward",
    "data": "waiting for data",
    "rest": "optimizer, averages and all else",
}


def measure(scale: Scale) -> Section:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        draw_pictures(folder / "pictures", scale.pictures)
        half = fastest(torch.device("cpu")) == torch.bfloat16
        runs = {
            "ours, bf16 (default)": functools.partial(ours, folder, scale, "bf16"),
            "script, fp32 (default)": functools.partial(theirs, folder, scale, "no"),
            "script, bf16": functools.partial(theirs, folder, scale, "bf16"),
            "script, bf16, --use_ema": functools.partial(theirs, folder, scale, "bf16", True),
            "ours, fp32": functools.partial(ours, folder, scale, "fp32"),
        }
        if not half:
            runs = {name: run for name, run in runs.items() if "bf16" not in name}
        found = dict(zip(runs, in_turns(list(runs.values()), scale.cycles, warm=0), strict=True))
    speed = {name: [rate.pictures for rate in rates] for name, rates in found.items()}
    script = speed["script, fp32 (default)"]
    compared = [Row("both fp32", ratios(speed["ours, fp32"], script), "×")]
    if half:
        mine = speed["ours, bf16 (default)"]
        name, bar = "defaults: ours bf16 ÷ script fp32", Bar("at least", 1.3)
        compared = [
            Row(name, ratios(mine, script), "×", bar),
            Row("both bf16", ratios(mine, speed["script, bf16"]), "×"),
            Row("both bf16, both average", ratios(mine, speed["script, bf16, --use_ema"]), "×"),
            *compared,
        ]
    parts = [row for name, rates in found.items() for row in _parts(name, rates)]
    return Section(
        "training", "Beside diffusers' training script", _text(found, scale), (*compared, *parts)
    )


def _text(found: dict[str, list[Rate]], scale: Scale) -> str:
    def cost(name: str, part: str) -> float:
        return median([getattr(rate, part) for rate in found[name]])

    default, script = "ours, bf16 (default)", "script, fp32 (default)"
    own = "bf16 autocast" if default in found else "float32, for bfloat16 is not faster here"
    default = default if default in found else "ours, fp32"
    saved = {part: cost(script, part) - cost(default, part) for part in _PARTS}
    size = sum(weight.numel() for weight in UNet(scale.trained).parameters()) / 1e6
    shares = ", ".join(f"{_PARTS[part]} {value:+.2f} ms" for part, value in saved.items())
    return (
        f"The same U-Net ({size:.1f} M parameters, {SIZE} px, RGB, unconditional, eps), the same "
        f"{scale.pictures} PNG files, batches of {scale.batch}. *Script* takes the steps of "
        "diffusers' `train_unconditional.py` at its defaults: `accelerate` without mixed "
        "precision, pictures read in the main process, AdamW, cosine rate, gradients clipped at "
        f"1, no average of the weights. Ours takes its own defaults: {own}, pictures from "
        "a cache, fused AdamW, channels-last weights, two averages of the "
        "weights and a report of the loss by level. Timed are steps, not the preparation: reading "
        "the files once into the cache (ours), checkpoints (both).\n\n"
        f"What our defaults save of the script's time for a picture: {shares}. The rows of equal "
        "precision show what is left without bf16's part."
    )
