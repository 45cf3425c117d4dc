"""Measure the watermark in sounds: what it costs, what it survives, and that it is not imagined.

    python benchmarks/watermark_audio.py --out docs/watermark --trials 100

By itself it takes synthetic sounds: chords, speech-like sounds, noise.  Better are real ones:
--soundfont takes FluidR3_GM.sf2 (Debian's fluid-soundfont-gm; MIT), played by tinysoundfont 0.3.7,
--loops a folder of sounds (npm supersonic-scsynth-samples 0.84.2, Sonic Pi's; CC0), --site the
folder where tinysoundfont was installed if it is elsewhere.  Codecs are those of the av package.
"""

from __future__ import annotations

import argparse
import io
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.signal import butter, lfilter, resample_poly, sosfiltfilt

from mezzotint.provenance.blind_audio import QUALITY, detect, embed, segmental
from peers.report import Bar, Row, Section, numbers, shown

Sound = tuple[NDArray[np.float32], int]
"""``(channels, samples)`` and their rate."""

KEY = b"the benchmark of marks in sounds"
RATE = 44100
SURE = 1e-6


class Material(NamedTuple):
    """Where real sounds are; None: synthetic ones alone."""

    soundfont: Path | None = None
    loops: Path | None = None


# --- sounds -----------------------------------------------------------------------------------


def chords(seed: int, seconds: float = 8) -> Sound:
    dice = np.random.default_rng(seed)
    made = np.zeros((2, round(seconds * RATE)))
    for start in np.arange(0, seconds, dice.uniform(0.25, 0.6)):
        here = made[:, round(start * RATE) : round((start + 1.5) * RATE)]
        since = np.arange(here.shape[1]) / RATE
        fade = np.exp(-dice.uniform(1, 5) * since) * np.minimum(since * 200, 1)
        for note in 110 * 2 ** (dice.integers(0, 30, 3) / 12):
            for part in range(1, 21):
                wave = np.sin(2 * np.pi * part * note * since + dice.uniform(0, 6)) / part
                here += fade * wave * dice.uniform(0.5, 1, (2, 1))
    made += 10 ** dice.uniform(-4, -2) * dice.standard_normal(made.shape)
    return (0.5 * made / np.abs(made).max()).astype(np.float32), RATE


def speech_like(seed: int, seconds: float = 8) -> Sound:
    """A gliding pulse train or noise through three formants, syllable by syllable, with pauses."""
    dice = np.random.default_rng(seed)
    count = round(seconds * RATE)
    knots = np.arange(0, seconds + 0.3, 0.3)
    pitch = np.interp(np.arange(count) / RATE, knots, dice.standard_normal(len(knots)))
    phase = np.cumsum(dice.uniform(90, 220) * 2 ** (0.2 * pitch)) / RATE
    voice = 2 * (phase % 1) - 1 + 0.05 * dice.standard_normal(count)
    made = np.zeros(count)
    for start in range(0, count, round(0.18 * RATE)):
        end = min(start + round(0.18 * RATE), count)
        if dice.random() < 0.15:
            continue
        source = voice[start:end] if dice.random() > 0.2 else dice.normal(0, 0.3, end - start)
        for low, high in ((300, 800), (900, 2200), (2300, 3200)):
            pole = np.exp(-np.pi * 90 / RATE)
            turn = 2 * pole * np.cos(2 * np.pi * dice.uniform(low, high) / RATE)
            shaped = lfilter([1 - pole], [1, -turn, pole * pole], source * np.hanning(end - start))
            made[start:end] += np.asarray(shaped)
    made += 1e-4 * dice.standard_normal(count)
    return (0.3 * made / np.abs(made).max())[None].astype(np.float32), RATE


def noise(seed: int, seconds: float = 8) -> Sound:
    dice = np.random.default_rng(seed)
    return dice.normal(0, 0.1, (1, round(seconds * RATE))).astype(np.float32), RATE


class _Player:
    """A soundfont, played."""

    def __init__(self, path: Path) -> None:
        import tinysoundfont

        self.synth = tinysoundfont.Synth(samplerate=RATE)
        self.font = self.synth.sfload(str(path))

    def _more(self, count: int) -> NDArray[np.float32]:
        return np.frombuffer(bytes(self.synth.generate(count)), np.float32).reshape(-1, 2).T

    def note(self, seed: int, seconds: float = 2.5) -> Sound:
        dice = np.random.default_rng(seed)
        self.synth.sounds_off()
        self.synth.program_select(0, self.font, 0, int(dice.integers(0, 112)))
        key = int(dice.integers(40, 85))
        self.synth.noteon(0, key, int(dice.integers(60, 120)))
        held = self._more(round(0.8 * seconds * RATE))
        self.synth.noteoff(0, key)
        return np.concatenate([held, self._more(round(0.2 * seconds * RATE))], 1), RATE

    def music(self, seed: int, seconds: float = 8) -> Sound:
        """Three instruments and drums: chords, a bass, a tune."""
        dice, synth = np.random.default_rng(seed), self.synth
        synth.sounds_off()
        for channel in range(3):
            synth.program_select(channel, self.font, 0, int(dice.integers(0, 104)))
        synth.program_select(9, self.font, 128, 0, True)
        root, beat = int(dice.integers(48, 60)), round(RATE * 30 / dice.integers(80, 140))
        on: list[tuple[int, int]] = []
        made: list[NDArray[np.float32]] = []

        def play(channel: int, key: int, velocity: int) -> None:
            synth.noteon(channel, key, velocity)
            on.append((channel, key))

        for step in range(math.ceil(seconds * RATE / beat)):
            if step % 4 == 0:
                for channel, key in on:
                    synth.noteoff(channel, key)
                on.clear()
                base = root + int(dice.choice([0, 2, 5, 7, 9]))
                for part in (0, 4, 7):
                    play(0, base + part, 80)
                play(1, base - 12, 90)
            play(2, root + 12 + int(dice.choice([0, 2, 4, 5, 7, 9, 11])), 100)
            synth.noteon(9, int(dice.choice([36, 38, 42, 46])), 90)
            made.append(self._more(beat))
        return np.concatenate(made, 1)[:, : round(seconds * RATE)], RATE


def _loops(folder: Path, least: float = 3.0) -> list[Path]:
    import soundfile

    files = sorted(folder.rglob("*.flac")) + sorted(folder.rglob("*.wav"))
    return [file for file in files if soundfile.info(str(file)).duration >= least]


def _loop(files: Sequence[Path], seed: int) -> Sound:
    import soundfile

    samples, rate = soundfile.read(str(files[seed % len(files)]), dtype="float32", always_2d=True)
    return samples.T[:, : 20 * rate].copy(), int(rate)


def kinds(material: Material) -> dict[str, Callable[[int], Sound]]:
    """Makers of sounds by what they are called."""
    made: dict[str, Callable[[int], Sound]] = {}
    if material.soundfont is not None:
        player = _Player(material.soundfont)
        made["music, 8 s"] = player.music
        made["single notes, 2.5 s"] = player.note
    if material.loops is not None:
        files = _loops(material.loops)
        if not files:
            raise SystemExit(f"{material.loops}: holds no sounds of 3 s or more")
        made["loops and samples, 3 to 20 s"] = lambda seed: _loop(files, seed)
    return made | {
        "synthetic chords, 8 s": chords,
        "speech-like, 8 s": speech_like,
        "white noise, 8 s": noise,
    }


# --- attacks ----------------------------------------------------------------------------------


def resampled(sound: Sound, rate: int) -> Sound:
    samples, old = sound
    shared = math.gcd(rate, old)
    return resample_poly(samples, rate // shared, old // shared, axis=1).astype(np.float32), rate


def codec(form: str, name: str, bits: int, rate: int | None = None) -> Callable[[Sound], Sound]:
    """Encoded and decoded again."""
    import av

    def attack(sound: Sound) -> Sound:
        samples, own = sound if rate is None else resampled(sound, rate)
        layout = "stereo" if len(samples) == 2 else "mono"
        file = io.BytesIO()
        with av.open(file, "w", format=form) as container:
            stream: Any = container.add_stream(name, rate=own)
            stream.bit_rate, stream.layout = bits, layout
            whole = av.AudioFrame.from_ndarray(
                np.ascontiguousarray(samples), format="fltp", layout=layout
            )
            whole.sample_rate, whole.pts = own, 0
            cut = av.AudioResampler(
                stream.format.name, layout, own, stream.codec_context.frame_size or 1024
            )
            for frame in [*cut.resample(whole), *cut.resample(None), None]:
                for packet in stream.encode(frame):
                    container.mux(packet)
        file.seek(0)
        with av.open(file) as container:
            same = av.AudioResampler("fltp", layout, own)
            parts = [
                piece.to_ndarray()
                for frame in container.decode(audio=0)
                for piece in same.resample(frame)
            ]
        return np.concatenate(parts, 1), own

    return attack


def louder_noise(ratio: float) -> Callable[[Sound], Sound]:
    """White noise so many decibels below the sound."""

    def attack(sound: Sound) -> Sound:
        samples, rate = sound
        level = float(np.sqrt(np.square(samples, dtype=np.float64).mean())) * 10 ** (-ratio / 20)
        added = np.random.default_rng(7).normal(0, level, samples.shape)
        return (samples + added).astype(np.float32), rate

    return attack


def speed(factor: float) -> Callable[[Sound], Sound]:
    """As a tape that runs faster, pitch and all."""

    def attack(sound: Sound) -> Sound:
        samples, rate = sound
        places = np.arange(int(samples.shape[1] / factor)) * factor
        own = np.arange(samples.shape[1])
        return np.stack([np.interp(places, own, one) for one in samples]).astype("f4"), rate

    return attack


def low_pass(sound: Sound) -> Sound:
    samples, rate = sound
    filtered = sosfiltfilt(butter(6, 8000, fs=rate, output="sos"), samples, axis=1)
    return filtered.astype(np.float32), rate


def half(sound: Sound) -> Sound:
    samples, rate = sound
    start = int(samples.shape[1] * np.random.default_rng(samples.shape[1]).uniform(0, 0.5))
    return samples[:, start : start + samples.shape[1] // 2], rate


def attacks() -> dict[str, Callable[[Sound], Sound]]:
    return {
        "as it is": lambda sound: sound,
        "16 bits, -12 dB": lambda sound: (
            (np.rint(sound[0] * 8192) / 32768).astype(np.float32),
            sound[1],
        ),
        "MP3 128 kbit/s": codec("mp3", "libmp3lame", 128_000),
        "MP3 64 kbit/s": codec("mp3", "libmp3lame", 64_000),
        "AAC 96 kbit/s": codec("adts", "aac", 96_000),
        "Opus 64 kbit/s": codec("ogg", "libopus", 64_000, 48000),
        "half the rate and back": lambda sound: resampled(
            resampled(sound, sound[1] // 2), sound[1]
        ),
        "half the length, from anywhere": half,
        "half the length, MP3 64 kbit/s": lambda sound: codec("mp3", "libmp3lame", 64_000)(
            half(sound)
        ),
        "noise at 30 dB": louder_noise(30),
        "noise at 20 dB": louder_noise(20),
        "low-pass 8 kHz": low_pass,
        "1 % faster": speed(1.01),
        "0.5 % slower": speed(0.995),
    }


# --- the measure ------------------------------------------------------------------------------

_FOUND, _RIGHT = ": found", ": found, payload right"
_BARRED = {"music, 8 s", "synthetic chords, 8 s"}


def _payload(number: int) -> int:
    return int.from_bytes(np.random.default_rng([9, number]).bytes(8), "big")


def _survival(
    name: str, make: Callable[[int], Sound], trials: int, until: float
) -> Iterator[Section]:
    ways = attacks()
    sure: dict[str, list[bool]] = {way: [] for way in ways}
    right: dict[str, list[bool]] = {way: [] for way in ways}
    ratios: list[float] = []
    setting: list[float] = []
    finding: list[float] = []
    done = 0
    for number in range(trials):
        if done and time.monotonic() > until:
            break
        samples, rate = make(number)
        begun = time.process_time()
        marked = embed(samples, rate, _payload(number), KEY)
        setting.append((time.process_time() - begun) / (samples.shape[1] / rate))
        ratios.append(segmental(samples, marked, rate))
        for way, attack in ways.items():
            heard, its = attack((marked, rate))
            begun = time.process_time()
            seen = detect(heard, its, KEY)
            finding.append((time.process_time() - begun) / (heard.shape[1] / its))
            sure[way].append(seen.p_value <= SURE)
            right[way].append(seen.p_value <= SURE and seen.payload == _payload(number))
        done += 1
        print(f"\r{name}: {done} of {trials}", end="", file=sys.stderr)
    print(file=sys.stderr)
    rows = [
        Row(
            "segmental signal-to-noise ratio, dB",
            tuple(ratios),
            "×",
            Bar("at least", QUALITY - 0.05),
        )
    ]
    for way in ways:
        bar = Bar("at least", 0.99) if name in _BARRED else None
        rows.append(Row(f"{way}{_FOUND}", (float(np.mean(sure[way])),), "%", bar))
        rows.append(Row(f"{way}{_RIGHT}", (float(np.mean(right[way])),), "%"))
    rows.append(Row("setting the mark, processor time of a second of sound", tuple(setting), "s"))
    rows.append(Row("looking for it, processor time of a second of sound", tuple(finding), "s"))
    yield Section(
        f"audio/{name}",
        name[0].upper() + name[1:],
        f"{done} sounds, a payload each. *Found*: p ≤ {SURE:g}, with nothing known but the key.",
        tuple(rows),
    )


def _calibration(
    makers: dict[str, Callable[[int], Sound]], keys: int, until: float
) -> Iterator[Section]:
    """Under keys that did not mark it a sound is unmarked, whatever else is in it."""
    least: list[float] = []
    number = 0
    while number < keys and (number < 10 or time.monotonic() < until):
        make = list(makers.values())[number % len(makers)]
        samples, rate = make(10_000 + number)
        if number % 2:
            samples = embed(samples, rate, number, KEY)
        heard = samples[:, : 3 * rate]
        least.append(detect(heard, rate, number.to_bytes(32, "big")).p_value)
        number += 1
        print(f"\runmarked: {number} of {keys}", end="", file=sys.stderr)
    print(file=sys.stderr)
    values = np.array(least)
    rows = [Row("least p-value, times their number", (float(values.min() * number),), "×")]
    for level in (0.1, 0.01, 1e-6):
        share = float((values <= level).mean())
        rows.append(Row(f"share with p ≤ {level:g}", (share,), "%", Bar("at most", level)))
    yield Section(
        "audio/unmarked",
        "Where nothing is",
        f"{number} sounds of up to 3 s, half of them with another key's mark, each under a key of "
        f"its own; what is called found is p ≤ {SURE:g}. The p-value is a bound, so small ones are "
        "rarer than they say.",
        tuple(rows),
    )


def sections(trials: int, material: Material | None = None, minutes: float = 1e6) -> list[Section]:
    """All that is measured, of synthetic sounds alone unless there is material."""
    makers = kinds(material or Material())
    share = 60 * minutes / (len(makers) + 1)
    made: list[Section] = []
    for name, make in makers.items():
        made += _survival(name, make, trials, time.monotonic() + share)
    made += _calibration(makers, 10 * trials, time.monotonic() + share)
    return made


_HEAD = """\
# The watermark in sounds

Written by `python benchmarks/watermark_audio.py`. What it is: `provenance/blind_audio.py`.
"""


def write(out: Path, made: Sequence[Section]) -> None:
    """``audio.json``, and ``audio.md`` with ``audio-notes.md`` at its end if that is there."""
    out.mkdir(parents=True, exist_ok=True)
    text = json.dumps(numbers(made, {}), indent=1, ensure_ascii=False)
    (out / "audio.json").write_text(text + "\n", "utf-8")
    parts = [_HEAD]
    for section in made:
        found = {
            row.name.removesuffix(_FOUND): row for row in section.rows if row.name.endswith(_FOUND)
        }
        right = {
            row.name.removesuffix(_RIGHT): row for row in section.rows if row.name.endswith(_RIGHT)
        }
        lines = [
            f"| {row.name} | {shown(row.median, row.unit)} | {_bar(row)} |"
            for row in section.rows
            if not row.name.endswith((_FOUND, _RIGHT))
        ]
        parts.append(f"## {section.title}\n\n{section.text}\n")
        if found:
            attacked = [
                f"| {way} | {shown(row.median, '%')} | {shown(right[way].median, '%')} |"
                f" {_bar(row)} |"
                for way, row in found.items()
            ]
            parts.append(
                "| | found | payload right | bar |\n|---|---:|---:|---|\n"
                + "\n".join(attacked)
                + "\n"
            )
        parts.append("| measure | | bar |\n|---|---:|---|\n" + "\n".join(lines) + "\n")
    notes = out / "audio-notes.md"
    if notes.is_file():
        parts.append(notes.read_text("utf-8"))
    (out / "audio.md").write_text("\n".join(parts), "utf-8")


def _bar(row: Row) -> str:
    if row.bar is None:
        return ""
    limit = f"{100 * row.bar.limit:g} %" if row.unit == "%" else f"{row.bar.limit:g}"
    verdict = "**missed**" if row.verdict == "missed" else row.verdict
    return f"{row.bar.sense} {limit}: {verdict}"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("docs/watermark"), help="report folder")
    parser.add_argument("--trials", type=int, default=100, help="sounds of a kind")
    parser.add_argument("--soundfont", type=Path, help="FluidR3_GM.sf2")
    parser.add_argument("--loops", type=Path, help="folder of sounds")
    parser.add_argument("--site", type=Path, help="folder of further packages")
    parser.add_argument("--minutes", type=float, default=1e6, help="begin no sound after these")
    options = parser.parse_args(arguments)
    if options.trials < 1:
        parser.error("--trials: 1 or more")
    if options.site is not None:
        sys.path.append(str(options.site))
    material = Material(options.soundfont, options.loops)
    made = sections(options.trials, material, options.minutes)
    write(options.out, made)
    print((options.out / "audio.md").read_text("utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
