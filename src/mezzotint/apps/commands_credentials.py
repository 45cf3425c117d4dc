"""`mezzotint credentials`: who made a file, from what, and whether it was changed since.

Exit codes: 0 all files are as they were signed, by a known key; 1 a file was changed, or its signer
is unknown; 2 there was nothing to check (a file cannot be read, or carries no credentials).
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from mezzotint.apps.errors import one_line
from mezzotint.provenance import identity
from mezzotint.provenance.chain import Action, Credentials, Input, Manifest, read
from mezzotint.provenance.credentials import CredentialsError, DamagedError

_SOURCES = {
    "trainedAlgorithmicMedia": "by a trained model",
    "compositeWithTrainedAlgorithmicMedia": "with a trained model",
    "composite": "of several",
    "digitalCreation": "by hand",
    "algorithmicallyEnhanced": "by a program without a trained model",
}
_RELATIONS = {"parentOf": "edited", "componentOf": "a part", "inputTo": "led"}
_USES = {"allowed": "allowed", "notAllowed": "not allowed", "constrained": "under conditions"}
_SELF_SIGNED = (
    "Self-signed: the key was made by the program that signed, and nobody vouches for it. It proves"
    "\nthat the file is as its signer left it, not who the signer is: anyone can make such a key."
)
_UNKNOWN = (
    "Unknown signer: the key may be self-signed, or come from an authority that you did not name "
    "with --trust.\nAnyone can take credentials out of a file and sign it anew."
)


def run_credentials(args: argparse.Namespace) -> int:
    """Print the chain of each file; the worst of their exit codes, 1 before 2 before 0."""
    own, trusted = identity.anchors(), b"".join(path.read_bytes() for path in args.trust)
    shown: list[object] = []
    codes, standings = set[int](), set[str]()
    for path in args.files:
        found, code, error = _read(path, own, trusted)
        codes.add(code)
        if found is None:
            print(f"mezzotint: {path}: {error}", file=sys.stderr)
            state = "invalid" if code == 1 else "none"
            shown.append({"file": str(path), "state": state, "faults": [error]})
            continue
        if found.state != "invalid":
            standings.update(manifest.standing for manifest in found.manifests)
        shown.append({"file": str(path), **asdict(found)})
        if not args.json:
            print("\n".join(_lines(path, found)), end="\n\n")
    if args.json:
        print(json.dumps(shown, indent=1))
    elif notes := [
        note for kind, note in (("own", _SELF_SIGNED), ("unknown", _UNKNOWN)) if kind in standings
    ]:
        print("\n".join(notes))
    return next((code for code in (1, 2) if code in codes), 0)


def _read(path: Path, own: bytes, trusted: bytes) -> tuple[Credentials | None, int, str]:
    """What a file carries, the exit code, and what is wrong."""
    try:
        found = read(path, own, trusted)
    except CredentialsError as error:
        return None, 1 if isinstance(error, DamagedError) else 2, one_line(error)
    except OSError as error:
        return None, 2, (error.strerror or str(error)).lower()
    if found is None:
        return None, 2, "carries no Content Credentials"
    return found, 0 if found.state == "valid" else 1, ""


# --- words ------------------------------------------------------------------------------------


def _lines(path: Path, found: Credentials) -> list[str]:
    first = found.manifests[0]
    verdict = {
        "valid": "as it was signed, with your own key"
        if first.standing == "own"
        else "as it was signed, by a signer whom you trust",
        "untrusted": "as it was signed, by an unknown signer",
        "invalid": "NOT as it was signed",
    }[found.state]
    lines = [f"{path}: {verdict}", *(f"  fault     {fault}" for fault in found.faults)]
    if found.beside:
        lines.append("  found     in the file beside it")
    titles = {
        part.manifest: part.title
        for manifest in found.manifests
        for part in manifest.inputs
        if part.manifest
    }
    for manifest in found.manifests:
        if manifest is not first:
            lines.append(f"  its input {titles.get(manifest.label, '')!r}, before that:")
        lines += _manifest_lines(manifest)
    return lines


def _manifest_lines(manifest: Manifest) -> list[str]:
    rows = [("title", manifest.title)]
    rows += [
        ("done", _done(action, manifest))
        for action in manifest.actions
        if action.name not in ("c2pa.opened", "c2pa.placed")  # the inputs tell
    ]
    rows += [
        ("model", ", ".join(filter(None, (manifest.model, manifest.licence)))),
        ("recipe", manifest.recipe),
    ]
    rows += [("input", _input(part)) for part in manifest.inputs if part.title != manifest.model]
    rows += [
        (
            "training",
            ", ".join(_USES.get(use, use) for use in sorted({*manifest.training.values()})),
        )
    ]
    by = manifest.signature
    signer = ", ".join(filter(None, (by.name, by.organisation)))
    whose = {"own": "your own key", "trusted": "trusted", "unknown": "unknown here"}
    rows.append(("signed by", f"{signer} ({whose[manifest.standing]})"))
    rows.append(("stamped", _local(manifest.stamped)))
    return [f"  {name:<9} {value}" for name, value in rows if value]


def _done(action: Action, manifest: Manifest) -> str:
    how = _SOURCES.get(action.source, action.source)
    words = [" ".join(filter(None, (action.name.removeprefix("c2pa."), how)))]
    words.append(action.software or manifest.software)
    if action.when:
        words.append(f"{_local(action.when)} by the signer's clock")
    return ", ".join(filter(None, words))


def _local(when: str) -> str:
    """A time in ISO 8601 as the clock here shows it."""
    try:
        return datetime.fromisoformat(when).astimezone().strftime("%Y-%m-%d %H:%M %Z")
    except (ValueError, OverflowError, OSError):
        return when


def _input(part: Input) -> str:
    words = [part.title or "without a name", f"({_RELATIONS.get(part.relation, part.relation)})"]
    if part.faults:
        words.append(
            "which was not as it was signed when it was taken in: " + ", ".join(part.faults)
        )
    elif part.manifest is None:
        words.append("without credentials")
    return " ".join(words)
