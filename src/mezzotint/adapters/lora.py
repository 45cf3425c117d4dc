"""LoRA files and their kin: from the key styles of every trainer to deltas on our weights.

A file names modules as its base model's releases do.  :func:`index` lists every name that a
network's modules have in any style, so a name is looked up, never guessed; one that is not there
is an error.
"""

from __future__ import annotations

import difflib
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mezzotint.adapters.deltas import KINDS, Delta
from mezzotint.checkpoints.files import CheckpointError
from mezzotint.checkpoints.keys import Part, Reader, Table, to_theirs
from mezzotint.checkpoints.streamed import Streamed

_HADA = {f".hada_{name}": ("loha", name) for name in ("w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")}
_LOKR = {
    f".lokr_{name}": ("lokr", name)
    for name in ("w1", "w2", "w1_a", "w1_b", "w2_a", "w2_b", "t1", "t2")
}
ROWS = "rows"  # a magnitude of rows, in whatever shape it is stored
SUFFIXES: dict[str, tuple[str, str]] = {
    # kohya
    ".lora_down.weight": ("lora", "down"),
    ".lora_up.weight": ("lora", "up"),
    ".lora_mid.weight": ("lora", "mid"),
    ".alpha": ("", "alpha"),
    ".dora_scale": ("", "magnitude"),
    ".diff": ("full", "diff"),
    **_HADA,
    **_LOKR,
    # PEFT
    ".lora_A.weight": ("lora", "down"),
    ".lora_B.weight": ("lora", "up"),
    ".lora_A.default.weight": ("lora", "down"),
    ".lora_B.default.weight": ("lora", "up"),
    ".lora_magnitude_vector": ("", ROWS),
    ".lora_magnitude_vector.weight": ("", ROWS),
    ".lora_magnitude_vector.default.weight": ("", ROWS),
    # diffusers before PEFT
    ".lora.down.weight": ("lora", "down"),
    ".lora.up.weight": ("lora", "up"),
    ".lora_linear_layer.down.weight": ("lora", "down"),
    ".lora_linear_layer.up.weight": ("lora", "up"),
    "_lora.down.weight": ("lora", "down"),
    "_lora.up.weight": ("lora", "up"),
}
"""How a key ends: the kind of delta (if that tells it) and the factor."""
_LONGEST_FIRST = sorted(SUFFIXES, key=len, reverse=True)


class Target(NamedTuple):
    """Rows of a weight: of which network (a name that the family chose), and where in it."""

    network: str
    part: Part


@dataclass(frozen=True)
class Style:
    """How a trainer names a network's modules: a prefix, then the name, its dots kept or not."""

    prefix: str
    dotted: bool

    def name(self, module: str) -> str:
        return self.prefix + (module if self.dotted else module.replace(".", "_"))


def index(
    network: str, state: Mapping[str, Tensor], tables: Sequence[Table], styles: Sequence[Style]
) -> dict[str, Target]:
    """Every name of every module of a network.

    Args:
        network: what targets call it.
        state: its state dict; the tensors may be on the meta device.
        tables: its key tables, one a layout.
        styles: how trainers write their names.
    """
    found: dict[str, Target] = {}
    for table in tables:
        reader = Reader(table)
        for name in to_theirs(state, table):
            module, _, kind = name.rpartition(".")
            part = reader.find(name) if kind == "weight" else None
            if part is not None:
                found |= {style.name(module): Target(network, part) for style in styles}
    return found


# --- reading a file ---------------------------------------------------------------------------


def _split(key: str) -> tuple[str, str, str] | None:
    """A key as module, kind and factor; None for a suffix that is not known."""
    for suffix in _LONGEST_FIRST:
        if key.endswith(suffix):
            kind, factor = SUFFIXES[suffix]
            return key[: -len(suffix)].replace(".processor.", "."), kind, factor
    return None


def read(state: Mapping[str, Tensor]) -> dict[str, Delta]:
    """A file's deltas by the names of its modules.

    Raises:
        CheckpointError: a key of no known ending, or a module with too few factors.
    """
    factors: dict[str, dict[str, Tensor]] = {}
    kinds: dict[str, set[str]] = {}
    for key, value in state.items():
        split = _split(key)
        if split is None:
            raise CheckpointError(f"unknown key {key!r}: it ends like no known kind of adapter")
        module, kind, factor = split
        if factor in factors.setdefault(module, {}):
            raise CheckpointError(f"key {key!r} comes twice, in two styles")
        factors[module][factor] = value
        kinds.setdefault(module, set()).update({kind} - {""})
    return {module: _delta(module, kinds[module], found) for module, found in factors.items()}


def _delta(module: str, kinds: set[str], factors: dict[str, Tensor]) -> Delta:
    if len(kinds) != 1:
        what = "no factors" if not kinds else f"factors of {' and '.join(sorted(kinds))}"
        raise CheckpointError(f"module {module!r} has {what}: the file is damaged")
    (kind,) = kinds
    alpha = factors.pop("alpha", None)
    rows, magnitude = factors.pop(ROWS, None), factors.pop("magnitude", None)
    if not any(needed <= factors.keys() for needed in KINDS[kind].needed):
        raise CheckpointError(
            f"module {module!r} has only {', '.join(sorted(factors))} of a {kind}: "
            "the file is damaged"
        )
    if rows is not None:
        magnitude = rows.flatten()
    return Delta(kind, factors, None if alpha is None else float(alpha), magnitude)


class Fitted(NamedTuple):
    """A delta and where it goes."""

    target: Target
    delta: Delta


def fit(
    deltas: Mapping[str, Delta], known: Mapping[str, Target], partial: bool = False
) -> list[Fitted]:
    """Find each delta's place.

    Args:
        known: every name of every module, see :func:`index`.
        partial: leave out what has no place instead of stopping.

    Raises:
        CheckpointError: a module is not in these networks; it names the first and the nearest.
    """
    unknown = [module for module in deltas if module not in known]
    if unknown and not partial:
        near = difflib.get_close_matches(unknown[0], known, n=1, cutoff=0.5)
        hint = f" (nearest: {near[0]})" if near else ": it is for another base model"
        raise CheckpointError(
            f"{len(unknown)} of {len(deltas)} modules have no place in this model, the first "
            f"{unknown[0]!r}{hint}; --allow-partial leaves them out"
        )
    return [Fitted(known[module], delta) for module, delta in deltas.items() if module in known]


# --- attaching --------------------------------------------------------------------------------


def changed(weight: Tensor, wanted: Sequence[tuple[Part, Delta, float]]) -> Tensor:
    """A weight of ours with its deltas, each times its strength, in the weight's own precision.

    Raises:
        DeltaError: a delta does not fit.
    """
    result = weight.float().clone()
    for part, delta, strength in wanted:
        rows = part.rows(len(weight)) if len(part.shares) > 1 else slice(None)
        theirs = part.view.theirs(result[rows])
        result[rows] = part.view.ours(delta.to(weight.device).applied(theirs, strength))
    return result.to(weight.dtype)


@contextmanager
def attached(
    networks: Mapping[str, nn.Module], adapters: Sequence[tuple[Sequence[Fitted], float]]
) -> Generator[None]:
    """The networks with adapters, each at its strength; afterwards every weight is what it was.

    The weights themselves are set aside and put back, so they are the same bits whatever the
    adapters did.  A weight that is read when it is used is not touched: the deltas
    are added each time, unless what is read stays in memory anyway.

    Raises:
        DeltaError: a delta does not fit its weight; nothing is attached then.
    """
    wanted: dict[tuple[str, str], list[tuple[Part, Delta, float]]] = {}
    for fitted, strength in adapters:
        for (network, part), delta in fitted:
            wanted.setdefault((network, part.name), []).append((part, delta, strength))
    aside: list[tuple[nn.Module, str, object]] = []
    with torch.no_grad():
        made: list[tuple[nn.Module, str, object, object]] = []
        for (network, name), rows in wanted.items():
            path, _, leaf = name.rpartition(".")
            module = networks[network].get_submodule(path)
            if isinstance(module, Streamed) and module.stays:
                new = changed(module.weight, rows)
                made.append((module, "instead", module.instead, new))
            elif isinstance(module, Streamed):
                change = partial(changed, wanted=rows)
                change(module.own)  # does it fit?
                made.append((module, "change", module.change, change))
            else:
                old = module.get_parameter(leaf)
                new = nn.Parameter(changed(old, rows), requires_grad=False)
                made.append((module, leaf, old, new))
    try:
        for module, leaf, old, new in made:
            aside.append((module, leaf, old))
            setattr(module, leaf, new)
        yield
    finally:
        for module, leaf, old in aside:
            setattr(module, leaf, old)
