"""From a command line to its pictures, each with the document that goes into its file."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from typing import NamedTuple

import torch
from PIL import Image
from rich.console import Console
from torch import Tensor

import mezzotint
from mezzotint.apps.asked import (
    check_options,
    decided_for,
    limit_of,
    mark_key,
    note,
    parameters,
    request_of,
)
from mezzotint.apps.errors import UsageError
from mezzotint.apps.marking import marked
from mezzotint.apps.named import Adapters, Embeddings, Given
from mezzotint.apps.preview import Watch
from mezzotint.apps.repeat import Used, options_of
from mezzotint.engine.generate import Listener, device, generate
from mezzotint.engine.request import Progress, Request
from mezzotint.families.catalogue import load
from mezzotint.families.model import Model
from mezzotint.families.separate import Given as Part
from mezzotint.families.sizes import Aspect
from mezzotint.modalities import image as pictures
from mezzotint.provenance import recipe
from mezzotint.provenance.licences import UNKNOWN
from mezzotint.provenance.meter import Shares
from mezzotint.provenance.pixels import pixels_of
from mezzotint.provenance.surroundings import machine, versions
from mezzotint.provenance.terms import Licensed, as_row

SOFTWARE = f"mezzotint {mezzotint.__version__}"


class Made(NamedTuple):
    """A picture as it is to be stored, the seed that it has, and what its file says of it.

    model, licence: what drew it, and under which terms; edited: from a picture.
    """

    image: Image.Image
    seed: int
    document: recipe.Document
    model: str
    licence: str
    edited: bool


def loaded(args: argparse.Namespace) -> Model:
    """The model of a command line."""
    limit = None if args.memory is None else limit_of(args)
    parts = [Part(*part) for part in args.part]
    return load(args.model, args.device, args.family, args.precision, limit, parts)


def loading_key(args: argparse.Namespace) -> tuple[object, ...]:
    """What tells the model of a command line from others, without a limit of memory."""
    return args.model, args.device, args.family, args.precision, tuple(args.part)


def making(
    args: argparse.Namespace,
    model: Model,
    seeds: tuple[int, ...],
    used: Used,
    listener: Listener | None = None,
    shares: Shares | None = None,
) -> Iterator[Made]:
    """Make the pictures of a command line one by one.

    listener: is told of each step, beside whoever looks at the terminal.
    shares: count what each takes, for its document.

    Raises:
        UsageError, RequestError, CheckpointError: it cannot be carried out.
    """
    if isinstance(args.size, Aspect):
        args.size = model.size_of(args.size)
    request = request_of(args, model)
    key = mark_key(args)
    given = [Given(path, strength, rules + args.lora_blocks) for path, strength, rules in args.lora]
    adapters = Adapters(model, given, args.lora_dir, args.allow_partial)
    embeddings = Embeddings(model, args.embedding, args.embedding_dir)
    said = [args.prompt, args.negative, *(wanted.prompt for wanted in args.region)]
    embeddings.check_said("\n".join(said))
    told: tuple[str, ...] = ()

    def also(step: Progress) -> None:
        if shares is not None:
            shares.lap()
        if listener is not None:
            listener(step)

    for number, seed in enumerate(seeds):
        # One seed a call: each picture is on the disk before the next is begun.
        if shares is not None:
            shares.begin()
        single = decided_for(args, request, seed, adapters, embeddings)
        for line in adapters.left_out()[len(told) :]:
            note(args, line)
        told = adapters.left_out()
        said = (single.prompt, single.negative, *(region.prompt for region in single.regions))
        named = [used.file("lora", path) for path in adapters.files(single.prompt)]
        named += [used.file("embedding", path) for path in embeddings.files(*said)]
        how = recipe.Recipe(options_of(args, model, single), (*used.given, *named))
        picture = _drawn(args, model, single, (number, len(seeds)), also)
        image = pictures.to_image(picture)
        image = _laid_on_white(image) if args.opaque else image
        image, how = marked(image, how, key, args, single.known)
        words = parameters(args, model, single, picture)
        parts = used.parts(how.files)
        words["licences"] = [as_row(part) for part in parts]
        if shares is not None:
            words["energy"] = shares.end()
        document = _document(how, words, model, image)
        yield Made(image, seed, document, model.name, _licence(parts), args.image is not None)


def _laid_on_white(image: Image.Image) -> Image.Image:
    """A picture without its transparency.

    Raises:
        UsageError: it has none.
    """
    if image.mode != "RGBA":
        raise UsageError("--opaque does not apply: this model's pictures are opaque: leave it out")
    return pictures.on_white(image)


def _licence(parts: list[Licensed]) -> str:
    """The licence of the model."""
    return next((part.record.said for part in parts if part.what == "model"), UNKNOWN)


def _document(
    how: recipe.Recipe,
    words: recipe.Document,
    model: Model,
    image: Image.Image,
) -> recipe.Document:
    around = {
        "versions": versions(mezzotint.__version__),
        "machine": machine(device(model)),
        "pixels": pixels_of(image),
    }
    return recipe.document(how, SOFTWARE, {**words, **around})


def _drawn(
    args: argparse.Namespace,
    model: Model,
    request: Request,
    which: tuple[int, int],
    listener: Listener,
) -> Tensor:
    """The picture of a request with one seed; which: its number, of how many."""
    number, count = which
    title = f"seed {request.seeds[0]} ({number + 1} of {count})"
    with Watch(Console(stderr=True), args.quiet, args.preview) as watch:

        def listen(told: Progress) -> None:
            done, total = number * told.steps + told.step, count * told.steps
            watch.step(title, done, total, lambda: pictures.to_image(told.preview()))
            listener(told)

        return generate(model, request, listen)[0]


def begin(args: argparse.Namespace) -> None:
    """Check the options and take the threads that they ask for, before anything is loaded."""
    check_options(args)
    if args.threads is not None:
        torch.set_num_threads(args.threads)
