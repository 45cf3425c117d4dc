"""Sounds are read as they were written, and what is none is refused in one line."""

from __future__ import annotations

import io
import random
from pathlib import Path

import numpy as np
import pytest
import soundfile

from mezzotint.modalities import audio
from mezzotint.modalities.audio import AudioError, decode, read

KINDS = ("WAV", "FLAC", "OGG", "MP3", "AIFF")


def stored(kind: str, samples: np.ndarray, rate: int = 16000) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind)
    return file.getvalue()


def wave(channels: int = 2, count: int = 8000) -> np.ndarray:
    time = np.arange(count)[:, None] / 16000
    return 0.5 * np.sin(2 * np.pi * np.array([440, 660])[:channels] * time)


@pytest.mark.parametrize("kind", KINDS)
def test_samples_come_back(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a sound"
    path.write_bytes(stored(kind, wave()))
    samples, rate = read(path)
    assert samples.dtype == np.float32 and len(samples) == 2 and rate == 16000
    if kind in ("OGG", "MP3"):
        power = np.abs(np.fft.rfft(samples, axis=1))
        places = power.argmax(1) * 16000 / samples.shape[1]
        assert places == pytest.approx([440, 660], abs=4)
    else:
        assert samples == pytest.approx(wave().T, abs=1e-4)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "the file is empty"),
        (b"no sound at all", "is no sound that can be read"),
        (stored("WAV", wave())[:30], "is no sound that can be read"),
        (stored("WAV", np.zeros((0, 1))), "has no samples"),
        (stored("WAV", np.zeros((8, 17))), "17 channels"),
        (stored("CAF", wave()), "format CAF, which is not read here"),
    ],
)
def test_what_is_none(data: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.wav"
    path.write_bytes(data)
    with pytest.raises(AudioError) as told:
        read(path)
    assert message in str(told.value) and "x.wav" in str(told.value)
    assert "\n" not in str(told.value)


def test_infinite_samples_are_refused() -> None:
    file = io.BytesIO()
    soundfile.write(file, np.array([0.0, np.inf, np.nan]), 8000, format="WAV", subtype="FLOAT")
    with pytest.raises(AudioError, match="no numbers"):
        decode(file.getvalue())


def test_no_such_file(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="no such file"):
        read(tmp_path / "none.wav")


def test_long_ones_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audio, "MAX_SAMPLES", 10_000)
    with pytest.raises(AudioError, match="more than"):
        decode(stored("FLAC", wave()))


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_files_give_samples_or_one_error(kind: str) -> None:
    whole = stored(kind, wave(1, 2000))
    dice = random.Random(kind)
    for _ in range(40):
        data = bytearray(whole)
        for _ in range(dice.randrange(1, 8)):
            near = dice.choice((64, len(data)))
            data[dice.randrange(min(near, len(data)))] = dice.choice((0, 0x7F, 0x80, 0xFF))
        cut = bytes(data[: dice.choice((len(data), dice.randrange(len(data))))])
        try:
            samples, rate = decode(cut)
        except AudioError as error:
            assert "\n" not in str(error)
        else:
            assert samples.size <= audio.MAX_SAMPLES and rate > 0
