"""`mezzotint detect`: the watermarks in pictures, with how sure one can be of each."""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from mezzotint.engine.detect import Search, detect, verify_mark
from mezzotint.families.catalogue import load
from mezzotint.families.model import Model
from mezzotint.modalities.image import CHANNELS, ImageError, read
from mezzotint.provenance import keys, recipe
from mezzotint.provenance.noise_mark import NoiseMark

MARKED = 1e-6
"""p-value up to which a picture is called marked: of a million unmarked ones, about one is."""


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
        return (
            f"{self.file}: {self.mark}, {self.key}: {sure}{told} (p = {self.p_value:.2g}; "
            f"found is up to {MARKED:g}: of a million unmarked pictures about one)"
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


def _lines(
    path: Path, how: recipe.Recipe | None, model: Model, args: argparse.Namespace
) -> list[Line]:
    """What is found in a picture: the mark of a seed that is known, else any of a key."""
    search = _search(args, how)
    picture = read(path, CHANNELS[model.codec.channels])
    own = keys.chosen(args.mark_key)
    found: list[Line] = []
    for key in dict.fromkeys((keys.PUBLIC, own)):
        called = "the public key" if key == keys.PUBLIC else f"the secret key {key.id:04x}"
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
    name = _option(how, "model") or "icons"
    beside = path.parent / name
    return str(beside) if beside.exists() else name


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
        how = _known(path)
        name = _model_of(path, how, args)
        if name not in models:
            models = {name: load(name, args.device)}
        lines = _lines(path, how, models[name], args)
        good = good and any(line.p_value <= MARKED for line in lines)
        for line in lines:
            print(json.dumps(asdict(line)) if args.json else line.text(), flush=True)
    return 0 if good else 1
