"""A model of 8 × 8 pixels with random weights: what is tested or measured beside it is not it."""

from __future__ import annotations

from pathlib import Path

import torch

from mezzotint.families.model import Defaults
from mezzotint.families.native import NativeConfig, build, save_model
from mezzotint.networks.dit import DiTConfig


def write(path: Path, seed: int = 0) -> None:
    """A class-conditional RGBA model as a file."""
    config = NativeConfig(
        name="tiny",
        network=DiTConfig(4, 4, patch=4, width=24, depth=1, heads=2, vector_width=2),
        channels="rgba",
        condition="class",
        prediction="x0",
        schedule="flow",
        defaults=Defaults((8, 8), 3, 1.5, "euler", "linspace"),
        classes=("fox", "red fox"),
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        parts = torch.nn.ModuleDict(build(config).parts)
        for weight in parts.parameters():  # a fresh network's last layer is zero
            torch.nn.init.normal_(weight, std=0.2)
    save_model(path, config, parts.state_dict())
