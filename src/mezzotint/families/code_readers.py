"""Networks that read codes out of spoiled pictures, beside the models that they were trained for.

A reader's file says by the numbers that scale its model's codes (``Codec.units``) whose it is.
"""

from __future__ import annotations

import json
from dataclasses import asdict
from functools import lru_cache
from pathlib import Path

from torch import Tensor

from mezzotint.checkpoints.files import CheckpointError, build_unfilled, load, load_into, save
from mezzotint.checkpoints.rows import WEIGHT, pack, unpack
from mezzotint.families.model import Codec
from mezzotint.networks.code_reader import CodeReader, CodeReaderConfig

PACKAGED = Path(__file__).parent / "data" / "icons-reader.safetensors"
KEY = "code reader"


def reader_for(codec: Codec) -> CodeReader | None:
    """The packaged reader of a model's codes, if there is one."""
    reader, units = _packaged()
    return reader if units == codec.units else None


@lru_cache(maxsize=1)
def _packaged() -> tuple[CodeReader, tuple[float, ...]]:
    return load_reader(PACKAGED)


def load_reader(path: Path) -> tuple[CodeReader, tuple[float, ...]]:
    """A reader, and the units of the codes that it reads.

    Raises:
        CheckpointError: the file is none, or damaged.
    """
    state, metadata = load(path)
    try:
        said = json.loads(metadata[KEY])
        config, units = CodeReaderConfig(**said["config"]), tuple(map(float, said["units"]))
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: is no reader of codes") from error
    reader = build_unfilled(lambda: CodeReader(config))
    load_into(reader, {name: x.float() for name, x in unpack(state).items()}, str(path))
    return reader.eval().requires_grad_(False), units


def save_reader(path: Path, reader: CodeReader, units: tuple[float, ...]) -> None:
    """Write a reader: its matrices as int8 rows, all else in float16."""
    weights: dict[str, Tensor] = {}
    for name, weight in reader.state_dict().items():
        matrix = name.endswith(WEIGHT) and weight.ndim > 1
        weights |= pack(name, weight) if matrix else {name: weight.half().contiguous()}
    said = {"config": asdict(reader.config), "units": units}
    save(path, weights, {KEY: json.dumps(said)})
