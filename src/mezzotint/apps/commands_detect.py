"""`mezzotint detect`: the watermarks in pictures and sounds, with how sure one can be of each."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path

import torch
from PIL import Image

from mezzotint.apps.errors import one_line
from mezzotint.checkpoints.files import CheckpointError
from mezzotint.engine.detect import Search, detect, verify_mark
from mezzotint.families.catalogue import load
from mezzotint.families.model import Model
from mezzotint.modalities import audio, video
from mezzotint.modalities.image import CHANNELS, ImageError, open_image, read
from mezzotint.provenance import blind, blind_audio, blind_video, keys, recipe
from mezzotint.provenance.codeword import WatermarkError
from mezzotint.provenance.noise_mark import NoiseMark

MARKED = 1e-6
"""p-value up to which a picture is called marked: of a million unmarked ones, about one is."""
IN_SAMPLES, IN_FRAMES = "any mark in the samples", "any mark in the frames"


@dataclass(frozen=True)
class Line:
    """What was looked for in a file, and how sure it is there.

    payload: what was read, in hexadecimal; empty where it is too short to be read; recipe: whether
    it is that of the file's recipe, None without one.
    """

    file: str
    mark: str
    key: str
    payload: str
    p_value: float
    recipe: bool | None = None

    def text(self) -> str:
        sure = "found" if self.p_value <= MARKED else "not found"
        told = f", payload {self.payload}" if self.payload and self.p_value <= MARKED else ""
        many = {IN_SAMPLES: "sounds", IN_FRAMES: "clips"}.get(self.mark, "pictures")
        if told and self.recipe is not None:
            told += ", that of its recipe" if self.recipe else ", not that of its recipe"
        return (
            f"{self.file}: {self.mark}, {self.key}: {sure}{told} (p = {self.p_value:.2g}; "
            f"found is up to {MARKED:g}: of a million unmarked {many} about one)"
        )


def _known(path: Path) -> recipe.Recipe | None:
    """The recipe of a picture, if it has one that can be read."""
    try:
        return recipe.read(path)
    except recipe.RecipeError:
        return None


def _option(how: recipe.Recipe | None, name: str) -> str | None:
    value = None if how is None else how.options.get(name)
    return value if isinstance(value, str) else None


def _search(args: argparse.Namespace, how: recipe.Recipe | None) -> Search:
    steps = args.steps
    if steps is None and (told := _option(how, "steps")) is not None and told.isdecimal():
        steps = int(told)
    prompt = args.prompt if args.prompt is not None else _option(how, "prompt") or ""
    return Search(prompt, _seed(args, how), steps, args.spacing or _option(how, "spacing"))


def _seed(args: argparse.Namespace, how: recipe.Recipe | None) -> int | None:
    told = _option(how, "seed")
    own = int(told) if told is not None and told.isdecimal() else None
    return own if args.seed is None else args.seed


def _called(key: keys.MarkKey) -> str:
    return "the public key" if key == keys.PUBLIC else f"the secret key {key.id:04x}"


def _eight_bits(image: Image.Image) -> Image.Image:
    if image.mode in ("L", "RGB", "RGBA"):
        return image
    return image.convert("RGBA" if image.has_transparency_data else "RGB")


def _in_pixels(
    path: Path, image: Image.Image, how: recipe.Recipe | None, key: keys.MarkKey
) -> Line:
    """Any mark of a key in the pixels; if none is read, whether that of the recipe is there."""
    sent = None
    if how is not None and how.key == key.id and "pixels" in how.marks:
        sent = keys.payload(key, recipe.short_hash(how))
    try:
        seen = blind.detect(image, key.secret)
        payload, chance = seen.payload, seen.p_value
        if sent is not None and (payload is None or chance > MARKED):
            # Two looks, each with half of the error.
            known = blind.confirm(image, sent, key.secret)
            payload, chance = (sent, known) if known < chance else (payload, chance)
            chance = min(1.0, 2 * chance)
    except WatermarkError:  # too small or too large for any
        payload, chance = None, 1.0
    told = "" if payload is None else f"{payload:016x}"
    same = None if sent is None else payload == sent
    return Line(str(path), "the mark in the pixels", _called(key), told, chance, same)


def _in_noise(
    path: Path, how: recipe.Recipe | None, model: Model, args: argparse.Namespace
) -> list[Line]:
    """What is found in a picture: the mark of a seed that is known, else any of a key."""
    search = _search(args, how)
    picture = read(path, CHANNELS[model.codec.channels])
    own = keys.chosen(args.mark_key)
    found: list[Line] = []
    for key in dict.fromkeys((keys.PUBLIC, own)):
        called = _called(key)
        recipes = args.seed is None and how is not None and how.key == key.id
        if search.seed is not None and (recipes or args.seed is not None):
            sent = keys.payload(key, keys.seed_hash(search.seed))
            whose = "its recipe's " if recipes else ""
            p = verify_mark(model, picture, NoiseMark(sent, key.secret), search)
            said = f"the mark of {whose}seed {search.seed}"
            found.append(Line(str(path), said, called, f"{sent:016x}", p))
            continue
        read_out = detect(model, picture, key.secret, search)
        payload = "" if read_out.payload is None else f"{read_out.payload:016x}"
        found.append(Line(str(path), "any mark in the noise", called, payload, read_out.p_value))
    return found


def _model_of(path: Path, how: recipe.Recipe | None, args: argparse.Namespace) -> str:
    """The model that made a picture: as typed, else as its recipe says, else the one in the
    package."""
    if args.model is not None:
        return args.model
    name = Path(_option(how, "model") or "icons").name  # a recipe says names, never paths
    beside = path.parent / name
    return str(beside) if beside.exists() else name


def _in_samples(path: Path, own: keys.MarkKey) -> list[Line]:
    """What is found in a sound, under the public key and one's own."""
    sound = audio.read(path)
    found: list[Line] = []
    for key in dict.fromkeys((keys.PUBLIC, own)):
        called = _called(key)
        try:
            seen = blind_audio.detect(sound.samples, sound.rate, key.secret)
        except WatermarkError as error:
            raise audio.AudioError(f"{path}: {error}") from None
        payload = "" if seen.payload is None else f"{seen.payload:016x}"
        found.append(Line(str(path), IN_SAMPLES, called, payload, seen.p_value))
    return found


def _in_frames(path: Path, own: keys.MarkKey) -> list[Line]:
    """What is found in the frames of a clip, under the public key and one's own."""
    try:
        frames = video.read(path, blind_video.FRAMES)
    except video.VideoError as error:
        raise video.VideoError(f"{path}: {error}") from None
    found: list[Line] = []
    for key in dict.fromkeys((keys.PUBLIC, own)):
        try:
            seen = blind_video.detect(frames, key.secret)
            payload, chance = seen.payload, seen.p_value
        except WatermarkError:  # too small or too large for any
            payload, chance = None, 1.0
        told = "" if payload is None else f"{payload:016x}"
        found.append(Line(str(path), IN_FRAMES, _called(key), told, chance))
    return found


Load = Callable[[str], Model]
"""The model of a name or path; raises CheckpointError."""


def looked(path: Path, args: argparse.Namespace, load: Load) -> Iterator[Line]:
    """What is looked for in a file, one after another."""
    own = keys.chosen(args.mark_key)
    if path.suffix.lower() in audio.READABLE:
        yield from _in_samples(path, own)
        return
    if path.suffix.lower() in video.READABLE:
        yield from _in_frames(path, own)
        return
    how, image = _known(path), _eight_bits(open_image(path))
    for key in dict.fromkeys((keys.PUBLIC, own)):
        yield _in_pixels(path, image, how, key)
    model = _loaded(path, how, args, load)
    if model is not None:
        yield from _in_noise(path, how, model, args)


def run(args: argparse.Namespace) -> int:
    """A line for each file and key; the exit code is 0 if in each file a mark was found, else 1."""
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    for path in args.files:  # all of them before the first model is loaded
        if not path.is_file():
            raise ImageError(f"{path}: no such file")
    last = lru_cache(1)(lambda name: load(name, args.device))
    good = True
    for path in args.files:
        found = False
        for line in looked(path, args, last):
            print(json.dumps(asdict(line)) if args.json else line.text(), flush=True)
            found = found or line.p_value <= MARKED
        good = good and found
    return 0 if good else 1


def _loaded(
    path: Path, how: recipe.Recipe | None, args: argparse.Namespace, load: Load
) -> Model | None:
    """The model to look into the noise with; None: there is no saying which, or it is not here.

    Raises:
        CheckpointError: what was typed is none.
    """
    asked = (args.model, args.prompt, args.seed, args.steps, args.spacing)
    if how is None and all(value is None for value in asked):
        return None
    try:
        return load(_model_of(path, how, args))
    except CheckpointError as error:
        if args.model is not None:
            raise
        print(f"{path}: not looked for in the noise: {one_line(error)}", file=sys.stderr)
        return None
