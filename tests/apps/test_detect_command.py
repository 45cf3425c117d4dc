"""The watermark in the noise, looked for from the command line."""

from __future__ import annotations

import json
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from PIL import Image

from mezzotint.apps import cli
from mezzotint.provenance import blind_audio, keys


@pytest.fixture
def made(here: Path) -> Path:
    """Pictures of the model in the package: of another model none is found."""
    wish = ["generate", "a cake", "--seed", "7", "--quiet"]
    assert cli.main([*wish, "-o", "marked.png"]) == 0
    assert cli.main([*wish, "-o", "plain.png", "--watermark", "none"]) == 0
    with Image.open("marked.png") as image:
        Image.fromarray(np.asarray(image)).save("bare.png")
    return here


def found(capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, list[dict[str, object]]]:
    capsys.readouterr()
    code = cli.main(["detect", "--json", *options])
    return code, [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_a_mark_is_found_and_where_there_is_none_it_is_not(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, (pixels, line) = found(capsys, "marked.png")
    assert code == 0 and line["p_value"] <= 1e-6
    assert pixels["mark"] == "the mark in the pixels" and pixels["recipe"] is True
    assert pixels["p_value"] <= 1e-6 and pixels["payload"].startswith("0000")
    assert line["payload"] == f"{keys.payload(keys.PUBLIC, keys.seed_hash(7)):016x}"
    code, lines = found(capsys, "plain.png")
    assert code == 1 and min(line["p_value"] for line in lines) > 1e-3
    code, (bare,) = found(capsys, "bare.png")  # no recipe, no model
    assert code == 0 and bare["payload"] == pixels["payload"] and bare["recipe"] is None
    code, (_, line) = found(capsys, "bare.png", "--prompt", "a cake")
    assert line["mark"] == "any mark in the noise" and line["p_value"] < 1e-3


def test_a_seed_that_is_known_is_confirmed_in_a_jpeg_without_a_recipe(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Image.open("marked.png") as image:
        white = Image.new("RGBA", image.size, "white")
        white.alpha_composite(image.convert("RGBA"))
        white.convert("RGB").save("spoiled.jpg", quality=50)
    known = ["--prompt", "a cake", "--seed", "7"]
    code, (_, line) = found(capsys, "spoiled.jpg", *known)
    assert code == 0 and line["mark"] == "the mark of seed 7" and line["p_value"] <= 1e-6
    _, (_, line) = found(capsys, "spoiled.jpg", "--prompt", "a cake", "--seed", "8")
    assert line["p_value"] > 1e-3


def test_clips_are_looked_through(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A clip of one colour has no mark; what is none is told in a line."""
    with av.open("a.mp4", "w") as file:
        stream = file.add_stream("mpeg4", rate=12)
        stream.width, stream.height = 128, 128
        for _ in range(3):
            frame = av.VideoFrame.from_image(Image.new("RGB", (128, 128), "navy"))
            file.mux(stream.encode(frame))
        file.mux(stream.encode())
    code, (line,) = found(capsys, "a.mp4")
    assert code == 1 and line["mark"] == "any mark in the frames" and line["p_value"] > 1e-3
    Path("b.mp4").write_bytes(b"what")
    assert cli.main(["detect", "b.mp4"]) == 2
    assert capsys.readouterr().err.startswith("mezzotint: b.mp4: is no clip that can be read")


def test_a_secret_key_is_looked_for_beside_the_public_one(
    made: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("secret.key").write_text("cd" * 32)
    code, lines = found(capsys, "marked.png", "--mark-key", "secret.key")
    assert code == 0 and len(lines) == 4
    for public, secret in (lines[:2], lines[2:]):
        assert public["p_value"] <= 1e-6 < 1e-3 < secret["p_value"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["nowhere.png"], "nowhere.png: no such file"),
        (["text.png"], "text.png: is no picture of a known format"),
        (["a.png", "--mark-key", "text.png"], "text.png: is no key of watermarks"),
        (["a.png", "--model", "nothing"], "nothing"),
    ],
)
def test_errors_are_one_line(
    here: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:
    Path("text.png").write_text("words")
    Image.new("RGBA", (128, 128)).save("a.png")
    assert cli.main(["detect", *options]) == 2
    told = capsys.readouterr().err
    assert told.startswith("mezzotint: ") and message in told and told.count("\n") == 1


def test_a_mark_in_a_sound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    noise = np.random.default_rng(1).normal(0, 0.1, (1, 6 * 16000)).astype(np.float32)
    payload = keys.payload(keys.PUBLIC, 77)
    for name, samples in (
        ("plain.wav", noise),
        ("marked.ogg", blind_audio.embed(noise, 16000, payload, keys.PUBLIC.secret)),
    ):
        soundfile.write(tmp_path / name, samples.T, 16000)
    assert cli.main(["detect", str(tmp_path / "marked.ogg")]) == 0
    said = capsys.readouterr().out
    assert "any mark in the samples, the public key: found, payload 000000000000004d" in said
    assert "of a million unmarked sounds" in said
    assert cli.main(["detect", str(tmp_path / "plain.wav"), "--json"]) == 1
    line = json.loads(capsys.readouterr().out)
    assert line["payload"] == "" and line["p_value"] > 1e-3
    (tmp_path / "none.flac").write_bytes(b"fLaC")
    (tmp_path / "short.wav").write_bytes(b"")
    soundfile.write(tmp_path / "short.wav", noise[0, :100], 16000)
    for name in ("none.flac", "short.wav"):
        assert cli.main(["detect", str(tmp_path / name)]) == 2
        assert name in capsys.readouterr().err
