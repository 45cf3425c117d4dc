"""Write the corpus: one uncompressed zip that two builds make alike, byte for byte."""

from __future__ import annotations

import json
import os
import zipfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

_EPOCH = (1980, 1, 1, 0, 0, 0)
_LICENCE_NAMES = {
    "Apache-2.0": "Apache License 2.0",
    "CC-BY-4.0": "Creative Commons Attribution 4.0 International",
    "MIT": "MIT License",
    "LicenseRef-Public-Domain": "public domain dedication, stated in each file",
}


@dataclass(frozen=True)
class Record:
    """One line of `metadata.jsonl`."""

    file: str
    captions: list[str]
    label: str
    concept: str
    split: str  # "train" or "heldout"
    weight: float
    set: str
    style: str
    licence: str
    source: str
    author: str | None


@dataclass(frozen=True)
class Credit:
    """One set in the attribution file."""

    set: str
    licence: str
    holder: str
    url: str
    licence_url: str
    package: str


def licences_text(records: Sequence[Record], holders: Sequence[Credit]) -> str:
    """The attribution file: who made which set, under which licence, and what was changed."""
    counts = Counter(record.set for record in records)
    lines = [
        "# Licences of the drawings",
        "",
        f"{len(records)} drawings. Each was rendered to pixels, cropped to its content and "
        "centred; nothing else was changed. Labels and tags come from the sets' own names and, "
        "for emoji, from emojibase-data and emojilib (both MIT).",
    ]
    by_licence: dict[str, list[Credit]] = {}
    for credit in holders:
        by_licence.setdefault(credit.licence, []).append(credit)
    for licence in sorted(by_licence):
        total = sum(counts[credit.set] for credit in by_licence[licence])
        lines += ["", f"## {licence}: {_LICENCE_NAMES.get(licence, licence)} ({total} drawings)"]
        lines += ["", "| set | drawings | copyright holder | project | licence text | package |"]
        lines += ["|---|---:|---|---|---|---|"]
        for credit in by_licence[licence]:
            cells = [credit.set, str(counts[credit.set]), credit.holder, credit.url or "–"]
            cells += [credit.licence_url or "–", credit.package]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def write_archive(
    out: Path, records: Sequence[Record], pictures: Sequence[bytes], holders: Sequence[Credit]
) -> None:
    """Write beside `out` first and rename at the end, so that a half archive is never seen."""
    order = sorted(range(len(records)), key=lambda index: records[index].file)
    lines = [json.dumps(asdict(records[index]), ensure_ascii=False) for index in order]
    part = out.with_name(f"{out.name}.{os.getpid()}.part")
    try:
        with zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
            _add(archive, "LICENCES.md", licences_text(records, holders).encode())
            _add(archive, "metadata.jsonl", "".join(line + "\n" for line in lines).encode())
            for index in order:
                _add(archive, records[index].file, pictures[index])
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)


def _add(archive: zipfile.ZipFile, name: str, content: bytes) -> None:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.create_system = 3  # the same on every system
    info.external_attr = 0o644 << 16
    archive.writestr(info, content)
