"""Build the training corpus of the `icons` model: drawings with captions in one archive.

    python recipes/icons/corpus.py --cache DIR --out FILE [--size 128] [--jobs 2]

Fetches the packages listed in `sources.toml` into the cache (about 235 MB, once), renders every
drawing, drops what looks the same, holds out one concept in twenty and writes a zip with
`metadata.jsonl`, `LICENCES.md` and lossless WebP pictures. Two builds give the same bytes.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before numpy and torch read it

import numpy as np
from corpus_archive import Credit, Record, write_archive
from corpus_fetch import CorpusError
from corpus_merge import duplicates, merge_concepts
from corpus_render import RenderError, encode, fit_picture, render_svg, thumbnail
from corpus_sets import prepare, read_set
from corpus_shelf import Drawing, Shelf
from corpus_words import captions, held_out
from numpy.typing import NDArray

_COLUMNS = ("found", "excluded", "failed", "rendered", "duplicate", "kept", "heldout")


@dataclass(frozen=True)
class Picture:
    """A rendered drawing: its file and what is compared to find duplicates."""

    file: bytes
    thumb: NDArray[np.uint8]


def render_one(art: str | bytes, size: int) -> Picture | str:
    """The picture, or the reason why there is none."""
    try:
        art = prepare(art, size)
        picture = render_svg(art, size) if isinstance(art, str) else fit_picture(art, size)
    except (RenderError, OSError) as error:
        return str(error)
    return Picture(encode(picture), thumbnail(picture))


def _quiet() -> None:
    """The Rust renderer prints its panics; they are counted and reported in the table instead."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def render_all(drawings: Sequence[Drawing], size: int, jobs: int) -> list[Picture | str]:
    """Render in `jobs` processes, in order."""
    work = partial(render_one, size=size)
    art = [drawing.art for drawing in drawings]
    with multiprocessing.get_context("spawn").Pool(jobs, initializer=_quiet) as pool:
        return pool.map(work, art, chunksize=64)


def records_of(drawings: Sequence[Drawing], wheel: Path) -> list[Record]:
    """The lines of the metadata: merged concepts, splits and captions."""
    from corpus_embed import embed_sentences  # slow to import, and needed only here

    counts = Counter(drawing.concept for drawing in drawings)
    heads = merge_concepts(counts, partial(embed_sentences, wheel))
    return [
        Record(
            file=f"pictures/{number:06d}.webp",
            captions=captions(drawing.key, drawing.label, drawing.tags, drawing.style),
            label=drawing.label,
            concept=heads[drawing.concept],
            split="heldout" if held_out(heads[drawing.concept]) else "train",
            weight=drawing.weight,
            set=drawing.set_id,
            style=drawing.style,
            licence=drawing.licence,
            source=drawing.key,
            author=drawing.author,
        )
        for number, drawing in enumerate(drawings, start=1)
    ]


def table(shelf: Shelf, stages: dict[str, Counter[str]]) -> str:
    """The closing table: one line a set."""
    stages = {"found": shelf.found, "excluded": shelf.excluded, **stages}
    lines = [f"{'set':<26}" + "".join(f"{name:>11}" for name in _COLUMNS)]
    for source in shelf.sources:
        cells = "".join(f"{stages[name][source.id]:>11}" for name in _COLUMNS)
        lines.append(f"{source.id:<26}{cells}")
    totals = "".join(f"{stages[name].total():>11}" for name in _COLUMNS)
    return "\n".join([*lines, f"{'all':<26}{totals}"])


def build(cache: Path, out: Path, size: int, jobs: int) -> str:
    """Everything; returns the closing table."""
    if not out.parent.is_dir():
        raise CorpusError(f"--out: no folder {out.parent}")
    shelf = Shelf(Path(__file__).with_name("sources.toml"), cache, size)
    drawings = [drawing for source in shelf.sources for drawing in read_set(shelf, source)]
    print(f"{len(drawings)} drawings to render", flush=True)
    stages = {name: Counter[str]() for name in _COLUMNS[2:]}
    good: list[Drawing] = []
    pictures: list[Picture] = []
    for drawing, result in zip(drawings, render_all(drawings, size, jobs), strict=True):
        if isinstance(result, str):
            stages["failed"][drawing.set_id] += 1
        else:
            stages["rendered"][drawing.set_id] += 1
            good.append(drawing)
            pictures.append(result)
    same = duplicates([picture.thumb for picture in pictures])
    stages["duplicate"].update(d.set_id for d, s in zip(good, same, strict=True) if s is not None)
    kept = [index for index, original in enumerate(same) if original is None]
    records = records_of([good[index] for index in kept], shelf.paths["minilm"])
    stages["kept"].update(record.set for record in records)
    stages["heldout"].update(record.set for record in records if record.split == "heldout")
    holders = [_credit(shelf, index) for index in range(len(shelf.sources))]
    write_archive(out, records, [pictures[index].file for index in kept], holders)
    concepts = {record.concept for record in records}
    hidden = sum(map(held_out, concepts))
    return f"{table(shelf, stages)}\n{len(concepts)} concepts, {hidden} held out\n{out}"


def _credit(shelf: Shelf, index: int) -> Credit:
    source = shelf.sources[index]
    holder = shelf.holder(source)
    spec = shelf.packages[source.package].spec
    return Credit(source.id, source.licence, holder.name, holder.url, holder.licence_url, spec)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--cache", type=Path, required=True, help="folder for the packages")
    parser.add_argument("--out", type=Path, required=True, help="the archive to write")
    parser.add_argument("--size", type=int, default=128, help="side of a picture in pixels")
    parser.add_argument("--jobs", type=int, default=2, help="processes that render")
    options = parser.parse_args(arguments)
    if not 16 <= options.size <= 1024:
        parser.error("--size must lie between 16 and 1024")
    if options.jobs < 1:
        parser.error("--jobs must be at least 1")
    try:
        print(build(options.cache, options.out, options.size, options.jobs))
    except (CorpusError, OSError) as error:
        print(f"corpus: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
