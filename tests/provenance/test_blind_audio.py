"""The watermark in samples: what it costs, what it survives, and that it is not imagined."""

from __future__ import annotations

import io

import numpy as np
import pytest
import soundfile
from scipy.signal import resample_poly

from mezzotint.provenance import blind_audio
from mezzotint.provenance.blind_audio import QUALITY, detect, embed, segmental
from mezzotint.provenance.codeword import Floats, WatermarkError

KEY, OTHER, PAYLOAD = b"k" * 32, b"o" * 32, 0x1234_5678_9ABC_DEF0
RATE = 32000
SURE = 1e-6


def chords(seed: int, seconds: float, rate: int = RATE, channels: int = 2) -> Floats:
    """Plucked chords of many partials over a soft noise."""
    dice = np.random.default_rng(seed)
    time = np.arange(round(seconds * rate)) / rate
    made = np.zeros((channels, len(time)))
    for start in np.arange(0, seconds, 0.4):
        here = slice(round(start * rate), round((start + 1) * rate))
        since = time[here] - time[here][0]
        fade = np.exp(-3 * since) * np.minimum(since * 200, 1)
        for note in dice.choice([220.0, 261.6, 329.6, 392.0, 440.0, 523.3], 3, replace=False):
            for part in range(1, min(16, int(rate / 2 / note))):
                wave = np.sin(2 * np.pi * part * note * since + dice.uniform(0, 6)) / part
                made[:, here] += fade * wave * dice.uniform(0.5, 1, (channels, 1))
    made += 0.02 * dice.standard_normal(made.shape)
    return (0.5 * made / np.abs(made).max()).astype(np.float32)


@pytest.fixture(scope="module")
def sound() -> Floats:
    return chords(1, 8)


@pytest.fixture(scope="module")
def marked(sound: Floats) -> Floats:
    return embed(sound, RATE, PAYLOAD, KEY)


def found(samples: Floats, rate: int = RATE) -> tuple[bool, bool]:
    """Whether it is surely marked, and whether its payload is right."""
    seen = detect(samples, rate, KEY)
    return seen.p_value <= SURE, seen.payload == PAYLOAD


# --- what it costs ----------------------------------------------------------------------------


def test_it_is_faint_and_always_the_same(sound: Floats, marked: Floats) -> None:
    assert marked.shape == sound.shape and marked.dtype == np.float32
    assert segmental(sound, marked, RATE) > QUALITY - 1
    assert np.array_equal(embed(sound, RATE, PAYLOAD, KEY), marked)
    assert not np.array_equal(embed(sound, RATE, PAYLOAD + 1, KEY), marked)


def test_silence_stays_silent() -> None:
    samples = chords(2, 3)
    samples[:, RATE : 2 * RATE] = 0
    samples[1] = 0
    made = embed(samples, RATE, PAYLOAD, KEY)
    assert np.array_equal(made == 0, samples == 0)
    nothing = np.zeros((1, RATE), np.float32)
    assert np.array_equal(embed(nothing, RATE, PAYLOAD, KEY), nothing)
    seen = detect(nothing, RATE, KEY)
    assert seen.payload is None and seen.p_value == 1


def test_the_ratio_of_a_known_error() -> None:
    samples = np.full((1, 8000), 0.5, np.float32)
    assert segmental(samples, samples * np.float32(1.1), 8000) == pytest.approx(20, abs=0.01)
    assert segmental(samples, samples, 8000) == float("inf")


# --- what it survives -------------------------------------------------------------------------


def stored(samples: Floats, kind: str, level: float) -> Floats:
    """What is left after the sound was stored with loss, by libsndfile."""
    data = io.BytesIO()
    with soundfile.SoundFile(
        data, "w", RATE, len(samples), format=kind, compression_level=level
    ) as file:
        file.write(samples.T)
    data.seek(0)
    return soundfile.read(data, dtype="float32", always_2d=True)[0].T


def quicker(samples: Floats, factor: float) -> Floats:
    places = np.arange(int(samples.shape[1] / factor)) * factor
    return np.stack([np.interp(places, np.arange(len(one)), one) for one in samples]).astype("f4")


ATTACKS = {
    "none": lambda x: (x, RATE),
    "mp3": lambda x: (stored(x, "MP3", 0.8), RATE),
    "vorbis": lambda x: (stored(x, "OGG", 0.8), RATE),
    "half the rate": lambda x: (resample_poly(x, 1, 2, axis=1).astype("f4"), RATE // 2),
    "another rate": lambda x: (resample_poly(x, 3, 2, axis=1).astype("f4"), RATE * 3 // 2),
    "half of it": lambda x: (x[:, 60_001 : 60_001 + x.shape[1] // 2], RATE),
    "one channel, turned over, softer": lambda x: (-0.1 * x[:1], RATE),
    "16 bits": lambda x: ((np.rint(x * 32767) / 32767).astype("f4"), RATE),
    "quicker": lambda x: (quicker(x, 1.007), RATE),
    "slower": lambda x: (quicker(x, 0.99), RATE),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_it_survives(marked: Floats, attack: str) -> None:
    assert found(*ATTACKS[attack](marked)) == (True, True)


def test_it_tells_speed_and_start(marked: Floats) -> None:
    cut = detect(marked[:, round(0.5 * RATE) :], RATE, KEY)
    period = blind_audio.PERIOD * 0.032
    assert cut.speed == 1 and cut.start == pytest.approx(period - 0.5, abs=0.012)
    assert detect(quicker(marked, 1.007), RATE, KEY).speed == pytest.approx(1.007, abs=0.0015)


@pytest.mark.parametrize("rate", [16000, 22050, 44100, 48000])
def test_at_any_rate(rate: int) -> None:
    made = embed(chords(5, 6, rate, 1), rate, PAYLOAD, KEY)
    assert found(made, rate) == (True, True)


# --- what is not there ------------------------------------------------------------------------


def test_nothing_is_found_where_nothing_is(sound: Floats, marked: Floats) -> None:
    """Without a mark, under other keys: p-values are no less than chance."""
    dice = np.random.default_rng(3)
    seen = [detect(sound, RATE, KEY), detect(marked, RATE, OTHER)]
    short = [chords(seed, 2.5, 16000, 1) for seed in range(3)]
    short += [dice.normal(0, 0.1, (1, 32000)).astype(np.float32) for _ in range(3)]
    for samples in short:
        seen += [detect(samples, 16000, bytes([number]) * 32) for number in range(4)]
    assert all(each.payload is None for each in seen)
    assert min(each.p_value for each in seen) > 1e-3


def test_the_bound_of_a_fold_holds() -> None:
    """Of 400 keys against one loud fold, the bound of one shift is not broken more often than
    it says."""
    folded = np.random.default_rng(4).standard_t(3, (256, 32)).astype(np.float32)
    best = [blind_audio._scored(number.to_bytes(4, "big"), folded)[0] for number in range(400)]
    for exponent in (7.0, 8.0, 9.0):
        share = float(np.mean(np.array(best) >= exponent))
        assert share <= 256 * np.exp(-exponent)
    assert max(best) > 4  # it is not merely zero


@pytest.mark.parametrize(
    ("samples", "rate", "message"),
    [
        (np.zeros(8000, "f4"), 8000, "give (channels, samples)"),
        (np.zeros((17, 8000), "f4"), 8000, "1 to 16 channels"),
        (np.zeros((0, 8000), "f4"), 8000, "1 to 16 channels"),
        (np.zeros((1, 8000), "i2"), 8000, "int16: give floats"),
        (np.zeros((1, 8000), "f4"), 4000, "4000 samples a second"),
        (np.zeros((1, 8000), "f4"), 10**9, "samples a second"),
        (np.zeros((1, 1000), "f4"), 8000, "a sound of 0.12 s carries no watermark"),
        (np.zeros((1, 0), "f4"), 8000, "carries no watermark"),
        (np.full((1, 8000), np.nan, "f4"), 8000, "no numbers"),
    ],
)
def test_what_cannot_carry_it(samples: Floats, rate: int, message: str) -> None:
    with pytest.raises(WatermarkError) as told:
        embed(samples, rate, PAYLOAD, KEY)
    assert message in str(told.value)
    with pytest.raises(WatermarkError):
        detect(samples, rate, KEY)


def test_payloads_and_keys_that_are_none() -> None:
    samples = np.zeros((1, 8000), np.float32)
    for payload, key in ((-1, KEY), (1 << 64, KEY), (PAYLOAD, b"")):
        with pytest.raises(WatermarkError):
            embed(samples, 8000, payload, key)
    with pytest.raises(WatermarkError):
        detect(samples, 8000, b"")


@pytest.mark.parametrize("scale", [1e-30, 1e-6, 30.0])
def test_odd_levels(scale: float) -> None:
    samples = chords(6, 1, 16000, 1) * np.float32(scale)
    made = embed(samples, 16000, PAYLOAD, KEY)
    assert np.isfinite(made).all() and 0 <= detect(made, 16000, KEY).p_value <= 1
