"""`mezzotint inspect`, `samplers` and `doctor`: what a file, the program and the machine are."""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import time
from dataclasses import replace
from importlib import metadata
from pathlib import Path

import torch

import mezzotint
from mezzotint.apps.commands_licences import said
from mezzotint.apps.table import columns
from mezzotint.checkpoints.inspect import inspect
from mezzotint.diffusion import samplers, spacings
from mezzotint.engine.licences import record
from mezzotint.families import catalogue, text
from mezzotint.families.sizes import written
from mezzotint.provenance.terms import allowed

_NEEDED = (
    *("torch", "numpy", "safetensors", "tokenizers", "pillow", "rich"),
    *("c2pa-python", "cryptography"),
)
_IN_A_ROW = 8
_EXTRAS = {"tracking": ("tensorboard",), "recipes": ("resvg",), "gguf": ("gguf",)}


def _sizes(path: Path) -> list[tuple[str, str]]:
    """Rows with the sizes that a checkpoint was trained on, some of them a row."""
    names = [written(size) for size in catalogue.trained_sizes(path)]
    rows = [
        ", ".join(names[first : first + _IN_A_ROW]) for first in range(0, len(names), _IN_A_ROW)
    ]
    return [("" if number else "sizes", row) for number, row in enumerate(rows)]


def _terms(file: str) -> list[tuple[str, str]]:
    """What is stated of its licence, and whether that allows commercial use."""
    known = record(file)
    return [("licence", said(known)), ("commercial use", allowed(known))]


def run_inspect(args: argparse.Namespace) -> int:
    report = inspect(args.file)
    rows = [*(_terms(args.file) if report.tensors else ()), *_sizes(report.path)]
    print("\n".join(replace(report, details=(*report.details, *rows)).lines()))
    return 0


# --- samplers ---------------------------------------------------------------------------------


def _summary(spacing: spacings.Spacing) -> str:
    """The first paragraph on a spacing, or on the function that makes it."""
    maker = getattr(spacings, spacing.__qualname__.split(".")[0])
    paragraph = (maker.__doc__ or "").strip().split("\n\n")[0]
    return " ".join(paragraph.split()).replace("``", "")


def run_samplers(args: argparse.Namespace) -> int:
    rows = [("sampler", "order", "calls a step", "noise", "")]
    for row in samplers.SAMPLERS.values():
        noise = "yes" if row.stochastic else "no"
        rows.append((row.name, str(row.order), str(row.evaluations), noise, row.summary))
    print(columns(rows))
    print()
    named = [(name, _summary(spacing)) for name, spacing in spacings.SPACINGS.items()]
    print(columns([("spacing", ""), *named]))
    return 0


# --- doctor -----------------------------------------------------------------------------------


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _speed(dtype: torch.dtype, edge: int = 1024, seconds: float = 0.15) -> float:
    """Products of square matrices on the CPU, in GFLOP/s: tells whether a type is native."""
    a = torch.ones(edge, edge, dtype=dtype)
    torch.mm(a, a)  # the first product sets things up
    began, products = time.perf_counter(), 0
    while time.perf_counter() - began < seconds:
        torch.mm(a, a)
        products += 1
    return 2 * edge**3 * products / (time.perf_counter() - began) / 1e9


def _memory() -> str:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not on every system
        return "unknown"
    return f"{total / 2**30:.1f} GiB"


def _device() -> list[tuple[str, str]]:
    rows = [("cpu", f"{torch.backends.cpu.get_cpu_capability()}, {os.cpu_count()} cores")]
    rows.append(("threads", str(torch.get_num_threads())))
    rows.append(("memory", _memory()))
    single, half = _speed(torch.float32), _speed(torch.bfloat16)
    verdict = "faster: use it" if half > 1.2 * single else "no faster than float32 here"
    rows.append(("float32", f"{single:.0f} GFLOP/s"))
    rows.append(("bfloat16", f"{half:.0f} GFLOP/s, {verdict}"))
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            rows.append(("gpu", torch.cuda.get_device_name(index)))
    else:
        rows.append(("gpu", "none"))
    return rows


def _weights(path: Path) -> tuple[str, bool]:
    """What to say of a file in the package, and whether it is there."""
    if not path.is_file():
        return f"MISSING: {path}; install the package again", False
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return f"{path.stat().st_size / 1e6:.1f} MB, sha256 {digest[:16]}, {path}", True


def run_doctor(args: argparse.Namespace) -> int:
    """Say what is installed and what the machine can do; 1 if something needed is missing."""
    rows = [("mezzotint", mezzotint.__version__)]
    rows.append(("python", f"{platform.python_version()} on {platform.platform()}"))
    healthy = True
    for package in _NEEDED:
        version = _version(package)
        healthy = healthy and version is not None
        rows.append((package, version or "MISSING"))
    rows += _device()
    for name, path in catalogue.PACKAGED.items():
        said, there = _weights(path)
        healthy = healthy and there
        rows.append((f"model {name}", said))
    said, there = _weights(text.DATA / text.WEIGHTS)
    healthy = healthy and there
    rows.append(("text encoder", said))
    for extra, packages in _EXTRAS.items():
        for package in packages:
            remedy = f"not installed: pip install 'mezzotint[{extra}]'"
            rows.append((f"extra {package}", _version(package) or remedy))
    print(columns(rows))
    return 0 if healthy else 1
