"""Content Credentials (C2PA): a signed statement in a file of what made it, and from what.

The statement (a *manifest*) says which action made the file (``c2pa.created``, or ``c2pa.opened``
and ``c2pa.edited``), that a trained model did (IPTC's digital source type), with which model and
licence, from which inputs, and whether it may be trained on; it is bound to the file by a hash of
all its other bytes and signed (C2PA specification 2.2).  A manifest that an input carries goes into
the new one whole.  :mod:`mezzotint.provenance.chain` reads it.

Nothing is fetched: no manifest from elsewhere, no revocation list, and no time-stamp unless the
identity names a server.  The library draws random salts and identifiers, so two signings of the
same bytes differ in the manifest, in nothing else.
"""

from __future__ import annotations

import functools
import io
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, get_args

from mezzotint.provenance import manifest_store
from mezzotint.provenance.identity import Identity
from mezzotint.provenance.manifest_store import MARK

if TYPE_CHECKING:
    from c2pa import Builder, Context, Signer

EMBEDS = frozenset(
    {
        "image/png",
        "image/jpeg",
        "image/webp",
        "image/svg+xml",
        "image/tiff",
        "audio/wav",
        "audio/flac",
        "audio/mpeg",
        "audio/mp4",
        "video/mp4",
        "video/quicktime",
    }
)
"""Media types that hold their credentials; all others have them in a file beside."""
SIDECAR = ".c2pa"
GENERATION = "mezzotint.generation"
"""Our own assertion: model, licence and the hash of the recipe."""
SOURCE_TYPE = "http://cv.iptc.org/newscodes/digitalsourcetype/"
_ANY = "application/octet-stream"
_USES = ("ai_generative_training", "ai_inference", "ai_training", "data_mining")

SourceType = Literal[
    "trainedAlgorithmicMedia",
    "compositeWithTrainedAlgorithmicMedia",
    "composite",
    "digitalCreation",
    "algorithmicallyEnhanced",
]
"""IPTC's names: drawn by a model; that with other things; of several that no model drew; drawn by
hand; changed by a program that has learnt nothing."""
Relation = Literal["parentOf", "inputTo", "componentOf"]
Use = Literal["allowed", "notAllowed"]


class CredentialsError(ValueError):
    """Credentials cannot be written or read; one line, without the file's name."""


class DamagedError(CredentialsError):
    """Credentials are there and cannot be read: they were changed, or cut off."""


class Ingredient(NamedTuple):
    """A file that went into another.

    Attributes:
        data: its bytes; what credentials they carry are kept.
        mime: its media type.
        title: its name; of a path the last part.
        relation: ``parentOf`` of what was edited, ``inputTo`` of what only led (a reference, a
            sketch), ``componentOf`` of what is a part of the result.
    """

    data: bytes
    mime: str
    title: str
    relation: Relation


@dataclass(frozen=True)
class Claim:
    """What is stated of a file.

    Attributes:
        title: of the work.
        action: ``created``, or ``edited``, which has exactly one parent among its ingredients.
        source: IPTC's digital source type.
        software, version: that made it.
        model, licence: what drew it, and under which terms; no model: nothing drew it here.
        recipe: hash of its recipe.
        training: whether it may be used to train models and be mined.
        when: it was made, by this computer's clock; None leaves it out.
    """

    title: str
    action: Literal["created", "edited"]
    source: SourceType
    software: str
    version: str
    model: str
    licence: str
    recipe: str
    training: Use
    ingredients: tuple[Ingredient, ...] = ()
    when: datetime | None = None


# --- the library ------------------------------------------------------------------------------


@contextmanager
def library(what: str, kind: type[CredentialsError] = CredentialsError) -> Iterator[None]:
    """Turns the library's errors into one of ``kind`` that begins with ``what``."""
    from c2pa import C2paError

    try:
        yield
    except C2paError as error:
        said = "".join(c if c.isprintable() else " " for c in str(error))
        said = " ".join(said.split()).rstrip(".") or type(error).__name__
        raise kind(f"{what}: {said[:200]}") from error


def context(own: bytes = b"", trusted: bytes = b"", check: bool = False) -> Context:
    """The library's settings: all that could reach the network is off.

    own, trusted: authorities in PEM whose certificates are believed; check: read again what was
    signed.
    """
    from c2pa import Context, Settings

    trust = {"user_anchors": own.decode(), "trust_anchors": trusted.decode()}
    settings = {
        "version": 1,
        "trust": {name: anchors for name, anchors in trust.items() if anchors},
        "core": {"allowed_network_hosts": []},
        "verify": {
            "verify_trust": True,
            "verify_timestamp_trust": True,
            "verify_after_reading": True,
            "verify_after_sign": check,
            "ocsp_fetch": False,
            "remote_manifest_fetch": False,
        },
        "builder": {
            "thumbnail": {"enabled": False},
            "certificate_status_fetch": None,
            "actions": {
                f"auto_{action}_action": {"enabled": False}
                for action in ("created", "opened", "placed")
            },
        },
    }
    return Context(Settings.from_dict(settings))


@functools.lru_cache(8)
def _signing(identity: Identity, process: int) -> tuple[Context, Signer]:
    """Made once for an identity and process: the library's objects do not outlive a fork."""
    from c2pa import C2paSignerInfo, Signer

    server = identity.timestamps.encode() if identity.timestamps else None
    algorithm = identity.algorithm.encode()
    with library("cannot sign with this certificate and key"):
        info = C2paSignerInfo(algorithm, identity.chain, identity.key, server)
        authority = b"-----BEGIN" + identity.chain.rpartition(b"-----BEGIN")[2]
        return context(authority, check=True), Signer.from_info(info)


# --- signing ----------------------------------------------------------------------------------


def sign(data: bytes, mime: str, claim: Claim, identity: Identity) -> bytes:
    """A file with its credentials in it.

    What else is in the file stays as it is, byte by byte in content, and is covered by the hash:
    text chunks, XMP, samples.

    Args:
        data: the whole file, without credentials.
        mime: its media type, one of :data:`EMBEDS`.

    Raises:
        CredentialsError: the format has no place for them, the file is damaged or carries
            credentials already, an ingredient cannot be read, or the identity's time-stamp server
            does not answer.
    """
    if mime not in EMBEDS:
        raise CredentialsError(f"{mime} files have no place for credentials: use a sidecar")
    if MARK in data:
        raise CredentialsError("carries credentials already: make it an ingredient of a new file")
    built, signer, signed = _built(claim, mime, identity), _signer(identity), io.BytesIO()
    with library("cannot sign the file"):
        built.sign(signer, mime, io.BytesIO(data), signed)
    return signed.getvalue()


def sidecar(data: bytes, claim: Claim, identity: Identity) -> bytes:
    """The credentials of a file that cannot hold them, for the file beside it.

    They are bound to every byte of ``data``.

    Raises:
        CredentialsError: an ingredient cannot be read, or as :func:`sign`.
    """
    built, signer = _built(claim, _ANY, identity), _signer(identity)
    with library("cannot sign the file"):
        built.set_no_embed()
        return built.sign(signer, _ANY, io.BytesIO(data), io.BytesIO())


def sidecar_path(path: Path) -> Path:
    """Where the credentials of a file lie that cannot hold them: ``fox.glb`` has ``fox.c2pa``."""
    return path.with_suffix(SIDECAR)


def check(ingredient: Ingredient, identity: Identity) -> None:
    """Raise if a file cannot become an ingredient: to be asked before the work is done.

    Raises:
        CredentialsError: it is damaged, or its own credentials are so and would be lost.
    """
    led = ingredient._replace(relation="inputTo")
    probe = Claim(
        "", "created", "trainedAlgorithmicMedia", "mezzotint", "", "", "", "", "allowed", (led,)
    )
    try:
        sidecar(b"probe", probe, identity)
    except CredentialsError as error:
        name, reason = _name(ingredient), str(error).rpartition(": ")[2]
        raise CredentialsError(f"{name}: cannot be kept as an input: {reason}") from error


def _signer(identity: Identity) -> Signer:
    return _signing(identity, os.getpid())[1]


def _built(claim: Claim, mime: str, identity: Identity) -> Builder:
    from c2pa import Builder

    _check_claim(claim)
    with library("cannot prepare credentials"):
        built = Builder(_definition(claim, mime), _signing(identity, os.getpid())[0])
    for number, ingredient in enumerate(claim.ingredients):
        _add(built, ingredient, f"input-{number}")
    return built


def _check_claim(claim: Claim) -> None:
    parents = sum(each.relation == "parentOf" for each in claim.ingredients)
    if parents != (claim.action == "edited"):
        raise CredentialsError(
            f"{claim.action} with {parents} parents: what is edited has exactly one, what is "
            "created none"
        )
    for value, kind in ((claim.source, SourceType), (claim.training, Use)):
        if value not in get_args(kind):
            raise CredentialsError(f"{value!r} is none of {', '.join(get_args(kind))}")


def _add(built: Builder, ingredient: Ingredient, label: str) -> None:
    title = _name(ingredient)
    fields = {"title": title, "relationship": ingredient.relation, "label": label}
    carries = MARK in ingredient.data  # without, the library need not look into it
    if carries:
        try:
            manifest_store.claims(ingredient.data)
        except manifest_store.LooseError as error:
            raise CredentialsError(f"{title}: cannot be kept as an input: {error}") from error
    with library(f"{title}: cannot be kept as an input"):
        mime = ingredient.mime if carries else _ANY
        built.add_ingredient(fields, mime, io.BytesIO(ingredient.data))


def _name(ingredient: Ingredient) -> str:
    """Never where it was: of a path the last part."""
    return ingredient.title.replace("\\", "/").rstrip("/").rpartition("/")[2]


def _definition(claim: Claim, mime: str) -> dict[str, Any]:
    """The manifest's definition as the library takes it."""
    terms = {"model": claim.model, "licence": claim.licence, "recipe": claim.recipe}
    mining = {
        space: {"entries": {f"{space}.{use}": {"use": claim.training} for use in _USES}}
        for space in ("c2pa", "cawg")  # C2PA's own until its version 2.0, CAWG's since
    }
    assertions: list[tuple[str, dict[str, Any]]] = [
        ("c2pa.actions.v2", {"actions": _actions(claim)}),
        *((f"{space}.training-mining", entries) for space, entries in mining.items()),
        (GENERATION, terms),
    ]
    model = {
        "label": "model",
        "title": claim.model,
        "format": _ANY,
        "relationship": "inputTo",
        "data_types": [{"type": "c2pa.types.model"}],
        "description": f"Licence: {claim.licence}",
    }
    return {
        "title": claim.title,
        "format": mime,
        "claim_generator_info": [{"name": claim.software, "version": claim.version}],
        "ingredients": [model] if claim.model else [],
        "assertions": [
            {"label": label, "data": data, "created": True} for label, data in assertions
        ],
    }


def _actions(claim: Claim) -> list[dict[str, Any]]:
    """What was done, in its order: a parent is opened first, parts are placed last."""
    labels: dict[str, list[str]] = {relation: [] for relation in get_args(Relation)}
    for number, ingredient in enumerate(claim.ingredients):
        labels[ingredient.relation].append(f"input-{number}")
    made: dict[str, Any] = {
        "action": f"c2pa.{claim.action}",
        "digitalSourceType": SOURCE_TYPE + claim.source,
        "softwareAgent": {"name": claim.software, "version": claim.version},
    }
    led = [*(["model"] if claim.model else []), *labels["inputTo"]]
    if led:
        made["parameters"] = {"ingredientIds": led}
    if claim.when is not None:
        made["when"] = claim.when.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    opened = [
        {"action": "c2pa.opened", "parameters": {"ingredientIds": [label]}}
        for label in labels["parentOf"]
    ]
    placed = [
        {"action": "c2pa.placed", "parameters": {"ingredientIds": [label]}}
        for label in labels["componentOf"]
    ]
    return [*opened, made, *placed]
