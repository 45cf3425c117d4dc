"""A model trained by the `train` command on handwritten digits: readable, varied, not copied.

Three measures that no single trick satisfies.  A classifier trained on the real digits must read
the made ones as what was asked for: noise and the wrong digit fail.  Within each class they must
differ from each other as much as real ones do: a model that always draws the same 7 fails.  And
they must lie as near to the training pictures as real held-out digits do: noise, which also makes
digits differ, lies too far away, and copies of the training pictures, which differ as much as the
originals, lie too near.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.svm import SVC

from mezzotint.engine.generate import generate
from mezzotint.engine.request import Request
from mezzotint.families.native import load_model

pytestmark = pytest.mark.slow

RECIPE = Path(__file__).parents[2] / "recipes" / "digits"
CLASSES = 10
MADE = 60
"""Digits made of each class."""

Digits = list[np.ndarray]
"""By class, ``(N, 64)`` in [0, 1]."""


class Trained(NamedTuple):
    """A finished run, its data, and what training cost in processor time."""

    folder: Path
    train: Digits
    test: Digits
    minutes: float


def _processor_seconds() -> float:
    """Used by the child processes that have ended: independent of what else the machine does."""
    times = os.times()
    return times.children_user + times.children_system


def _read(folder: Path) -> Digits:
    return [
        np.stack(
            [np.asarray(Image.open(p)).reshape(-1) / 255 for p in sorted(folder.glob(f"{c}/*"))]
        )
        for c in range(CLASSES)
    ]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Trained:
    """The recipe, followed by its own commands."""
    here = tmp_path_factory.mktemp("digits")
    environment = {**os.environ, "XDG_CACHE_HOME": str(here), "LOCALAPPDATA": str(here)}

    def run(*command: str) -> None:
        subprocess.run([sys.executable, *command], check=True, env=environment)

    shutil.copy(RECIPE / "digits.toml", here)
    run(str(RECIPE / "make.py"), "--out", str(here / "work"))
    began = _processor_seconds()
    run("-m", "mezzotint", "train", str(here / "digits.toml"), "--out", str(here / "run"))
    minutes = (_processor_seconds() - began) / 60
    work = here / "work"
    return Trained(here / "run", _read(work / "train"), _read(work / "test"), minutes)


@pytest.fixture(scope="module")
def made(trained: Trained) -> Digits:
    """Digits as `generate` makes them with the model's own defaults, rounded as in a file."""
    model, _ = load_model(trained.folder / "model.safetensors")
    digits: Digits = []
    for label in range(CLASSES):
        seeds = tuple(range(label * MADE, (label + 1) * MADE))
        pictures = torch.stack(generate(model, Request(str(label), seeds)))
        digits.append(((pictures.flatten(1) + 1) * 127.5).round().numpy() / 255)
    return digits


@pytest.fixture(scope="module")
def classifier(trained: Trained) -> SVC:
    """Trained on real digits only; ``gamma`` is scikit-learn's own example's, at this scale."""
    labels = np.repeat(np.arange(CLASSES), [len(digits) for digits in trained.train])
    return SVC(gamma=0.001 * 16**2, C=10).fit(np.concatenate(trained.train), labels)


def _accuracy(classifier: SVC, digits: Digits) -> list[float]:
    """The share of each class that is read as what it is."""
    return [float((classifier.predict(own) == label).mean()) for label, own in enumerate(digits)]


def _distances(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Euclidean, ``(len(a), len(b))``."""
    return np.linalg.norm(a[:, None] - b[None], axis=-1)


def _diversity(digits: np.ndarray) -> float:
    """The mean distance between two different digits of a class."""
    return float(_distances(digits, digits).sum() / (len(digits) * (len(digits) - 1)))


def _nearest(digits: Digits, others: Digits) -> np.ndarray:
    """From each digit to the nearest one of its class among the others."""
    pairs = zip(digits, others, strict=True)
    return np.concatenate([_distances(own, other).min(1) for own, other in pairs])


def test_an_independent_classifier_reads_them(
    trained: Trained, made: Digits, classifier: SVC, capsys: pytest.CaptureFixture[str]
) -> None:
    real, ours = _accuracy(classifier, trained.test), _accuracy(classifier, made)
    with capsys.disabled():
        print(
            f"\ntraining took {trained.minutes:.1f} processor minutes; read correctly: held-out "
            f"real digits {np.mean(real):.1%}, made ones {np.mean(ours):.1%} "
            f"(worst class {min(ours):.1%})"
        )
    assert np.mean(real) >= 0.98  # else it is no judge
    assert np.mean(ours) >= 0.95


def test_they_differ_as_real_ones_do(
    trained: Trained, made: Digits, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = zip(made, trained.train, strict=True)
    ratios = [_diversity(ours) / _diversity(real) for ours, real in pairs]
    with capsys.disabled():
        print(
            f"\ndiversity within a class, of the real data's: mean {np.mean(ratios):.3f}, "
            f"least {min(ratios):.3f}"
        )
    assert np.mean(ratios) >= 0.9
    assert min(ratios) >= 0.75


def test_they_are_neither_noise_nor_copies(
    trained: Trained, made: Digits, capsys: pytest.CaptureFixture[str]
) -> None:
    real, ours = _nearest(trained.test, trained.train), _nearest(made, trained.train)
    copied = (ours < real.min()).mean()
    ratio = float(np.median(ours) / np.median(real))
    with capsys.disabled():
        print(
            f"\nnearest training picture: median {np.median(ours):.3f}, of held-out real digits "
            f"{np.median(real):.3f} (ratio {ratio:.2f}); nearer than any held-out one: {copied:.1%}"
        )
    assert 0.6 <= ratio <= 1.3
    assert copied <= 0.05
