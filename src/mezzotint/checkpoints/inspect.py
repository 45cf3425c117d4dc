"""What a file of weights is, told by names and shapes: no weight is read, nothing executed."""

from __future__ import annotations

import os
import re
from collections import Counter
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal

from mezzotint.checkpoints import marks
from mezzotint.checkpoints.files import CheckpointError, looks_like, read_start
from mezzotint.checkpoints.gguf import MAGIC
from mezzotint.checkpoints.limits import parse, shown
from mezzotint.checkpoints.pickles import is_pickle
from mezzotint.checkpoints.signature import Signature
from mezzotint.checkpoints.signatures import ARCHITECTURES, PARTS, RANKS, SIGNATURES
from mezzotint.checkpoints.source import (
    MODEL_INDEX,
    Folder,
    Listing,
    describe,
    one_file,
    open_folder,
)
from mezzotint.files import once_a_file

Confidence = Literal["certain", "likely", "doubtful", "unknown"]
"""certain: the file says it itself; likely: names and sizes tell; doubtful: the two disagree."""
DENOISER = "denoiser"
_WHOLE = re.compile(r"checkpoint|^FLUX\.1 .*model|(U-Net|transformer)\b.* \(diffusers\)")
"""Kinds of files that have a denoiser, and perhaps the other parts."""
OWN = "mezzotint"  # the metadata field in which our own files describe themselves
_WIDTH = 200  # characters of a metadata value that are shown

_SHOWN = (
    "modelspec.",
    "license",
    "general.license",
    "ss_base_model_version",
    "ss_sd_model_name",
    "ss_network_module",
    "ss_network_dim",
    "ss_network_alpha",
    "ss_output_name",
)


@dataclass(frozen=True)
class Report:
    """What a file is.

    format: "safetensors", "GGUF", "PyTorch pickle", …, or what the first bytes look like
    kind: the model in it, None if not known; ``confidence`` and ``reason`` say how that is known
    parts: parameters of each network in a file that holds several
    dtypes: parameters of each type
    said: what it says of its prediction and of the steps it needs, name -> text
    details: what else the file says of itself, name -> text
    """

    path: Path
    size: int
    format: str
    kind: str | None = None
    confidence: Confidence = "unknown"
    reason: str = ""
    tensors: int = 0
    parameters: int = 0
    parts: tuple[tuple[str, int], ...] = ()
    dtypes: tuple[tuple[str, int], ...] = ()
    said: tuple[tuple[str, str], ...] = ()
    details: tuple[tuple[str, str], ...] = ()

    def lines(self) -> list[str]:
        """The report as plain lines, safe to print whatever the file's author wrote into it."""
        rows = [("file", str(self.path)), ("format", f"{self.format}, {_bytes(self.size)}")]
        what = self.kind or "not recognised"
        rows.append(("model", what if self.kind is None else f"{what} ({self.confidence})"))
        if self.reason:
            rows.append(("because", self.reason))
        rows += self.said
        if self.tensors:
            rows.append(("weights", f"{_count(self.parameters)} in {self.tensors} tensors"))
        if self.parts == ((DENOISER, self.parameters),) and self.kind is not None:
            rows.append(("parts", f"{DENOISER} alone: `generate --part FILE` gives the others"))
        if len(self.parts) > 1:
            rows.append(("parts", ", ".join(f"{name} {_count(n)}" for name, n in self.parts)))
        if self.dtypes:
            rows.append(("types", ", ".join(f"{name} {_count(n)}" for name, n in self.dtypes)))
        rows += self.details
        width = min(24, max(len(name) for name, _ in rows))
        return [f"{_printable(name):<{width}}  {_printable(text)}" for name, text in rows]


def _bytes(size: int) -> str:
    for unit, name in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if size >= unit:
            return f"{size / unit:.2f} {name}"
    return f"{size} bytes"


def _count(number: int) -> str:
    for unit, name in ((10**9, " B"), (10**6, " M"), (10**3, " k")):
        if number >= unit:
            return f"{number / unit:.2f}{name}"
    return str(number)


def _printable(text: str) -> str:
    """One line without control characters, which could rewrite a terminal."""
    clean = "".join(c if c.isprintable() else " " for c in text)
    return clean if len(clean) <= _WIDTH else clean[: _WIDTH - 1] + "…"


def inspect(path: str | os.PathLike[str]) -> Report:
    """Say what a file of weights is, or a folder that `diffusers` wrote.

    A file that holds no weights, such as a picture, is named from its first bytes.

    Raises:
        CheckpointError: the file is missing, empty or damaged, or of no format known here.
    """
    path = one_file(Path(path))
    if path.is_dir():
        return _folder(open_folder(path))
    return _inspected(path)


@once_a_file
def _inspected(path: Path) -> Report:
    start = read_start(path)
    kind = looks_like(start)
    if kind is not None and not start.startswith(MAGIC) and not is_pickle(path, start):
        size = path.stat().st_size
        return Report(path, size, kind, reason="named from its first bytes, not opened")
    return recognise(describe(path))


def recognise(found: Listing) -> Report:
    """Say what a list of tensors is."""
    if OWN in found.metadata:
        return _own(found)
    seen: dict[str, list[str]] = {}
    for signature in SIGNATURES:
        if (evidence := _fits(signature, found, seen)) is not None:
            told, confidence = _architecture(signature.kind, found)
            reason = "; ".join([*evidence, *told, *([signature.note] if signature.note else [])])
            return _report(found, signature.kind, confidence, reason)
    reason = "none of the known characteristic tensors is in it"
    if first := next(iter(found.tensors), None):
        reason += f"; its first is {first!r}"
    return _report(found, None, "unknown", reason)


def _folder(folder: Folder) -> Report:
    """A folder of parts: each of its files is recognised by itself."""
    listings = {part: describe(folder.weights(part)) for part in folder.networks}
    counts = {
        part: sum(entry.count for entry in found.tensors.values())
        for part, found in listings.items()
    }
    dtypes: Counter[str] = Counter()
    for found in listings.values():
        for entry in found.tensors.values():
            dtypes[entry.dtype] += entry.count
    return Report(
        path=folder.path,
        size=sum(found.size for found in listings.values()),
        format="diffusers folder",
        kind=folder.kind,
        confidence="certain",
        reason=f"its {MODEL_INDEX} says so",
        tensors=sum(len(found.tensors) for found in listings.values()),
        parameters=sum(counts.values()),
        parts=tuple(counts.items()),
        dtypes=tuple(dtypes.most_common()),
        said=tuple(_scheduled(folder)),
        details=(
            *(
                (part, f"{report.kind or 'not recognised'}, {report.format}")
                for part, report in ((part, recognise(found)) for part, found in listings.items())
            ),
            *((part, f"named in {MODEL_INDEX}, but not there") for part in folder.lacking),
        ),
    )


def _scheduled(folder: Folder) -> list[tuple[str, str]]:
    """What the folder's scheduler says of the prediction."""
    config = folder.configs.get("scheduler", {})
    rows: list[tuple[str, str]] = []
    if (said := config.get("prediction_type")) is not None:
        names = {theirs: ours for ours, theirs in marks.NAMES.items()}
        if str(config.get("_class_name", "")).startswith("EDM"):
            names = {row["prediction_type"]: ours for ours, row in marks.EDM.items()}
        text = said if isinstance(said, str) else shown(said)
        rows.append(("predicts", f"{names.get(text, text)} (its scheduler says {text})"))
    if config.get("rescale_betas_zero_snr") is True:
        rows.append(("noise", "zero terminal SNR (its scheduler says rescale_betas_zero_snr)"))
    return rows


def _matching(pattern: str, found: Listing) -> list[str]:
    if "*" not in pattern:
        return [pattern] if pattern in found.tensors else []
    piece = max(pattern.split("*"), key=len)  # found faster than the pattern
    return [name for name in found.tensors if piece in name and fnmatchcase(name, pattern)]


def _fits(signature: Signature, found: Listing, seen: dict[str, list[str]]) -> list[str] | None:
    """The evidence for a signature, or None if something is lacking.

    seen: what patterns match, which several signatures have; it is added to.
    """

    def matching(pattern: str) -> list[str]:
        if pattern not in seen:
            seen[pattern] = _matching(pattern, found)
        return seen[pattern]

    evidence: list[str] = []
    for pattern in signature.keys:
        if not (names := matching(pattern)):
            return None
        evidence.append(f"it has {names[0]}")
    for pattern, axis, size in signature.sizes:
        for name in matching(pattern):
            shape = found.tensors[name].shape
            if axis < len(shape) and shape[axis] == size:
                evidence.append(f"{name} is {list(shape)}")
                break
        else:
            return None
    return evidence


def _architecture(kind: str, found: Listing) -> tuple[list[str], Confidence]:
    """Whether ModelSpec's own name of the architecture agrees with a kind."""
    name = found.metadata.get("modelspec.architecture", "").split("/")[0].lower()
    for start, family in ARCHITECTURES:
        if name.startswith(start):
            text = f"modelspec.architecture is {name!r}"
            if not (named := re.findall(r"SDXL|SD\d|FLUX(?:\.\d)?", kind)):
                return [text], "likely"
            agrees = any(family.startswith(other) for other in named)
            return [text if agrees else f"but {text}"], "certain" if agrees else "doubtful"
    return [], "likely"


def _said(found: Listing) -> list[tuple[str, str]]:
    """The prediction and the steps, each with what says it."""
    rows: list[tuple[str, str]] = []
    claims = marks.predictions(found)
    texts = {what: [c.source for c in claims if c.what == what] for what, _ in claims}
    predicted = " or ".join(f"{what} ({', '.join(sources)})" for what, sources in texts.items())
    zero = marks.zero_snr(found)
    if len(texts) > 1:
        predicted += ": it contradicts itself"
    if predicted:
        rows.append(("predicts", predicted))
    if zero is not None:
        rows.append(("noise", f"zero terminal SNR ({zero})"))
    if few := marks.few_steps(found):
        text = ", ".join(f"{claim.what} ({claim.source})" for claim in few)
        rows.append(("few steps", f"likely {text}"))
    if others := marks.others(found.metadata):
        rows.append(("variant", f"{', '.join(others)} (its title or tags say so)"))
    return rows


def _report(found: Listing, kind: str | None, confidence: Confidence, reason: str) -> Report:
    dtypes: Counter[str] = Counter()
    parts: Counter[str] = Counter()
    for name, entry in found.tensors.items():
        if not entry.count:  # a mark
            continue
        dtypes[entry.dtype] += entry.count
        parts[next((what for start, what in PARTS if name.startswith(start)), "other")] += (
            entry.count
        )
    if kind is not None and _WHOLE.search(kind) and set(parts) == {"other"}:
        parts = Counter({DENOISER: parts["other"]})  # under its bare names
    ranks = {
        found.tensors[name].shape[0]
        for pattern in RANKS
        for name in _matching(pattern, found)
        if found.tensors[name].shape
    }
    details = [("rank", ", ".join(map(str, sorted(ranks))))] if ranks else []
    details += [(k, v) for k, v in found.metadata.items() if k.startswith(_SHOWN)]
    return Report(
        path=found.path,
        size=found.size,
        format=found.format,
        kind=kind,
        confidence=confidence,
        reason=reason,
        tensors=len(found.tensors),
        parameters=sum(dtypes.values()),
        parts=tuple(parts.most_common()),
        dtypes=tuple(dtypes.most_common()),
        said=tuple(_said(found)),
        details=tuple(details),
    )


def _own(found: Listing) -> Report:
    """A file of ours: its metadata describes it."""
    try:
        document = parse(found.metadata[OWN])
    except ValueError:
        raise CheckpointError(
            f"{found.path}: its {OWN!r} metadata is not a JSON object: the file is damaged"
        ) from None
    what = document.get("kind", document.get("network", "model"))
    report = _report(found, f"Mezzotint {what}", "certain", "its metadata says so")
    return Report(**{**vars(report), "details": report.details + tuple(_flat(document))})


def _flat(document: dict[str, object], prefix: str = "") -> list[tuple[str, str]]:
    """Nested fields as ``a.b`` -> text; empty ones are left out."""
    rows: list[tuple[str, str]] = []
    for key, value in document.items():
        if isinstance(value, dict):
            rows += _flat(value, f"{prefix}{key}.")
        elif isinstance(value, list):
            rows += [(prefix + key, ", ".join(map(str, value)))] if value else []
        elif value is not None and value != "":
            rows.append((prefix + key, str(value)))
    return rows
