"""Content Credentials: what is stated, kept, found changed; read by the library's own reader."""

from __future__ import annotations

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import av
import c2pa
import numpy as np
import pytest
import soundfile
from PIL import Image
from signed_files import CLAIM, FILES, RECIPE, XMP, clip, edit, picture, signed

from mezzotint.apps import options
from mezzotint.apps.commands_credentials import run_credentials
from mezzotint.provenance import chain, credentials, manifest_store
from mezzotint.provenance.chain import read, read_bytes
from mezzotint.provenance.credentials import (
    EMBEDS,
    CredentialsError,
    DamagedError,
    Ingredient,
    check,
    sidecar,
    sidecar_path,
    sign,
)
from mezzotint.provenance.identity import Identity, anchors, own
from mezzotint.provenance.manifest_store import MARK


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def made(home: Path) -> tuple[Identity, bytes, dict[str, bytes]]:
    return signed(home)


@pytest.fixture(scope="module")
def other(tmp_path_factory: pytest.TempPathFactory) -> Identity:
    return own(tmp_path_factory.mktemp("other"))


def _library(data: bytes, anchor: bytes, beside: bytes | None = None) -> tuple[str, set[str]]:
    """State and faults by the library's own reader, with settings of its own."""
    settings = {
        "trust": {"user_anchors": anchor.decode()} if anchor else {},
        "verify": {"remote_manifest_fetch": False, "ocsp_fetch": False},
    }
    context = c2pa.Context(c2pa.Settings.from_dict(settings))
    with c2pa.Reader("", io.BytesIO(data), beside, context) as reader:
        found = json.loads(reader.json())
    failures = found["validation_results"]["activeManifest"]["failure"]
    return found["validation_state"], {entry["code"] for entry in failures}


# --- what is stated ---------------------------------------------------------------------------


def test_what_is_stated(home: Path) -> None:
    when = datetime(2026, 11, 23, 12, 0, tzinfo=UTC)
    data = sign(picture("PNG"), "image/png", replace(CLAIM, when=when), own(home))
    found = read_bytes(data, own=anchors(home))
    assert found is not None
    (manifest,) = found.manifests
    assert (found.state, found.faults, found.beside) == ("valid", (), False)
    assert manifest.title == "a red fox" and manifest.software == "mezzotint 0.1.0"
    assert (manifest.model, manifest.licence) == ("icons", "CC-BY-4.0")
    assert (manifest.recipe, manifest.stamped) == ("sha256:00ff", "")
    assert set(manifest.training.values()) == {"notAllowed"} and len(manifest.training) == 4
    (action,) = manifest.actions
    assert action.name == "c2pa.created" and action.source == "trainedAlgorithmicMedia"
    assert action.when == "2026-11-23T12:00:00Z"
    (model,) = manifest.inputs
    assert (model.title, model.relation, model.manifest) == ("icons", "inputTo", None)
    assert manifest.standing == "own" and manifest.signature.algorithm == "es256"
    assert manifest.signature.organisation == "Self-signed with Mezzotint"
    with c2pa.Reader("image/png", io.BytesIO(data)) as reader:  # the words of the specification
        text = reader.json()
    assert "http://cv.iptc.org/newscodes/digitalsourcetype/trainedAlgorithmicMedia" in text
    assert '"c2pa.training-mining"' in text and '"cawg.training-mining"' in text
    assert "thumbnail" not in text


@pytest.mark.parametrize("mime", FILES)
def test_every_format_says_the_same_as_before(
    mime: str, made: tuple[Identity, bytes, dict[str, bytes]]
) -> None:
    _, anchor, files = made
    before, after = FILES[mime](), files[mime]
    assert mime in EMBEDS
    assert _library(after, anchor) == ("Trusted", set())
    assert _library(after, b"")[0] == "Valid"  # without trust: intact, by anyone
    assert before.count(RECIPE.encode()) == after.count(RECIPE.encode()) > 0
    if mime.startswith("image"):
        pictures = [Image.open(io.BytesIO(data)) for data in (before, after)]
        assert np.array_equal(*map(np.asarray, pictures))
        assert pictures[0].info.get("parameters") == pictures[1].info.get("parameters")
        assert pictures[1].getxmp() == pictures[0].getxmp() != {}
    elif mime.startswith("audio"):
        assert np.array_equal(*(soundfile.read(io.BytesIO(data))[0] for data in (before, after)))
        with soundfile.SoundFile(io.BytesIO(after)) as file:
            assert RECIPE in (file.comment or RECIPE)  # MP3's is not read by this library
    else:
        frames: list[np.ndarray[Any, Any]] = []
        for data in (before, after):
            with av.open(io.BytesIO(data)) as file:
                assert file.metadata["comment"] == RECIPE
                frames.append(np.stack([f.to_ndarray() for f in file.decode(video=0)]))
        assert np.array_equal(*frames)


@pytest.mark.parametrize("mime", ["model/gltf-binary", "video/webm", "audio/ogg"])
def test_what_cannot_hold_them_has_a_sidecar(mime: str, home: Path, tmp_path: Path) -> None:
    data = clip("webm", "libvpx-vp9") if mime == "video/webm" else b"glTF" + bytes(100)
    with pytest.raises(CredentialsError, match=f"{mime} files have no place .* use a sidecar"):
        sign(data, mime, CLAIM, own(home))
    path = tmp_path / "fox.bin"
    path.write_bytes(data)
    assert read(path) is None
    sidecar_path(path).write_bytes(sidecar(data, CLAIM, own(home)))
    assert sidecar_path(path) == tmp_path / "fox.c2pa"
    found = read(path, anchors(home))
    assert found is not None and found.state == "valid" and found.beside
    assert _library(data, anchors(home), sidecar_path(path).read_bytes())[0] == "Trusted"
    path.write_bytes(data[:-1] + b"x")
    found = read(path, anchors(home))
    assert found is not None and found.state == "invalid"
    assert "the file was changed after it was signed" in found.faults[0]
    with pytest.raises(CredentialsError, match="name the file that they belong to"):
        read(tmp_path / "fox.c2pa")


# --- inputs -----------------------------------------------------------------------------------


def test_an_inputs_manifest_is_kept(home: Path, other: Identity) -> None:
    foreign = sign(picture("JPEG"), "image/jpeg", replace(CLAIM, title="theirs"), other)
    claim = edit(
        Ingredient(foreign, "image/jpeg", "/home/someone/in.jpg", "parentOf"),
        Ingredient(picture("PNG"), "image/png", "C:\\work\\part.png", "componentOf"),
        Ingredient(picture("PNG"), "image/png", "sketch.png", "inputTo"),
    )
    once = sign(picture("PNG"), "image/png", claim, own(home))
    assert b"someone" not in once and b"C:\\" not in once and b"work\\" not in once
    again = sign(
        picture("WEBP"),
        "image/webp",
        edit(Ingredient(once, "image/png", "once.png", "parentOf")),
        own(home),
    )
    assert _library(again, anchors(home)) == ("Trusted", set())
    found = read_bytes(again, own=anchors(home))
    assert found is not None and found.state == "valid"
    assert [manifest.title for manifest in found.manifests] == ["a red fox", "a red fox", "theirs"]
    assert [manifest.standing for manifest in found.manifests] == ["own", "own", "unknown"]
    assert [action.name for action in found.manifests[1].actions] == [
        "c2pa.opened",
        "c2pa.edited",
        "c2pa.placed",
    ]
    assert found.manifests[1].actions[1].source == "compositeWithTrainedAlgorithmicMedia"
    inputs = {part.title: part for part in found.manifests[1].inputs}
    assert set(inputs) == {"icons", "in.jpg", "part.png", "sketch.png"}
    assert inputs["in.jpg"].manifest == found.manifests[2].label and not inputs["in.jpg"].faults
    theirs = read_bytes(foreign)  # the very manifest
    assert theirs is not None and theirs.manifests[0].label == found.manifests[2].label
    stores = [manifest_store.find(data) for data in (foreign, again)]
    assert stores[0] is not None and stores[1] is not None
    assert stores[0][60:] in stores[1]  # all of it, byte by byte, but the store's own head


def test_a_changed_input_is_kept_as_changed(home: Path) -> None:
    parent = bytearray(sign(picture("PNG"), "image/png", CLAIM, own(home)))
    parent[-30] ^= 1
    part = Ingredient(bytes(parent), "image/png", "in.png", "parentOf")
    check(part, own(home))
    found = read_bytes(sign(picture("PNG"), "image/png", edit(part), own(home)), own=anchors(home))
    assert found is not None and found.state == "valid" and len(found.manifests) == 2
    (faults,) = (one.faults for one in found.manifests[0].inputs if one.title == "in.png")
    assert faults == ("the file was changed after it was signed [assertion.dataHash.mismatch]",)


def test_an_input_that_cannot_be_kept_is_an_error(home: Path) -> None:
    parent = sign(picture("PNG"), "image/png", CLAIM, own(home))
    long = parent.replace(b"frecipe", b"\x7a\x7f\xff\xff\xffpe")
    long = _repaired(bytearray(long))  # with a text of 2 GB, as it claims
    with pytest.raises(DamagedError, match="a value is longer than its box"):
        read_bytes(long)
    for data in (parent.replace(b"frecipe", b"\xff" * 7), long):
        part = Ingredient(data, "image/png", "in.png", "parentOf")
        with pytest.raises(CredentialsError, match=r"^in.png: cannot be kept as an input"):
            check(part, own(home))
        with pytest.raises(CredentialsError, match="cannot be kept as an input|cannot sign"):
            sign(picture("PNG"), "image/png", edit(part), own(home))
    check(Ingredient(picture("PNG"), "image/png", "in.png", "parentOf"), own(home))
    check(Ingredient(b"glTF", "model/gltf-binary", "in.glb", "inputTo"), own(home))


def test_refused(home: Path) -> None:
    done = sign(picture("PNG"), "image/png", CLAIM, own(home))
    with pytest.raises(CredentialsError, match="carries credentials already"):
        sign(done, "image/png", CLAIM, own(home))
    for data in (b"", b"junk", picture("PNG")[:60], picture("JPEG")):
        with pytest.raises(CredentialsError, match="cannot sign the file"):
            sign(data, "image/png", CLAIM, own(home))
    part = Ingredient(picture("PNG"), "image/png", "in.png", "parentOf")
    for claim in (edit(), edit(part, part), replace(CLAIM, ingredients=(part,))):
        with pytest.raises(CredentialsError, match="exactly one, what is created none"):
            sign(picture("PNG"), "image/png", claim, own(home))
    with pytest.raises(CredentialsError, match="'maybe' is none of allowed, notAllowed"):
        sign(picture("PNG"), "image/png", replace(CLAIM, training="maybe"), own(home))
    for title in ("", "x" * 10_000, "a\nb\0\u202e<script>", "日本"):
        data = sign(picture("PNG"), "image/png", replace(CLAIM, title=title), own(home))
        found = read_bytes(data, own=anchors(home))
        assert found is not None and found.state == "valid"
        shown = found.manifests[0].title
        assert (shown.isprintable() or not shown) and len(shown) <= 200
    with pytest.raises(CredentialsError):
        sign(picture("PNG"), "image/png", replace(CLAIM, title="\ud800"), own(home))


# --- what was changed -------------------------------------------------------------------------


def _repaired(data: bytearray) -> bytes:
    """With right checksums of a PNG's chunks: one who changes a file on purpose does that."""
    at = 8
    while at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        if at + 12 + length > len(data):
            break
        checksum = zlib.crc32(data[at + 4 : at + 8 + length])
        data[at + 8 + length : at + 12 + length] = checksum.to_bytes(4, "big")
        at += 12 + length
    return bytes(data)


def _reported(data: bytes, anchor: bytes) -> bool:
    try:
        found = read_bytes(data, own=anchor)
    except CredentialsError:
        return True
    return found is None or found.state == "invalid"


@pytest.mark.parametrize("mime", FILES)
def test_a_changed_recipe_is_reported(
    mime: str, made: tuple[Identity, bytes, dict[str, bytes]], tmp_path: Path
) -> None:
    _, anchor, files = made
    path, at, changed = tmp_path / "file", -1, 0
    while (at := files[mime].find(RECIPE.encode(), at + 1)) >= 0:
        data = bytearray(files[mime])
        data[at + 8] = ord("8")  # another seed
        path.write_bytes(_repaired(data) if mime == "image/png" else data)
        found = read(path, anchor)
        assert found is not None and found.state == "invalid"
        assert found.faults[0].startswith("the file was changed after it was signed")
        state, failures = _library(path.read_bytes(), anchor)
        assert state == "Invalid" and any(code.endswith("Hash.mismatch") for code in failures)
        changed += 1
    assert changed >= 1 + (mime in ("image/png", "image/tiff"))


def test_one_changed_pixel_is_reported(home: Path, tmp_path: Path) -> None:
    """The picture is decoded, one value is changed by one, and put back as it was written."""
    path = tmp_path / "fox.png"
    path.write_bytes(sign(picture("PNG"), "image/png", CLAIM, own(home)))
    data = path.read_bytes()
    at = data.index(b"IDAT") - 4
    length = int.from_bytes(data[at : at + 4], "big")
    rows = bytearray(zlib.decompress(data[at + 8 : at + 8 + length]))
    rows[100] ^= 1
    packed = zlib.compress(rows)
    chunk = b"IDAT" + packed
    chunk = len(packed).to_bytes(4, "big") + chunk + zlib.crc32(chunk).to_bytes(4, "big")
    path.write_bytes(data[:at] + chunk + data[at + 12 + length :])
    before, after = (np.asarray(Image.open(io.BytesIO(raw))) for raw in (data, path.read_bytes()))
    assert 1 <= (before != after).sum() <= before.size
    found = read(path, anchors(home))
    assert found is not None and found.state == "invalid"
    assert _library(path.read_bytes(), anchors(home)) == (
        "Invalid",
        {"assertion.dataHash.mismatch"},
    )


@pytest.mark.parametrize("mime", [*FILES, "chain"])
def test_every_changed_byte_of_the_manifest_is_reported(
    mime: str, made: tuple[Identity, bytes, dict[str, bytes]]
) -> None:
    _, anchor, files = made
    data = files[mime]
    store = manifest_store.find(data)
    assert store is not None and not _reported(data, anchor)
    begin, missed = data.index(MARK) - 12, list[int]()
    assert data[begin : begin + len(store)] == store
    step = 7 if mime == "image/png" else 37
    loose = [*range(60), *range(130, 180), *range(len(store) - 1200, len(store) - 900, 23)]
    for at in sorted({*loose, *range(0, len(store), step)}):
        changed = bytearray(data)
        changed[begin + at] ^= 1
        if not _reported(_repaired(changed) if mime == "image/png" else bytes(changed), anchor):
            missed.append(at)
    assert missed == []


def test_nothing_can_be_added(made: tuple[Identity, bytes, dict[str, bytes]]) -> None:
    _, anchor, files = made
    for mime in set(FILES) - {"video/mp4"}:  # a box of its own kind may follow there
        assert _reported(files[mime] + b"\0", anchor), mime
    assert _reported(files["video/mp4"] + b"\0" * 8, anchor)


def test_credentials_of_another_file_are_reported(home: Path) -> None:
    """Taken out of one file and put into another."""
    data = [sign(picture("PNG", edge), "image/png", CLAIM, own(home)) for edge in (16, 17)]
    begins = [one.index(b"caBX") - 4 for one in data]
    chunks = [
        one[at : at + 12 + int.from_bytes(one[at : at + 4], "big")]
        for one, at in zip(data, begins, strict=True)
    ]
    swapped = data[0].replace(chunks[0], chunks[1])
    found = read_bytes(swapped, own=anchors(home))
    assert found is not None and found.state == "invalid"
    assert read_bytes(data[0].replace(chunks[0], b"")) is None  # taken out: none are there


def test_signed_anew_by_a_stranger(home: Path, other: Identity) -> None:
    data = sign(picture("PNG"), "image/png", CLAIM, other)
    found = read_bytes(data, own=anchors(home))
    assert found is not None and found.state == "untrusted" and found.faults == ()
    assert found.manifests[0].standing == "unknown"
    certificate = b"-----BEGIN" + other.chain.split(b"-----BEGIN")[2]
    found = read_bytes(data, own=anchors(home), trusted=certificate)
    assert found is not None and found.state == "valid"
    assert found.manifests[0].standing == "trusted"


def test_a_forged_statement_is_nobodys(home: Path) -> None:
    """What is stated is changed, and its hash put right; only the signature tells."""
    data = sign(picture("PNG"), "image/png", CLAIM, own(home))
    changed = _repaired(bytearray(data.replace(b"a red fox", b"a sad fox")))
    found = read_bytes(changed, own=anchors(home))
    assert found is not None and found.state == "invalid"
    assert any("claimSignature.mismatch" in fault for fault in found.faults)
    assert found.manifests[0].standing == "unknown"


def test_no_credentials(tmp_path: Path) -> None:
    for data in (picture("PNG"), b"", b"junk", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff"):
        assert read_bytes(data) is None
    with pytest.raises(OSError):
        read(tmp_path / "none")


# --- the network ------------------------------------------------------------------------------


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """The address of a server on this machine, and what it was asked for."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        do_POST = do_HEAD = do_GET  # noqa: N815

        def log_message(self, *args: object) -> None:
            pass

    listening = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listening.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{listening.server_port}/x", asked
    listening.shutdown()
    thread.join()
    listening.server_close()


def test_nothing_is_fetched(home: Path, server: tuple[str, list[str]]) -> None:
    address, asked = server
    there = XMP.replace('xmlns:m="', 'xmlns:dcterms="http://purl.org/dc/terms/" xmlns:m="')
    there = there.replace("m:recipe", f'dcterms:provenance="{address}" m:recipe')
    file = io.BytesIO()
    Image.new("RGB", (8, 8)).save(file, "JPEG", xmp=there.encode())
    with pytest.raises(CredentialsError, match="lie on a network, and nothing is fetched"):
        read_bytes(file.getvalue())
    part = Ingredient(file.getvalue(), "image/jpeg", "in.jpg", "inputTo")
    sign(picture("PNG"), "image/png", replace(CLAIM, ingredients=(part,)), own(home))
    assert asked == []
    with pytest.raises(CredentialsError, match="cannot sign"):  # the server does hear, if it is
        stamped = replace(own(home), timestamps=address)  # named
        sign(picture("PNG"), "image/png", CLAIM, stamped)
    assert asked == ["/x"]


_UNSHARE = ["unshare", "--map-root-user", "--net"]


@pytest.mark.skipif(
    shutil.which("unshare") is None
    or subprocess.run([*_UNSHARE, "true"], capture_output=True).returncode != 0,
    reason="no network namespaces here",
)
def test_works_without_any_network(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from signed_files import signed;"
        "from mezzotint.provenance.chain import read_bytes;"
        "_, anchor, files = signed(Path(sys.argv[1])); beside = files.pop('sidecar');"
        "states = [read_bytes(data, own=anchor).state for data in files.values()];"
        "print(*states, read_bytes(b'glTF', beside, anchor).state)"
    )
    done = subprocess.run(
        [*_UNSHARE, sys.executable, "-c", program, tmp_path],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=Path(__file__).parent,
    )
    assert done.stdout.split() == ["valid"] * (len(FILES) + 2), done.stderr


# --- processes and threads --------------------------------------------------------------------


def test_threads_and_forks(home: Path) -> None:
    identity, states = own(home), list[str]()

    def work() -> None:
        for _ in range(10):
            found = read_bytes(
                sign(picture("PNG"), "image/png", CLAIM, identity), own=anchors(home)
            )
            states.append(found.state if found else "none")

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert states == ["valid"] * 30
    program = (
        "import os, sys; from pathlib import Path; from signed_files import CLAIM, picture;"
        "from mezzotint.provenance.credentials import sign;"
        "from mezzotint.provenance.identity import own; me = own(Path(sys.argv[1]));"
        "make = lambda: sign(picture('PNG'), 'image/png', CLAIM, me); make(); child = os.fork();"
        "child or os._exit(0 if make() else 1);"
        "sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))"
    )
    if hasattr(os, "fork"):
        command = [sys.executable, "-c", program, home]
        assert subprocess.run(command, cwd=Path(__file__).parent, timeout=60).returncode == 0


# --- the command ------------------------------------------------------------------------------


def _run(*arguments: object) -> int:
    add = argparse.ArgumentParser()
    options.credentials(add)
    return run_credentials(add.parse_args([str(argument) for argument in arguments]))


def test_command(
    home: Path,
    other: Identity,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("MEZZOTINT_HOME", str(home))
    good, foreign, bad = (tmp_path / f"{name}.png" for name in ("good", "foreign", "bad"))
    good.write_bytes(sign(picture("PNG"), "image/png", CLAIM, own(home)))
    foreign.write_bytes(sign(picture("PNG"), "image/png", CLAIM, other))
    bad.write_bytes(good.read_bytes()[:-1] + b"x")
    assert _run(good) == 0
    said = capsys.readouterr()
    assert f"{good}: as it was signed, with your own key" in said.out and said.err == ""
    assert "icons, CC-BY-4.0" in said.out and "created by a trained model" in said.out
    assert "Self-signed: " in said.out and "nobody vouches for it" in said.out
    assert _run(foreign) == 1
    said = capsys.readouterr().out
    assert "by an unknown signer" in said and "sign it anew" in said
    certificate = tmp_path / "theirs.pem"
    certificate.write_bytes(other.chain)  # as it lies in their folder
    assert _run(foreign, "--trust", certificate) == 0
    assert _run(bad) == 1
    assert "NOT as it was signed" in capsys.readouterr().out
    plain = tmp_path / "plain.png"
    plain.write_bytes(picture("PNG"))
    assert _run(plain) == 2
    assert capsys.readouterr().err == f"mezzotint: {plain}: carries no Content Credentials\n"
    assert _run(tmp_path / "none.png") == 2
    assert _run(good, plain, bad) == 1
    capsys.readouterr()
    assert _run("--json", good, plain) == 2
    first, second = json.loads(capsys.readouterr().out)
    assert first["state"] == "valid" and first["manifests"][0]["model"] == "icons"
    assert first["manifests"][0]["signature"]["algorithm"] == "es256"
    assert second == {
        "file": str(plain),
        "state": "none",
        "faults": ["carries no Content Credentials"],
    }
    cut = bytearray(good.read_bytes())
    at = cut.index(MARK) - 12
    cut[at + 45 : at + 60] = b"x" * 15
    bad.write_bytes(cut)
    assert _run(bad) == 1
    with pytest.raises(DamagedError):
        read(bad)


def test_strangers_values_are_never_trusted_to_be_of_a_type() -> None:
    """What the library gives from a hostile manifest: any JSON in any place."""
    values: list[object] = [None, 3, "x", [], {}, [None, {"a": 1}], {"label": [1]}, "\x1b[2J"]
    for value in values:
        manifest = dict.fromkeys(
            (
                "title",
                "ingredients",
                "assertions",
                "signature_info",
                "claim_generator_info",
                "claim_generator",
            ),
            value,
        )
        manifest["assertions"] = [
            {
                "label": "c2pa.actions",
                "data": {"actions": [{"softwareAgent": value, "when": value}]},
            },
            {"label": "c2pa.training-mining", "data": {"entries": {"x": value}}},
            {"label": value, "data": value},
            {"label": credentials.GENERATION, "data": {"model": value}},
        ]
        manifest["ingredients"] = [{"validation_results": value, "title": value}, value]
        found = {"active_manifest": "a", "manifests": {"a": manifest}, "validation_results": value}
        read_ = chain._credentials(found, {"manifests": value}, [], None)
        assert read_.state == "invalid"
        assert "\x1b" not in repr(read_)
        with pytest.raises(CredentialsError):
            chain._credentials({"active_manifest": value, "manifests": value}, {}, [], None)
