"""Where a file was made, as far as it can change its bits: versions, device, kernels, threads.

Nothing private is in it: no path, no name of a user or of a machine.
"""

from __future__ import annotations

import platform
from functools import cache
from importlib import metadata

import torch


@cache
def _installed(name: str) -> str:
    """The version of a package, which is looked up in the file system."""
    return metadata.version(name)


def versions(own: str) -> dict[str, str]:
    """Of all that computes pixels; own: this program's."""
    return {
        "mezzotint": own,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": _installed("numpy"),
        "pillow": _installed("pillow"),
    }


def machine(place: torch.device) -> dict[str, str | int]:
    """The device, the fingerprint of its kernels, and the threads that share the work.

    kernels: of a CPU the instructions that torch chose its kernels by, and its maker, for oneDNN
    chooses by it too; of a GPU its name and CUDA's version.
    """
    if place.type == "cuda":
        kernels = f"{torch.cuda.get_device_name(place)}, CUDA {torch.version.cuda}"
    else:
        kernels = f"{torch.backends.cpu.get_cpu_capability()}{_more()}, {platform.machine()}"
    return {"device": place.type, "kernels": kernels, "threads": torch.get_num_threads()}


def _more() -> str:
    """Units for matrices that torch's own word for the instructions leaves out."""
    known = ("_is_amx_tile_supported", "_is_avx512_bf16_supported", "_is_vnni_supported")
    names = ("amx", "bf16", "vnni")
    there = [
        name
        for name, function in zip(names, known, strict=True)
        if (ask := getattr(torch.cpu, function, None)) is not None and ask()
    ]
    return "".join(f"+{name}" for name in there)


def changed(then: dict[str, object], now: dict[str, str | int]) -> list[str]:
    """What is other than it was, in words: ``torch 2.12.0 then, 2.13.0 now``."""
    return [
        f"{name} {value} then, {now.get(name, 'none')} now"
        for name, value in then.items()
        if now.get(name) != value
    ]
