"""Content Credentials read: the chain of manifests in a file as data, and whether it holds.

The library checks every hash and signature; what is said here of a manifest that lies further back
is what the one before it recorded when it took it in.  Three states:

    valid       nothing was changed since it was signed, and the signer is known: the own key, or
                one under an authority that the caller trusts
    untrusted   nothing was changed, and anyone may have signed it
    invalid     something was changed, or the certificate does not hold

A stranger's text is shown on one line, without control characters, and not at length.
"""

from __future__ import annotations

import binascii
import functools
import io
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from mezzotint.checkpoints.limits import parse
from mezzotint.provenance import manifest_store
from mezzotint.provenance.credentials import (
    GENERATION,
    SOURCE_TYPE,
    CredentialsError,
    DamagedError,
    context,
    library,
    sidecar_path,
)
from mezzotint.provenance.manifest_store import MARK

if TYPE_CHECKING:
    from c2pa import Context

State = Literal["valid", "untrusted", "invalid"]
Standing = Literal["own", "trusted", "unknown"]

_MOST_BYTES = 4 << 30
_SVG = "image/svg+xml"
_MOST_MANIFESTS = 256
_MOST_ITEMS = 1000  # actions, ingredients or faults of a manifest
_SHOWN = 200
_UNTRUSTED = "signingCredential.untrusted"
_TRUSTED, _SIGNED = "signingCredential.trusted", "claimSignature.validated"
_WORDS = {
    "assertion.dataHash.mismatch": "the file was changed after it was signed",
    "assertion.bmffHash.mismatch": "the file was changed after it was signed",
    "assertion.boxesHash.mismatch": "the file was changed after it was signed",
    "assertion.hashedURI.mismatch": "a statement was changed after it was signed",
    "assertion.missing": "a statement is missing",
    "claimSignature.mismatch": "the signature does not fit what is stated",
    "claimSignature.missing": "the signature is missing",
    "claimSignature.outsideValidity": "the certificate had expired, or was not valid yet",
    "signingCredential.expired": "the certificate has expired",
    "signingCredential.invalid": "the certificate is not one for signing files",
    "signingCredential.ocsp.revoked": "the certificate was revoked",
    "ingredient.manifest.missing": "the credentials of an input are missing",
    "ingredient.manifest.mismatch": "the credentials of an input were changed",
    "ingredient.claimSignature.mismatch": "the credentials of an input were changed",
}
"""C2PA's status codes (specification 2.2, section 15.2.2) in plain words."""


@dataclass(frozen=True)
class Signature:
    """Who signed, as the certificate says; ``begin`` and ``end`` of its validity in ISO 8601."""

    name: str
    organisation: str
    issuer: str
    algorithm: str
    serial: str
    begin: str
    end: str


@dataclass(frozen=True)
class Action:
    """What was done: C2PA's name of it, IPTC's source type, with what, and when it says so."""

    name: str
    source: str
    software: str
    when: str


@dataclass(frozen=True)
class Input:
    """What went in.

    Attributes:
        manifest: label of its own manifest, if it had one.
        faults: what was wrong with it at that time, as recorded.
    """

    title: str
    mime: str
    relation: str
    manifest: str | None
    faults: tuple[str, ...]


@dataclass(frozen=True)
class Manifest:
    """One signed statement.

    Attributes:
        standing: of the signer.
        stamped: when a time-stamp server saw it; empty without one.
        training: each use of the training-and-mining assertion, with ``allowed``, ``notAllowed`` or
            ``constrained``.
        model, licence, recipe: of a file that Mezzotint made; else empty.
    """

    label: str
    title: str
    software: str
    signature: Signature
    standing: Standing
    stamped: str
    actions: tuple[Action, ...]
    inputs: tuple[Input, ...]
    training: Mapping[str, str]
    model: str
    licence: str
    recipe: str


@dataclass(frozen=True)
class Credentials:
    """All of a file: its own manifest first, then those of its inputs, the nearest first.

    Attributes:
        faults: why it is invalid, in words, each with C2PA's code where there is one.
        beside: whether they lie in a file beside.
    """

    manifests: tuple[Manifest, ...]
    state: State
    faults: tuple[str, ...]
    beside: bool


# --- files ------------------------------------------------------------------------------------


def read(source: Path, own: bytes = b"", trusted: bytes = b"") -> Credentials | None:
    """The credentials in a file or in the sidecar beside it; None if it carries none.

    Args:
        own: the authority of the own key in PEM (:func:`mezzotint.provenance.identity.anchors`).
        trusted: other authorities that are believed, in PEM.

    Raises:
        DamagedError: they cannot be read.
        CredentialsError: they lie on a network, or the file is too large, or is a sidecar itself.
        OSError: the file cannot be read.
    """
    if source.stat().st_size > _MOST_BYTES:
        raise CredentialsError(f"is larger than {_MOST_BYTES >> 30} GiB")
    data, path = source.read_bytes(), sidecar_path(source)
    if data[4:8] == b"jumb" and data[12:20] == MARK:
        raise CredentialsError("are credentials alone: name the file that they belong to")
    beside = path.read_bytes() if MARK not in data and path.is_file() else None
    return read_bytes(data, beside, own, trusted)


def read_bytes(
    data: bytes, beside: bytes | None = None, own: bytes = b"", trusted: bytes = b""
) -> Credentials | None:
    """As :func:`read`, of a file's bytes, and those of its sidecar."""
    from c2pa import Reader

    drawn = _of_svg(data)
    if MARK not in data and beside is None and drawn is None:
        if b"dcterms:provenance" in data:  # the address of a manifest, in XMP
            raise CredentialsError("its credentials lie on a network, and nothing is fetched")
        return None
    store = beside or drawn or data
    try:
        manifest_store.claims(store)
    except manifest_store.LooseError as error:
        raise DamagedError(f"its credentials are damaged: {error}") from error
    trust = _context(own, trusted, os.getpid())
    with (
        library("its credentials are damaged", DamagedError),
        Reader("" if drawn is None else _SVG, io.BytesIO(data), beside, trust) as reader,
    ):
        texts = reader.json(), reader.crjson()
    try:
        found, detailed = (parse(text) for text in texts)
    except ValueError as error:
        raise DamagedError(f"its credentials are damaged: {error}") from error
    return _credentials(found, detailed, _loose(store), beside)


def _of_svg(data: bytes) -> bytes | None:
    """The manifests in an SVG, where they stand in base64."""
    if data.lstrip()[:4] not in (b"<?xm", b"<svg"):
        return None
    found = re.search(rb"<c2pa:manifest>([A-Za-z0-9+/=\s]*)</c2pa:manifest>", data)
    try:
        return None if found is None else binascii.a2b_base64(found[1])
    except binascii.Error:
        raise DamagedError("its credentials are damaged: they are no base64") from None


@functools.lru_cache(4)
def _context(own: bytes, trusted: bytes, process: int) -> Context:
    """The library's settings, made once for a process: they do not outlive a fork."""
    with library("the trusted certificates cannot be read"):
        return context(own, trusted)


def _loose(data: bytes) -> list[str]:
    """What was changed of the bytes that no signature covers."""
    try:
        if (store := manifest_store.find(data)) is not None:
            manifest_store.check(store)
    except manifest_store.LooseError as error:
        return [f"the credentials were changed: {error}"]
    return []


# --- a stranger's values ----------------------------------------------------------------------


def _text(value: object) -> str:
    if not isinstance(value, str):
        return ""
    clean = "".join(c if c.isprintable() else " " for c in value[: 2 * _SHOWN]).strip()
    return clean if len(clean) <= _SHOWN else clean[: _SHOWN - 1] + "…"


def _table(value: object, *keys: str) -> Mapping[str, Any]:
    """The table under ``keys``; empty where there is none."""
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def _tables(value: object) -> list[Mapping[str, Any]]:
    items = value[:_MOST_ITEMS] if isinstance(value, list) else []
    return [item for item in items if isinstance(item, dict)]


# --- what they say ----------------------------------------------------------------------------


def _credentials(
    found: Mapping[str, Any], detailed: Mapping[str, Any], loose: list[str], beside: bytes | None
) -> Credentials:
    manifests, active = _table(found, "manifests"), found.get("active_manifest")
    results = _table(found, "validation_results")
    if not isinstance(active, str) or active not in manifests:
        raise DamagedError("its credentials are damaged: none of the manifests is the file's")
    certificates = {
        one.get("label"): _table(one, "signature")
        for one in _tables(detailed.get("manifests"))
        if isinstance(one.get("label"), str)
    }
    faults = [*_faults(results), *loose]
    if not faults and found.get("validation_state") not in ("Valid", "Trusted"):
        faults.append("the credentials are not in order")
    standing = _standing(_table(results, "activeManifest"))
    chain: dict[str, Manifest] = {}
    waiting: list[tuple[str, Standing]] = [(active, standing)]
    while waiting and len(chain) < _MOST_MANIFESTS:
        label, given = waiting.pop(0)
        if label in chain:
            continue
        raw = _table(manifests, label)
        chain[label] = _manifest(label, raw, certificates.get(label, {}), given)
        for part in _tables(raw.get("ingredients")):
            before = part.get("active_manifest")
            if isinstance(before, str) and before in manifests:
                waiting.append((before, _recorded(part, given)))
    state: State = "invalid" if faults else "untrusted" if standing == "unknown" else "valid"
    return Credentials(tuple(chain.values()), state, tuple(faults), beside is not None)


def _codes(results: Mapping[str, Any], kind: str) -> list[Mapping[str, Any]]:
    """Entries of one kind, of the manifest itself and of what has changed with its inputs."""
    found = _tables(_table(results, "activeManifest").get(kind))
    for delta in _tables(results.get("ingredientDeltas")):
        found += _tables(_table(delta, "validationDeltas").get(kind))
    return found


def _faults(results: Mapping[str, Any]) -> tuple[str, ...]:
    """In plain words, each once."""
    found: dict[str, None] = {}
    for entry in _codes(results, "failure"):
        if (code := _text(entry.get("code"))) == _UNTRUSTED:
            continue
        words = _WORDS.get(code, "the credentials are not in order")
        what = _text(entry.get("url")).rpartition("/")[2]
        named = f" ({what})" if what and code.startswith("assertion.hashed") else ""
        found[f"{words}{named} [{code}]"] = None
    return tuple(found)


def _standing(results: Mapping[str, Any]) -> Standing:
    """Of a signer; who is only named beside a signature that does not hold is unknown."""
    passed = {_text(entry.get("code")): entry for entry in _tables(results.get("success"))}
    if _TRUSTED not in passed or _SIGNED not in passed:
        return "unknown"
    return "own" if "[user_anchors]" in _text(passed[_TRUSTED].get("explanation")) else "trusted"


def _recorded(part: Mapping[str, Any], by: Standing) -> Standing:
    """The standing of an input's signer as a signer of standing ``by`` recorded it."""
    if by == "unknown":
        return "unknown"
    said = _standing(_table(part, "validation_results", "activeManifest"))
    return "trusted" if by == "trusted" and said == "own" else said


def _manifest(
    label: str, raw: Mapping[str, Any], certificate: Mapping[str, Any], standing: Standing
) -> Manifest:
    assertions = {
        _text(one.get("label")): _table(one, "data") for one in _tables(raw.get("assertions"))
    }
    made = assertions.get(GENERATION, {})
    return Manifest(
        _text(label),
        _text(raw.get("title")),
        _software(raw),
        _signature(raw, certificate),
        standing,
        _text(_table(raw, "signature_info").get("time")),
        _actions(assertions),
        tuple(_input(part) for part in _tables(raw.get("ingredients"))),
        _training(assertions),
        *(_text(made.get(key)) for key in ("model", "licence", "recipe")),
    )


def _software(raw: Mapping[str, Any]) -> str:
    named = _tables(raw.get("claim_generator_info"))
    if not named:
        return _text(raw.get("claim_generator"))
    return " ".join(filter(None, (_text(named[0].get(key)) for key in ("name", "version"))))


def _signature(raw: Mapping[str, Any], certificate: Mapping[str, Any]) -> Signature:
    info, said = _table(certificate, "certificateInfo"), _table(raw, "signature_info")
    subject, issuer, valid = (_table(info, key) for key in ("subject", "issuer", "validity"))
    by = (_text(issuer.get(key)) for key in ("O", "CN"))
    return Signature(
        _text(subject.get("CN")) or _text(said.get("common_name")),
        _text(subject.get("O")) or _text(said.get("issuer")),
        ", ".join(filter(None, by)),
        _text(certificate.get("algorithm")) or _text(said.get("alg")).lower(),
        _text(info.get("serialNumber")),
        _text(valid.get("notBefore")),
        _text(valid.get("notAfter")),
    )


def _actions(assertions: Mapping[str, Mapping[str, Any]]) -> tuple[Action, ...]:
    found: list[Action] = []
    for label, data in assertions.items():
        if not label.startswith("c2pa.actions"):
            continue
        for action in _tables(data.get("actions")):
            agent = action.get("softwareAgent")
            named = _table(agent)
            words = " ".join(filter(None, (_text(named.get(key)) for key in ("name", "version"))))
            found.append(
                Action(
                    _text(action.get("action")),
                    _text(action.get("digitalSourceType")).removeprefix(SOURCE_TYPE),
                    words or _text(agent),
                    _text(action.get("when")),
                )
            )
    return tuple(found)


def _input(part: Mapping[str, Any]) -> Input:
    before = part.get("active_manifest")
    results = _table(part, "validation_results")
    older = _tables(part.get("validation_status"))  # of ingredients of version 1 and 2
    return Input(
        _text(part.get("title")),
        _text(part.get("format")),
        _text(part.get("relationship")),
        _text(before) if isinstance(before, str) else None,
        _faults(results or {"activeManifest": {"failure": older}}),
    )


def _training(assertions: Mapping[str, Mapping[str, Any]]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for label in ("c2pa.training-mining", "cawg.training-mining"):
        for use, value in list(_table(assertions.get(label), "entries").items())[:_MOST_ITEMS]:
            name = _text(use).removeprefix("c2pa.").removeprefix("cawg.")
            found[name] = _text(_table(value).get("use"))
    return found
