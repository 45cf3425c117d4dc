"""What a piece of work took in electricity: sums of it, and how a person and a file are told.

:mod:`mezzotint.provenance.meter` measures or estimates it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple, get_args

from mezzotint.provenance.grid import Grid

Kind = Literal["measured", "estimated"]
How = Literal["measured", "estimated", "partly measured"]
RAPL, NVML = "RAPL", "NVML"
WITHIN = {"processor": 2.0, "GPU": 3.0}
"""Factors to which estimates are good, either way."""


class Part(NamedTuple):
    """What one part of the machine took; source: by what it was measured, or how estimated."""

    name: str
    wh: float
    how: Kind
    source: str


@dataclass(frozen=True)
class Energy:
    """What some work took.

    seconds: of the clock; cpu_seconds: of all threads and finished child processes.
    """

    seconds: float = 0.0
    cpu_seconds: float = 0.0
    parts: tuple[Part, ...] = ()

    @property
    def wh(self) -> float:
        return sum(part.wh for part in self.parts)

    @property
    def how(self) -> How:
        kinds = {part.how for part in self.parts}
        if len(kinds) > 1:
            return "partly measured"
        return "measured" if "measured" in kinds else "estimated"

    @property
    def within(self) -> float | None:
        """The factor to which the estimated parts are good; None if there are none."""
        return max(
            (WITHIN[part.name] for part in self.parts if part.how == "estimated"), default=None
        )


def total(works: Iterable[Energy]) -> Energy:
    """The sum of works; parts that were got alike are added up."""
    seconds, cpu, parts = 0.0, 0.0, dict[tuple[str, Kind, str], float]()
    for work in works:
        seconds, cpu = seconds + work.seconds, cpu + work.cpu_seconds
        for part in work.parts:
            key = (part.name, part.how, part.source)
            parts[key] = parts.get(key, 0.0) + part.wh
    added = (Part(name, wh, how, by) for (name, how, by), wh in parts.items())
    return Energy(seconds, cpu, tuple(added))


def share(work: Energy, count: int) -> Energy:
    """An equal share of some work, of so many."""
    parts = tuple(part._replace(wh=part.wh / count) for part in work.parts)
    return Energy(work.seconds / count, work.cpu_seconds / count, parts)


def times(work: Energy, processes: int, machines: int = 1) -> Energy:
    """What so many processes took that do alike; a machine's own counter has all that it runs."""
    parts = (
        part._replace(wh=part.wh * (machines if part.source == RAPL else processes))
        for part in work.parts
    )
    return replace(work, cpu_seconds=work.cpu_seconds * processes, parts=tuple(parts))


# --- told -------------------------------------------------------------------------------------


def grams(work: Energy, of: Grid) -> float:
    """g of CO2 equivalent: Wh × g/kWh / 1000."""
    return work.wh * of.g_per_kwh / 1000


def figure(value: float) -> str:
    """Two significant digits below ten, whole numbers above."""
    return f"{value:,.0f}" if value >= 10 else f"{float(f'{value:.2g}'):g}"


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 36000 else f"{seconds:.1f} s"


def _how(work: Energy) -> str:
    told: dict[Kind, list[str]] = {"estimated": [], "measured": []}
    for part in work.parts:
        if part.source.startswith("CPU time"):
            told[part.how].append(f"{_duration(work.cpu_seconds)} of {part.source}")
        else:
            by = "by" if part.how == "measured" else "at"
            told[part.how].append(f"{part.name} {by} {part.source}")
    sure = {
        "measured": "measured",
        "estimated": f"estimated within a factor of {work.within or 1:g}",
    }
    return "; ".join(f"{sure[how]}: {', '.join(rows)}" for how, rows in told.items() if rows)


def line(work: Energy, of: Grid) -> str:
    """One line for a person: Wh, g of CO2 equivalent, how they were got."""
    how = _how(work) or "nothing was measured"
    return (
        f"{figure(work.wh)} Wh, {figure(grams(work, of))} g CO2e ({how}; "
        f"grid: {of.name.removesuffix(', Ember')})"
    )


def document(work: Energy, of: Grid) -> dict[str, object]:
    """For a recipe or a log; six digits are enough."""
    found: dict[str, object] = {
        "wh": _short(work.wh),
        "gco2e": _short(grams(work, of)),
        "how": work.how,
        "seconds": _short(work.seconds),
        "cpu_seconds": _short(work.cpu_seconds),
        "parts": [{**part._asdict(), "wh": _short(part.wh)} for part in work.parts],
        "grid": of._asdict(),
    }
    return found if work.within is None else {**found, "within_a_factor_of": work.within}


@dataclass(frozen=True)
class Said:
    """What a file says that it took."""

    wh: float
    gco2e: float
    how: str


def said(found: object) -> Said | None:
    """What a :func:`document` says; None if it is none, whoever wrote it."""
    values = found if isinstance(found, Mapping) else {}
    wh, gco2e, how = _amount(values.get("wh")), _amount(values.get("gco2e")), values.get("how")
    if wh is None or gco2e is None or how not in get_args(How):
        return None
    return Said(wh, gco2e, str(how))


def _amount(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if 0 <= value <= 1e12 else None


def _short(value: float) -> float:
    return float(f"{value:.6g}")


def kept(work: Energy) -> dict[str, object]:
    """Exactly, for a checkpoint; :func:`restored` reads it."""
    return {
        "seconds": work.seconds,
        "cpu_seconds": work.cpu_seconds,
        "parts": [list(part) for part in work.parts],
    }


def restored(values: dict[str, Any] | None) -> Energy:
    """What :func:`kept` wrote; nothing of a checkpoint that has none."""
    if not values:
        return Energy()
    parts = tuple(Part(*part) for part in values["parts"])
    return Energy(values["seconds"], values["cpu_seconds"], parts)
