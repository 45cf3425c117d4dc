"""The report of benchmarks/speed.py: rows with their bars, as JSON and as a page."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from peers.timing import interval, median

COMMAND = "python benchmarks/speed.py"
Unit = Literal["×", "%", "s", "ms", "MB", "pictures/s", "difference"]


@dataclass(frozen=True)
class Bar:
    """What a row must reach.  ``noisy``: it is enough if the median's interval reaches it."""

    sense: Literal["at most", "below", "at least"]
    limit: float
    noisy: bool = False

    def holds(self, value: float) -> bool:
        if self.sense == "at least":
            return value >= self.limit
        return value <= self.limit if self.sense == "at most" else value < self.limit


@dataclass(frozen=True)
class Row:
    """One measure.  ``values``: one a repetition; no bar: for information."""

    name: str
    values: tuple[float, ...]
    unit: Unit
    bar: Bar | None = None

    @property
    def median(self) -> float:
        return median(self.values)

    @property
    def interval(self) -> tuple[float, float]:
        return interval(self.values)

    @property
    def verdict(self) -> Literal["met", "met within noise", "missed", ""]:
        if self.bar is None:
            return ""
        if self.bar.holds(self.median):
            return "met"
        if self.bar.noisy and any(self.bar.holds(end) for end in self.interval):
            return "met within noise"
        return "missed"


@dataclass(frozen=True)
class Section:
    """title; text: how it was measured and what it shows; rows."""

    key: str
    title: str
    text: str
    rows: tuple[Row, ...]


def missed(sections: Sequence[Section]) -> list[str]:
    """Every row below its bar, as ``section: row``."""
    return [
        f"{section.key}: {row.name}"
        for section in sections
        for row in section.rows
        if row.verdict == "missed"
    ]


def shown(value: float, unit: Unit) -> str:
    """A value as the page prints it."""
    if unit == "difference":
        return f"{value:.1e}"
    if unit == "×":
        return f"{value:.3f}"
    if unit == "%":
        return f"{100 * value:.2f} %"
    if unit == "MB":
        return f"{value:.0f} MB"
    return f"{value:.3g} {unit}" if value < 1000 else f"{value:.0f} {unit}"


def _cells(row: Row) -> str:
    low, high = row.interval
    spread = "" if len(row.values) == 1 else f"{shown(low, row.unit)} … {shown(high, row.unit)}"
    bar = "" if row.bar is None else f"{row.bar.sense} {_limit(row.bar.limit, row.unit)}"
    centre, verdict = shown(row.median, row.unit), row.verdict
    mark = f"**{verdict}**" if verdict == "missed" else verdict
    return f"| {row.name} | {centre} | {spread} | {len(row.values)} | {bar} | {mark} |"


def _limit(value: float, unit: Unit) -> str:
    if unit == "%":
        return f"{100 * value:g} %"
    if unit in ("×", "difference"):
        return f"{value:g}"
    return f"{value:g} {unit}"


def page(sections: Sequence[Section], facts: dict[str, Any], command: str = COMMAND) -> str:
    """The report as Markdown.  ``facts``: of the run; those under "warnings" come first."""
    warnings = [f"> **{warning}**\n" for warning in facts["warnings"]]
    told = [f"| {key} | {value} |" for key, value in facts.items() if key != "warnings"]
    parts = [
        _HEAD.format(command=command),
        *warnings,
        "| | |\n|---|---|\n" + "\n".join(told) + "\n",
    ]
    for section in sections:
        rows = "\n".join(_cells(row) for row in section.rows)
        parts.append(f"## {section.title}\n\n{section.text}\n\n{_TABLE}\n{rows}\n")
    return "\n".join(parts)


_HEAD = """\
# How fast is it?

Written by `{command}`. What is compared was run in turns (A B A B …) in one run
on one machine; a ratio is taken in each round, and the medians of the ratios count. *Spread* is
the interval that holds the true median with 95 % (with fewer than six rounds: least to most).
"""

_TABLE = "| measure | median | spread | rounds | bar | |\n|---|---:|---:|---:|---:|---|"


def numbers(sections: Sequence[Section], facts: dict[str, Any]) -> dict[str, Any]:
    """The report as plain data."""
    return {
        **facts,
        "sections": {
            section.key: [
                {
                    "name": row.name,
                    "unit": row.unit,
                    "median": row.median,
                    "interval": list(row.interval),
                    "values": list(row.values),
                    "bar": None if row.bar is None else [row.bar.sense, row.bar.limit],
                    "verdict": row.verdict or None,
                }
                for row in section.rows
            ]
            for section in sections
        },
    }


def write(
    out: Path,
    sections: Sequence[Section],
    facts: dict[str, Any],
    name: str = "report",
    command: str = COMMAND,
) -> None:
    """``report.md`` and ``report.json``, or of another name, in the folder ``out``."""
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(numbers(sections, facts), indent=2, ensure_ascii=False)
    (out / f"{name}.json").write_text(text + "\n", "utf-8")
    (out / f"{name}.md").write_text(page(sections, facts, command), "utf-8")


# --- reports that grow ------------------------------------------------------------------------


def merge(out: Path, name: str, head: str, sections: Sequence[Section]) -> None:
    """Replace these sections in ``name.json``, and write ``name.md`` of all that are there, with
    ``name-notes.md`` at its end if that is there."""
    out.mkdir(parents=True, exist_ok=True)
    file = out / f"{name}.json"
    old: dict[str, Any] = json.loads(file.read_text("utf-8")) if file.is_file() else {}
    texts = {**old.get("texts", {}), **{s.key: [s.title, s.text] for s in sections}}
    rows: dict[str, Any] = {**old.get("sections", {}), **numbers(sections, {})["sections"]}
    data = {"texts": texts, "sections": rows}
    file.write_text(json.dumps(data, indent=1, ensure_ascii=False) + "\n", "utf-8")
    parts = [head]
    for key, found in rows.items():
        title, text = texts[key]
        lines = [
            f"| {row['name']} | {shown(row['median'], row['unit'])} | {_told(row)} |"
            for row in found
        ]
        table = "| measure | | bar |\n|---|---:|---|"
        parts.append(f"## {title}\n\n{text}\n\n{table}\n" + "\n".join(lines) + "\n")
    notes = out / f"{name}-notes.md"
    if notes.is_file():
        parts.append(notes.read_text("utf-8"))
    (out / f"{name}.md").write_text("\n".join(parts), "utf-8")


def _told(row: dict[str, Any]) -> str:
    """A row's bar, and whether it is met."""
    if row["bar"] is None:
        return ""
    sense, limit = row["bar"]
    verdict = f"**{row['verdict']}**" if row["verdict"] == "missed" else row["verdict"]
    return f"{sense} {_limit(limit, row['unit'])}: {verdict}"
