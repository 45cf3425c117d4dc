"""The signing identity: made once, private, and refused where it is not in order."""

from __future__ import annotations

import getpass
import io
import os
import platform
import socket
import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from PIL import Image

from mezzotint.provenance import identity
from mezzotint.provenance.chain import read_bytes
from mezzotint.provenance.credentials import Claim, CredentialsError, sign
from mezzotint.provenance.identity import IdentityError, anchors, configured, load, own

PEM = serialization.Encoding.PEM


def _mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_made_once_and_private(tmp_path: Path) -> None:
    home = tmp_path / "a" / "b"
    before = os.umask(0)  # the worst that a user can have set
    try:
        first = own(home)
    finally:
        os.umask(before)
    assert own(home) == first
    assert _mode(home / "identity") == 0o700
    assert _mode(home / "identity" / "key.pem") == 0o600
    assert sorted(path.name for path in home.iterdir()) == ["identity"]  # nothing left over
    assert own(tmp_path / "c").chain != first.chain
    assert "PRIVATE" not in repr(first)


def test_nothing_of_a_person_is_in_it(tmp_path: Path) -> None:
    certificates = x509.load_pem_x509_certificates(own(tmp_path).chain)
    texts = " ".join(
        f"{one.subject.rfc4514_string()} {one.issuer.rfc4514_string()}" for one in certificates
    ).lower()
    for name in (getpass.getuser(), socket.gethostname(), platform.node()):
        assert name.lower() not in texts.split()
        assert len(name) < 6 or name.lower() not in texts
    names = {attribute.oid for one in certificates for attribute in one.subject}
    assert names == {x509.NameOID.ORGANIZATION_NAME, x509.NameOID.COMMON_NAME}


def test_certificate_is_what_c2pa_demands(tmp_path: Path) -> None:
    """C2PA specification 2.2, section 14.5.1."""
    leaf, root = x509.load_pem_x509_certificates(own(tmp_path).chain)
    leaf.verify_directly_issued_by(root)
    root.verify_directly_issued_by(root)
    found = {extension.oid: extension for extension in leaf.extensions}
    usage = found[x509.ExtensionOID.KEY_USAGE]
    assert usage.critical and usage.value.digital_signature and not usage.value.key_cert_sign
    assert not found[x509.ExtensionOID.BASIC_CONSTRAINTS].value.ca
    purposes = list(found[x509.ExtensionOID.EXTENDED_KEY_USAGE].value)
    assert purposes == [x509.ExtendedKeyUsageOID.EMAIL_PROTECTION]
    assert found[x509.ExtensionOID.AUTHORITY_KEY_IDENTIFIER].value.key_identifier == (
        x509.SubjectKeyIdentifier.from_public_key(root.public_key()).digest
    )
    assert leaf.not_valid_after_utc > datetime.now(UTC) + timedelta(days=365 * 25)
    assert leaf.not_valid_before_utc < datetime.now(UTC)


def test_processes_that_come_at_once_end_with_one_identity(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from mezzotint.provenance.identity import own;"
        "import cryptography.x509; sys.stdin.readline(); print(own(Path(sys.argv[1])).key.hex())"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(tmp_path / "home")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(6)
    ]
    for process in started:
        assert process.stdin is not None
        process.stdin.write("\n")
        process.stdin.flush()
    keys = {process.communicate(timeout=60)[0].strip() for process in started}
    assert keys == {own(tmp_path / "home").key.hex()}
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["identity"]


def test_one_that_was_beaten_takes_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other comes between the look and the making."""
    make, made = identity._make, list[identity.Identity]()

    def late(place: Path) -> None:
        monkeypatch.setattr(identity, "_make", make)
        made.append(own(tmp_path))
        make(place)

    monkeypatch.setattr(identity, "_make", late)
    assert [own(tmp_path)] == made


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
@pytest.mark.parametrize(("name", "mode"), [("", 0o750), ("key.pem", 0o640), ("key.pem", 0o604)])
def test_open_permissions_are_refused(tmp_path: Path, name: str, mode: int) -> None:
    own(tmp_path)
    path = tmp_path / "identity" / name
    path.chmod(mode)
    with pytest.raises(IdentityError, match=f"open to other users: chmod {'6' if name else '7'}00"):
        own(tmp_path)


def test_damaged(tmp_path: Path) -> None:
    own(tmp_path)
    folder = tmp_path / "identity"
    good = (folder / "certificate.pem").read_bytes()
    (folder / "certificate.pem").write_text("no certificate")
    with pytest.raises(IdentityError, match="certificate.pem: holds no certificates"):
        own(tmp_path)
    with pytest.raises(IdentityError, match="holds no certificates"):
        anchors(tmp_path)
    (folder / "certificate.pem").write_bytes(good)
    (folder / "key.pem").unlink()
    with pytest.raises(IdentityError, match="key.pem: no such file"):
        own(tmp_path)
    assert (folder / "certificate.pem").read_bytes() == good  # nothing is replaced


def test_where_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USERPROFILE", str(tmp_path / "home"))
    monkeypatch.delenv("MEZZOTINT_HOME", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative")
    assert identity.configuration_folder() == tmp_path / "home" / ".config" / "mezzotint"
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "xdg"))
    assert identity.configuration_folder() == tmp_path / "xdg" / "mezzotint"
    monkeypatch.setenv("MEZZOTINT_HOME", str(tmp_path / "mine"))
    assert identity.configuration_folder() == tmp_path / "mine"
    assert anchors() == b"" and not (tmp_path / "mine").exists()  # asking makes none
    assert configured() == own(tmp_path / "mine")
    assert anchors() in own().chain


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(IdentityError, match="no signing key can be made"):
        own(tmp_path / "file" / "home")


# --- the user's own certificate ---------------------------------------------------------------


def _pem(key: object) -> bytes:
    return key.private_bytes(  # pyright: ignore[reportAttributeAccessIssue]
        PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _write(
    folder: Path,
    key: object,
    days: tuple[int, int] = (-1, 30),
    purpose: x509.ObjectIdentifier = x509.ExtendedKeyUsageOID.EMAIL_PROTECTION,
    self_issued: bool = False,
) -> tuple[Path, Path]:
    """A chain of two and its key."""
    authority = ec.generate_private_key(ec.SECP384R1())
    issuer, subject = (
        x509.Name([x509.NameAttribute(x509.NameOID.ORGANIZATION_NAME, name)])
        for name in ("Root", "Root" if self_issued else "Studio Fox")
    )
    now = datetime.now(UTC)

    def certificate(subject: x509.Name, public: object, ca: bool) -> x509.Certificate:
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(public)  # pyright: ignore[reportArgumentType]
            .serial_number(x509.random_serial_number())
            .not_valid_before(now + timedelta(days=days[0]))
            .not_valid_after(now + timedelta(days=days[1]))
            .add_extension(x509.BasicConstraints(ca, None), True)
            .add_extension(identity._usage(signs=not ca), True)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()), False
            )
        )
        if not ca:
            builder = builder.add_extension(x509.ExtendedKeyUsage([purpose]), False)
        return builder.sign(authority, hashes.SHA256())

    leaf = certificate(subject, key.public_key(), False)  # pyright: ignore[reportAttributeAccessIssue]
    root = certificate(issuer, authority.public_key(), True)
    chain, path = folder / "chain.pem", folder / "key.pem"
    chain.write_bytes(leaf.public_bytes(PEM) + root.public_bytes(PEM))
    path.write_bytes(_pem(key))
    path.chmod(0o600)
    return chain, path


KEYS = {
    "es256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "es384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "es512": lambda: ec.generate_private_key(ec.SECP521R1()),
    "ps256": lambda: rsa.generate_private_key(65537, 2048),
    "ed25519": ed25519.Ed25519PrivateKey.generate,
}
CLAIM = Claim(
    "t", "created", "trainedAlgorithmicMedia", "m", "1", "icons", "MIT", "sha256:0", "notAllowed"
)


@pytest.mark.parametrize("algorithm", KEYS)
def test_own_certificate(algorithm: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chain, key = _write(tmp_path, KEYS[algorithm]())
    monkeypatch.setenv("MEZZOTINT_CERTIFICATE", str(chain))
    monkeypatch.setenv("MEZZOTINT_KEY", str(key))
    found = configured()
    assert found == load(chain, key) and found.algorithm == algorithm
    signed = sign(PICTURE, "image/png", CLAIM, found)
    root = x509.load_pem_x509_certificates(chain.read_bytes())[1].public_bytes(PEM)
    credentials = read_bytes(signed, trusted=root)
    assert credentials is not None and credentials.state == "valid"
    assert credentials.manifests[0].signature.organisation == "Studio Fox"
    assert credentials.manifests[0].standing == "trusted"
    monkeypatch.delenv("MEZZOTINT_KEY")
    with pytest.raises(IdentityError, match="set both MEZZOTINT_CERTIFICATE and MEZZOTINT_KEY"):
        configured()


def test_bad_certificates_and_keys(tmp_path: Path) -> None:
    def refused(chain: Path, key: Path, words: str) -> None:
        with pytest.raises(IdentityError, match=words) as caught:
            load(chain, key)
        assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)

    good = KEYS["es256"]()
    chain, key = _write(tmp_path, good)
    key.write_bytes(_pem(KEYS["es256"]()))
    refused(chain, key, "key.pem: is not the key of the first certificate")
    key.write_bytes(
        good.private_bytes(
            PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
        )
    )
    refused(chain, key, "the key is encrypted")
    key.write_bytes(b"junk")
    refused(chain, key, "holds no private key")
    refused(*_write(tmp_path, good, days=(-10, -2)), "expired on")
    refused(*_write(tmp_path, good, days=(2, 10)), "is not valid before .*: is the clock right")
    server = x509.ExtendedKeyUsageOID.SERVER_AUTH
    refused(*_write(tmp_path, good, purpose=server), "not for signing documents")
    refused(*_write(tmp_path, good, self_issued=True), "self-issued")
    refused(*_write(tmp_path, rsa.generate_private_key(65537, 1024)), "no key that C2PA signs with")
    refused(*_write(tmp_path, ec.generate_private_key(ec.SECP256K1())), "no key that C2PA")
    refused(*_write(tmp_path, dsa.generate_private_key(1024)), "no key that C2PA signs with")
    chain, key = _write(tmp_path, good)
    first, second = chain.read_bytes().split(b"-----BEGIN")[1:]
    chain.write_bytes(b"-----BEGIN" + first + b"-----BEGIN" + first)
    refused(chain, key, "certificate 2 did not issue certificate 1")
    chain.write_bytes(b"-----BEGIN" + second)
    refused(chain, key, "is not the key")
    key.chmod(0o644)
    chain.write_bytes(b"-----BEGIN" + first)
    refused(chain, key, "chmod 600")
    refused(tmp_path / "none.pem", key, "no such file")


def test_a_time_stamp_server_is_asked_only_if_it_is_named(tmp_path: Path) -> None:
    """Port 9 of this machine answers nobody."""
    own(tmp_path)
    with pytest.raises(CredentialsError, match="cannot sign the file"):
        sign(PICTURE, "image/png", CLAIM, own(tmp_path, timestamps="http://127.0.0.1:9/"))
    assert sign(PICTURE, "image/png", CLAIM, own(tmp_path))


def _picture() -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "PNG")
    return file.getvalue()


PICTURE = _picture()
