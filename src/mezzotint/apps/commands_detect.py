"""`mezzotint detect`: the watermarks in pictures and sounds, with how sure one can be of each."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from mezzotint.engine.detect import Search, detect, verify_mark
from mezzotint.families.catalogue import load
from mezzotint.families.model import Model
from mezzotint.modalities import audio
from mezzotint.modalities.image import CHANNELS, ImageError, read
from mezzotint.provenance import blind_audio, keys, recipe
from mezzotint.provenance.codeword import WatermarkError
from mezzotint.provenance.noise_mark import NoiseMark

MARKED = 1e-6
"""p-value up to which a picture is called marked: of a million unmarked ones, about one is."""
IN_SAMPLES = "any mark in the samples"


@dataclass(frozen=True)
class Line:
    """What was looked for in a file, and how sure it is there.

    payload: what was read, in hexadecimal; empty where it is too short to be read.
    """

    file: str
    mark: str
    key: str
    payload: str
    p_value: float

    def text(self) -> str:
        sure = "found" if self.p_value <= MARKED else "not found"
        told = f", payload {self.payload}" if self.payload and self.p_value <= MARKED else ""
        many = "sounds" if self.mark == IN_SAMPLES else "pictures"
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
    return Search(prompt, steps, args.spacing or _option(how, "spacing"))


def _lines(
    path: Path, how: recipe.Recipe | None, model: Model, args: argparse.Namespace
) -> list[Line]:
    """What is found in a picture: with a recipe its own mark, else any of a key."""
    search = _search(args, how)
    picture = read(path, CHANNELS[model.codec.channels])
    own = keys.chosen(args.mark_key)
    seed = _option(how, "seed")
    found: list[Line] = []
    for key in dict.fromkeys((keys.PUBLIC, own)):
        called = "the public key" if key == keys.PUBLIC else f"the secret key {key.id:04x}"
        if how is not None and how.key == key.id and seed is not None and seed.isdecimal():
            sent = keys.payload(key, keys.seed_hash(int(seed)))
            p = verify_mark(model, picture, NoiseMark(sent, key.secret), search)
            said = f"the mark of its recipe's seed {seed}"
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
    name = _option(how, "model") or "icons"
    beside = path.parent / name
    return str(beside) if beside.exists() else name


def _in_samples(path: Path, own: keys.MarkKey) -> list[Line]:
    """What is found in a sound, under the public key and one's own."""
    sound = audio.read(path)
    found: list[Line] = []
    for key in dict.fromkeys((keys.PUBLIC, own)):
        called = "the public key" if key == keys.PUBLIC else f"the secret key {key.id:04x}"
        try:
            seen = blind_audio.detect(sound.samples, sound.rate, key.secret)
        except WatermarkError as error:
            raise audio.AudioError(f"{path}: {error}") from None
        payload = "" if seen.payload is None else f"{seen.payload:016x}"
        found.append(Line(str(path), IN_SAMPLES, called, payload, seen.p_value))
    return found


def _shown(lines: list[Line], as_data: bool) -> bool:
    """Print them; whether a mark was found."""
    for line in lines:
        print(json.dumps(asdict(line)) if as_data else line.text(), flush=True)
    return any(line.p_value <= MARKED for line in lines)


def run(args: argparse.Namespace) -> int:
    """A line for each file and key; the exit code is 0 if in each file a mark was found, else 1."""
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    for path in args.files:  # all of them before the first model is loaded
        if not path.is_file():
            raise ImageError(f"{path}: no such file")
    models: dict[str, Model] = {}
    good = True
    for path in args.files:
        if path.suffix.lower() in audio.READABLE:
            good &= _shown(_in_samples(path, keys.chosen(args.mark_key)), args.json)
            continue
        how = _known(path)
        name = _model_of(path, how, args)
        if name not in models:
            models = {name: load(name, args.device)}
        good &= _shown(_lines(path, how, models[name], args), args.json)
    return 0 if good else 1
