"""`mezzotint generate`: words, and perhaps a picture, to pictures."""

from __future__ import annotations

import argparse
import time

from mezzotint.apps.asked import note, seeds_of
from mezzotint.apps.making import SOFTWARE, Made, begin, loaded, making
from mezzotint.apps.named import decided, files_said
from mezzotint.apps.output import Output, prepare
from mezzotint.apps.repeat import Used
from mezzotint.apps.sealing import Signing, signing, write
from mezzotint.families.catalogue import device
from mezzotint.modalities import image as pictures
from mezzotint.provenance import recipe
from mezzotint.provenance.grid import chosen
from mezzotint.provenance.meter import Shares
from mezzotint.provenance.pixels import pixels_of


def sheet_of(made: list[Made]) -> Made:
    """The contact sheet of pictures, with what their files say."""
    captions = [f"{number}: seed {each.seed}" for number, each in enumerate(made, start=1)]
    image = pictures.contact_sheet([each.image for each in made], captions=captions)
    said = {"pixels": pixels_of(image)}
    document = recipe.of_sheet(SOFTWARE, said, [each.document for each in made])
    return made[0]._replace(image=image, document=document)


def _save_sheet(
    args: argparse.Namespace, output: Output, made: list[Made], how: Signing | None
) -> None:
    path = output.sheet(tuple(each.seed for each in made))
    sheet = sheet_of(made)
    write(sheet, path, how, args.sidecar)
    print(path, flush=True)


def check_licences(args: argparse.Namespace, used: Used, seeds: tuple[int, ...]) -> None:
    """Say on which conditions the pictures may be used commercially.

    Raises:
        LicenceError: they may not; the files are looked at before anything is loaded.
    """
    said = [args.prompt, args.negative, *(wanted.prompt for wanted in args.region)]
    texts = [decided(text, seed, args.wildcards) for seed in seeds for text in said]
    for option, path in files_said(texts, args.lora_dir, args.embedding_dir):
        used.file(option, path)
    for line in used.conditions:
        note(args, f"commercial use: {line}")


def run(args: argparse.Namespace) -> int:
    """Make the pictures and write each as soon as it is there; print the names of the files."""
    begin(args)
    electricity = chosen(args.grid)
    seeds = seeds_of(args)
    output = prepare(args.output, args.prompt, len(seeds))
    used = Used(args)
    if args.commercial:
        check_licences(args, used, seeds)
    how = signing(args)
    args.meter.watch(device(args.device))
    model = loaded(args)
    for line in args.told:
        note(args, line)
    for line in model.notes:
        note(args, f"{args.model}: {line}")
    began = time.monotonic()
    made: list[Made] = []
    shares = Shares(args.meter, len(seeds), electricity)
    for each in making(args, model, seeds, used, shares=shares):
        path = output.picture(each.seed)
        write(each, path, how, args.sidecar)
        print(path, flush=True)
        made.append(each)
    if len(made) > 1:
        _save_sheet(args, output, made, how)
    spent = time.monotonic() - began
    shown = f"seed {seeds[0]}" if len(seeds) == 1 else f"seeds {seeds[0]} to {seeds[-1]}"
    note(args, f"{shown}, model {model.name}, {spent / len(seeds):.1f} s a picture")
    note(args, f"energy: {shares.line()}")
    return 0
