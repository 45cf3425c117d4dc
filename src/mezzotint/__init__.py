"""Mezzotint: pictures, sounds, clips and 3D from noise; reproducible, traceable, offline, strict.

import mezzotint as mz
mz.load("icons").generate("a red fox", seed=7, output="fox.png")
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

# Large pages for large tensors: a third less time a step, where the system has them to give.
# PyTorch looks for it when it first takes memory.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

__version__ = "0.1.0"
__all__ = ["load"]

if TYPE_CHECKING:
    from mezzotint.apps.python import Maker, Parts


def load(
    name_or_path: str,
    device: str | None = None,
    family: str | None = None,
    precision: str = "auto",
    memory: str | None = None,
    parts: Parts = (),
) -> Maker:
    """A model by name ("icons") or by the path of its file or folder, ready to make pictures.

    device: "cpu", "cuda", "cuda:1" or "mps"; none takes the GPU if there is one.
    family: what a checkpoint is, such as "sd2-base", where its file cannot say.
    precision: of a checkpoint's numbers: "float32", "bfloat16", "float16", or the fastest here.
    memory: what the program may take, such as "6GB": it then reads layers when it uses them.
    parts: files with parts that the model's own lacks, or to replace one: a list, or by name
        (``{"vae": "ae.safetensors"}``).
    """
    from mezzotint.apps.python import Maker  # torch is imported when a model is, not before

    return Maker.load(name_or_path, device, family, precision, memory, parts)
