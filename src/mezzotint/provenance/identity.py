"""Who signs: a key and its certificate, this computer's own or the user's.

C2PA wants an end-entity certificate of X.509 version 3 that an authority issued, with the key usage
``digitalSignature`` and an extended key usage for signing documents (C2PA specification 2.2,
section 14.5.1).  The own identity is made at first use: an authority whose key is thrown away as
soon as it has issued the one certificate, so that nothing else can ever be signed in its name.
Nobody vouches for it: it tells that two files come from the same key, never whose key that is.

It lies in the folder ``identity`` of the user's configuration (:func:`configuration_folder`):

    certificate.pem   the certificate, and that of its authority
    key.pem           the private key, PKCS #8; read by nobody else (0600, the folder 0700)

There is nothing of a person in it: no name of the user or of the computer.
"""

from __future__ import annotations

import itertools
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from mezzotint.files import WriteError, atomic_folder, stamp

if TYPE_CHECKING:
    from cryptography import x509
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes

CERTIFICATE, KEY = "certificate.pem", "key.pem"
ORGANISATION = "Self-signed with Mezzotint"
"""What readers show as the signer of a file: it must not look like more than it is."""

_YEARS = 30
"""Without a time-stamp a signature is good only as long as its certificate."""
_CURVES = {"secp256r1": "es256", "secp384r1": "es384", "secp521r1": "es512"}
_EMAIL = "1.3.6.1.5.5.7.3.4"  # emailProtection: what all readers of C2PA take
_PURPOSES = {_EMAIL, "1.3.6.1.5.5.7.3.36", "1.3.6.1.4.1.62558.2.1"}  # documentSigning, C2PA's own


class IdentityError(ValueError):
    """No identity to sign with; one line that names the file and the remedy."""


@dataclass(frozen=True)
class Identity:
    """What signs.

    Attributes:
        chain: the certificates in PEM, the signer's first.
        key: its private key in PEM (PKCS #8, not encrypted).
        algorithm: as C2PA names it: es256, es384, es512, ps256, ed25519.
        timestamps: address of a time-stamp server (RFC 3161), asked at every signature; None asks
            nobody.
    """

    chain: bytes
    key: bytes = field(repr=False)
    algorithm: str
    timestamps: str | None = None


def configuration_folder() -> Path:
    """``$MEZZOTINT_HOME``, else ``$XDG_CONFIG_HOME/mezzotint``, else ``~/.config/mezzotint``.

    Raises:
        IdentityError: the user has no home folder.
    """
    if own := os.environ.get("MEZZOTINT_HOME"):
        return Path(own)
    shared = Path(os.environ.get("XDG_CONFIG_HOME") or "")
    if shared.is_absolute():  # the XDG base directory specification: others are to be ignored
        return shared / "mezzotint"
    try:
        return Path.home() / ".config" / "mezzotint"
    except RuntimeError:
        raise IdentityError(
            "there is no home folder to keep the signing key in: set MEZZOTINT_HOME"
        ) from None


def configured() -> Identity:
    """The user's identity if ``MEZZOTINT_CERTIFICATE`` and ``MEZZOTINT_KEY`` name its files, else
    the own one; ``MEZZOTINT_TIMESTAMPS`` may give a time-stamp server's address.

    Raises:
        IdentityError: as :func:`load` and :func:`own`, or only one of the two is set.
    """
    chain, key = (os.environ.get(f"MEZZOTINT_{name}") for name in ("CERTIFICATE", "KEY"))
    timestamps = os.environ.get("MEZZOTINT_TIMESTAMPS") or None
    if not chain and not key:
        return own(timestamps=timestamps)
    if not chain or not key:
        raise IdentityError("set both MEZZOTINT_CERTIFICATE and MEZZOTINT_KEY, or neither")
    return _kept(Path(chain), Path(key), timestamps)


# --- the own identity -------------------------------------------------------------------------


def own(folder: Path | None = None, timestamps: str | None = None) -> Identity:
    """This user's own identity, made if there is none yet.

    Two programs that make it at once end with the same one.

    Args:
        folder: of the configuration; None takes :func:`configuration_folder`.

    Raises:
        IdentityError: it cannot be made, is damaged or expired, or others may read its key.
    """
    place = (configuration_folder() if folder is None else folder) / "identity"
    if not (place / KEY).exists():
        _make(place)
    _check_private(place)
    return _kept(place / CERTIFICATE, place / KEY, timestamps)


def anchors(folder: Path | None = None) -> bytes:
    """The certificate of the own identity's authority in PEM; empty if there is none yet.

    Raises:
        IdentityError: the file cannot be read.
    """
    from cryptography.hazmat.primitives.serialization import Encoding

    path = (configuration_folder() if folder is None else folder) / "identity" / CERTIFICATE
    if not path.exists():
        return b""
    return _certificates(path, _read(path))[-1].public_bytes(Encoding.PEM)


def _make(place: Path) -> None:
    certificate, key = _issue(datetime.now(UTC))
    try:
        place.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with atomic_folder(place) as fresh:
            fresh.chmod(0o700)  # before the key is in it
            for name, content in ((CERTIFICATE, certificate), (KEY, key)):
                handle = os.open(fresh / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(handle, "wb") as file:
                    file.write(content)
                    file.flush()
                    os.fsync(file.fileno())
    except WriteError as error:
        if not (place / CERTIFICATE).exists():  # else another process was first: its own counts
            raise IdentityError(f"no signing key can be made: {error}") from error
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise IdentityError(
            f"no signing key can be made in {place}: {reason}: set MEZZOTINT_HOME"
        ) from error


def _issue(now: datetime) -> tuple[bytes, bytes]:
    """A new certificate with that of its authority, and its key; in PEM."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    authority, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    issuing = x509.SubjectKeyIdentifier.from_public_key(authority.public_key())
    number = identifier.digest.hex()[:8]
    names = [
        x509.Name(
            [
                x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, ORGANISATION),
                x509.NameAttribute(x509.NameOID.COMMON_NAME, f"{what} {number}"),
            ]
        )
        for what in ("authority of key", "key")
    ]
    begin = now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=1)
    end = begin + timedelta(days=365 * _YEARS)

    def certificate(
        subject: x509.Name,
        public: ec.EllipticCurvePublicKey,
        extensions: Sequence[tuple[x509.ExtensionType, bool]],
    ) -> x509.Certificate:
        builder = x509.CertificateBuilder(names[0], subject, public)
        builder = builder.serial_number(x509.random_serial_number())
        builder = builder.not_valid_before(begin).not_valid_after(end)
        for extension, critical in extensions:
            builder = builder.add_extension(extension, critical)
        return builder.sign(authority, hashes.SHA256())

    root = certificate(
        names[0],
        authority.public_key(),
        [(x509.BasicConstraints(True, 0), True), (_usage(signs=False), True), (issuing, False)],
    )
    leaf = certificate(
        names[1],
        key.public_key(),
        [
            (x509.BasicConstraints(False, None), True),
            (_usage(signs=True), True),
            (x509.ExtendedKeyUsage([x509.ObjectIdentifier(_EMAIL)]), False),
            (identifier, False),
            (x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(issuing), False),
        ],
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(
        pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return leaf.public_bytes(pem) + root.public_bytes(pem), private


def _usage(signs: bool) -> x509.KeyUsage:
    """Of a signer of documents, or of an authority."""
    from cryptography import x509

    return x509.KeyUsage(
        digital_signature=signs,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=not signs,
        crl_sign=False,
        encipher_only=False,
        decipher_only=False,
    )


# --- files ------------------------------------------------------------------------------------


def _kept(chain: Path, key: Path, timestamps: str | None) -> Identity:
    """As :func:`load`: a server asks with each picture, and it is read once a day as long as the
    files stay as they are."""
    try:
        stamps = stamp(chain), stamp(key)
    except OSError:  # which says what is wrong
        return load(chain, key, timestamps)
    return _loaded(chain, key, timestamps, stamps, datetime.now(UTC).date())


@lru_cache(2)
def _loaded(
    chain: Path, key: Path, timestamps: str | None, _: tuple[tuple[int, ...], ...], __: date
) -> Identity:
    return load(chain, key, timestamps)


def load(chain: Path, key: Path, timestamps: str | None = None) -> Identity:
    """The identity in two PEM files: certificates with the signer's first, and its private key.

    Raises:
        IdentityError: a file cannot be read or others may read the key; the key is encrypted or
            another certificate's; the certificate is expired, self-issued or not for signing
            documents; the algorithm is unknown.
    """
    from cryptography.hazmat.primitives import serialization

    raw = _read(chain)
    certificates = _certificates(chain, raw)
    _check_private(key)
    private = _private_key(key, _read(key))
    spki = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    if certificates[0].public_key().public_bytes(*spki) != private.public_key().public_bytes(*spki):
        raise IdentityError(f"{key}: is not the key of the first certificate in {chain}")
    try:
        _check_certificates(chain, certificates)
    except IdentityError:
        raise
    except Exception as error:  # extensions are parsed when asked for
        raise IdentityError(f"{chain}: its certificate is damaged: {_one_line(error)}") from error
    pem = b"".join(each.public_bytes(serialization.Encoding.PEM) for each in certificates)
    pkcs8 = private.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return Identity(pem, pkcs8, _algorithm(key, private), timestamps)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:200] or type(error).__name__


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(1 << 20)  # certificates of more than 1 MiB are none
    except OSError as error:
        raise IdentityError(f"{path}: {(error.strerror or str(error)).lower()}") from error


def _check_private(path: Path) -> None:
    """Raise unless the file or folder is the user's, and nobody else may read or change it."""
    if os.name == "nt":  # permissions are inherited from the profile's folder there
        return
    try:
        found = path.stat()
    except OSError as error:
        raise IdentityError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    mode = "700" if stat.S_ISDIR(found.st_mode) else "600"
    if found.st_uid not in (os.geteuid(), 0):
        raise IdentityError(f"{path}: belongs to another user: a key must be your own")
    if stat.S_IMODE(found.st_mode) & 0o077:
        raise IdentityError(f"{path}: is open to other users: chmod {mode} {path}")


def _certificates(path: Path, raw: bytes) -> list[x509.Certificate]:
    from cryptography import x509

    try:
        return x509.load_pem_x509_certificates(raw)
    except ValueError as error:
        raise IdentityError(f"{path}: holds no certificates in PEM") from error


def _private_key(path: Path, raw: bytes) -> PrivateKeyTypes:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        return load_pem_private_key(raw, None)
    except TypeError:
        raise IdentityError(
            f"{path}: the key is encrypted: write it without a password (openssl pkey), mode 600"
        ) from None
    except (ValueError, UnsupportedAlgorithm) as error:
        raise IdentityError(f"{path}: holds no private key in PEM") from error


def _algorithm(path: Path, key: PrivateKeyTypes) -> str:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    if isinstance(key, ec.EllipticCurvePrivateKey) and key.curve.name in _CURVES:
        return _CURVES[key.curve.name]
    if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= 2048:
        return "ps256"
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return "ed25519"
    raise IdentityError(
        f"{path}: is no key that C2PA signs with: take P-256, P-384, P-521, Ed25519, or RSA of at "
        "least 2048 bits"
    )


def _check_certificates(path: Path, chain: list[x509.Certificate]) -> None:
    """Raise unless C2PA takes the first certificate of a chain as a signer's, today."""
    from cryptography import x509

    first, now = chain[0], datetime.now(UTC)
    if first.not_valid_before_utc > now:
        begin = first.not_valid_before_utc.date()
        raise IdentityError(f"{path}: is not valid before {begin}: is the clock right?")
    if first.not_valid_after_utc < now:
        end = first.not_valid_after_utc.date()
        raise IdentityError(f"{path}: expired on {end}: get a new one, and move this one away")
    if first.subject == first.issuer:
        raise IdentityError(
            f"{path}: its first certificate is self-issued, which C2PA refuses: put one first that "
            "an authority issued, if only your own"
        )
    for number, (lower, upper) in enumerate(itertools.pairwise(chain), start=1):
        try:
            lower.verify_directly_issued_by(upper)
        except Exception as error:  # ValueError, TypeError, InvalidSignature
            raise IdentityError(
                f"{path}: certificate {number + 1} did not issue certificate {number}: order them "
                "from the signer's to the authority's"
            ) from error
    purposes: set[str] = set()
    signs = False
    for extension in first.extensions:
        if isinstance(extension.value, x509.ExtendedKeyUsage):
            purposes = {purpose.dotted_string for purpose in extension.value}
        if isinstance(extension.value, x509.KeyUsage):
            signs = extension.value.digital_signature
    if not signs or not purposes & _PURPOSES:
        raise IdentityError(
            f"{path}: is not for signing documents: C2PA wants the key usage digitalSignature and "
            "the extended key usage emailProtection or documentSigning"
        )
