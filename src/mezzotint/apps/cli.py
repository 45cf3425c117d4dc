"""The command line.  Nothing heavy is imported here: `mezzotint --help` answers at once.

Files that were made are named on standard output, one a line; all else goes to standard error.
Exit codes: 0 done, 1 a fault of the program or of the installation, 2 a request that cannot be
carried out (one line says why), 130 interrupted.
"""

from __future__ import annotations

import argparse
import math
import os
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import mezzotint
from mezzotint.adapters.strengths import Rule, StrengthError, read_rule
from mezzotint.apps.errors import UsageError, one_line, suggestion
from mezzotint.families.sizes import WORDS, Aspect, read_aspect

if TYPE_CHECKING:
    from mezzotint.apps.controls import Wanted as WantedControl
    from mezzotint.apps.regions import Wanted

_EXAMPLES = """examples:
  mezzotint generate "a red fox, flat style"
  mezzotint generate "a red fox" -n 4 --seed 7 -o foxes/
  mezzotint generate "a blue fox" --image fox.png --strength 0.6
  mezzotint generate --from foxes/a-red-fox_7-10_sheet.png --pick 3 --vary subtle -n 4
  mezzotint train recipe.toml --out runs/first
"""


class _Parser(argparse.ArgumentParser):
    """Complains by an exception, in one line, and names the nearest option."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")

    def unknown(self, arguments: Sequence[str]) -> NoReturn:
        first = arguments[0]
        if first.startswith("-"):
            options = sorted(set(re.findall(r"--[a-z][\w-]*", self.format_help())))
            name = first.split("=")[0]
            raise UsageError(f"unknown option {name}{suggestion(name, options)}")
        raise UsageError(
            f"unexpected {' '.join(arguments)!r}: put a prompt of several words in quotes"
        )


# --- values -----------------------------------------------------------------------------------


def _size(text: str) -> tuple[int, int] | Aspect:
    """``N`` or ``WxH`` as (height, width), or an aspect."""
    if (aspect := read_aspect(text)) is not None:
        return aspect
    match = re.fullmatch(r"(-?\d+)(?:[x×](-?\d+))?", text.strip().lower())
    if match is None:
        raise argparse.ArgumentTypeError(
            f"{text!r} is no size: give N or WxH, such as 128 or 96x64, an aspect such as 16:9, or "
            f"{', '.join(WORDS)}"
        )
    width = int(match[1])
    return (width if match[2] is None else int(match[2]), width)


def _count(text: str) -> int:
    """A whole number of 1 or more."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give a whole number of 1 or more")
    return int(text)


def _pixels(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r}: give pixels, a whole number of 0 or more")
    return int(text)


def _seed(text: str) -> int:
    """A whole number below 2^64: it is a part of the names of files."""
    if not text.isdecimal() or len(text) > 20 or int(text) >= 1 << 64:
        raise argparse.ArgumentTypeError(
            f"{text[:24]!r}: give a whole number from 0 to 2^64 - 1, or leave it out for a random "
            "one"
        )
    return int(text)


def _number(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is no number")
    return value


def _interval(text: str) -> tuple[float, float]:
    low, _, high = text.partition(",")
    pair = (_number(low), _number(high))
    if not 0 <= pair[0] < pair[1] <= 1:
        raise argparse.ArgumentTypeError(f"{text!r}: give LOW,HIGH with 0 <= LOW < HIGH <= 1")
    return pair


def _numbers(text: str) -> frozenset[int]:
    parts = text.split(",")
    if not all(part.isdecimal() for part in parts):
        raise argparse.ArgumentTypeError(f"{text!r}: give numbers from 0 with commas between them")
    return frozenset(map(int, parts))


def _blocks(text: str) -> tuple[Rule, ...]:
    """``PATTERN=STRENGTH,…``."""
    try:
        return tuple(read_rule(part) for part in text.split(","))
    except StrengthError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _lora(text: str) -> tuple[Path, float, tuple[Rule, ...]]:
    """``FILE``, ``FILE:STRENGTH`` or ``FILE:STRENGTH:PATTERN=STRENGTH…``."""
    rules: tuple[Rule, ...] = ()
    while not Path(text).exists() and "=" in text.rpartition(":")[2]:
        text, _, rule = text.rpartition(":")
        rules = (*_blocks(rule), *rules)
    name, colon, strength = text.rpartition(":")
    try:
        return (Path(name), _number(strength), rules) if colon else (Path(text), 1.0, rules)
    except argparse.ArgumentTypeError:
        return Path(text), 1.0, rules  # a colon of the file's name


def _control(text: str) -> WantedControl:
    """``FILE=PICTURE`` or ``FILE``, and what is wished of it."""
    from mezzotint.apps.controls import wanted

    try:
        return wanted(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def _image_prompt(text: str) -> tuple[Path, float]:
    """``FILE`` or ``FILE:STRENGTH``."""
    name, colon, strength = text.rpartition(":")
    if Path(text).exists() or not colon:
        return Path(text), 1.0
    try:
        return Path(name), _number(strength)
    except argparse.ArgumentTypeError:
        return Path(text), 1.0  # a colon of the file's name


def _part(text: str) -> tuple[Path, str | None]:
    """``FILE`` or ``NAME=FILE``."""
    name, sign, path = text.partition("=")
    if Path(text).exists() or not sign:
        return Path(text), None
    return Path(path), name.strip()


def _embedding(text: str) -> tuple[Path, str | None]:
    """``FILE`` or ``FILE=NAME``."""
    path, sign, name = text.rpartition("=")
    if Path(text).exists() or not sign:
        return Path(text), None
    if not name.strip():
        raise argparse.ArgumentTypeError(f"{text!r}: give FILE or FILE=NAME")
    return Path(path), name.strip()


VARIES = {"subtle": 0.1, "strong": 0.4}


def _vary(text: str) -> tuple[tuple[int | None, float], ...]:
    """``SEED:AMOUNT``, or in words how far; with a comma a variation of that, and so on.  Of the
    picture that --from names ``AMOUNT`` alone."""
    found: list[tuple[int | None, float]] = []
    for part in text.split(","):
        seed, colon, amount = part.rpartition(":")
        try:
            share = VARIES[amount] if amount in VARIES else float(amount)
        except ValueError:
            share = math.nan
        if not (seed.isdecimal() or (part == text and not colon)) or not 0 <= share <= 1:
            raise argparse.ArgumentTypeError(
                f"{text!r}: give a seed and how far from it, as 7:subtle, 7:strong or 7:0.2"
            )
        found.append((int(seed) if colon else None, share))
    return tuple(found)


def _region(text: str) -> Wanted:
    """``BOX=PROMPT`` or ``MASK=PROMPT``."""
    from mezzotint.apps.regions import wanted

    try:
        return wanted(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


_SIDES = ("left", "top", "right", "bottom")


def _sides(text: str) -> tuple[int, int, int, int] | tuple[int, int]:
    """``N`` or ``left=N,right=N,…`` as pixels to the left, top, right, bottom; ``W:H`` as it is."""
    if (match := re.fullmatch(r"([1-9]\d{0,3}):([1-9]\d{0,3})", text)) is not None:
        return int(match[1]), int(match[2])
    if text.isdecimal():
        each = int(text)
        return (each, each, each, each)
    sides = dict.fromkeys(_SIDES, 0)
    for part in text.split(","):
        name, _, amount = (piece.strip() for piece in part.partition("="))
        if name not in sides or not amount.isdecimal():
            raise argparse.ArgumentTypeError(
                f"{text!r}: give pixels, as N or as left=N,right=N (also top, bottom), or W:H"
            )
        sides[name] = int(amount)
    return (sides["left"], sides["top"], sides["right"], sides["bottom"])


# --- commands ---------------------------------------------------------------------------------


def _part_option(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "--part",
        type=_part,
        action="append",
        default=[],
        metavar="[NAME=]FILE",
        help=f"{what} in a file of its own (docs/checkpoints.md)",
    )


def _generate_parser(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("prompt", nargs="?", help='what to draw, in quotes; "" draws anything')
    add("-n", "--count", type=_count, default=1, metavar="N", help="pictures; seeds count up")
    add("--seed", type=_seed, metavar="N", help="of the first picture (default: random)")
    add("--size", type=_size, metavar="WxH|16:9|wide", help="default: the model's")
    add("-o", "--output", metavar="PATH", help="folder, or file .png .webp .jpg (default: here)")
    add("--model", default="icons", metavar="NAME|PATH", help="default: %(default)s")
    add("--family", metavar="NAME", help="what a checkpoint is, where its file cannot say")
    _part_option(parser, "a text encoder, VAE or TAESD")
    add("--negative", default="", metavar="TEXT", help="what to keep away from")
    add("--lora", type=_lora, action="append", default=[], metavar="FILE[:S]", help="an adapter")
    add("--lora-blocks", type=_blocks, default=(), metavar="PATTERN=S,…", help="docs/adapters.md")
    add("--lora-dir", type=Path, default=Path("loras"), metavar="DIR", help="of <lora:name:0.8>")
    add("--allow-partial", action="store_true", help="leave out what of an adapter has no place")
    add("--wildcards", type=Path, default=Path("wildcards"), metavar="DIR", help="of __name__")
    add(
        "--embedding",
        type=_embedding,
        action="append",
        default=[],
        metavar="FILE[=NAME]",
        help="a word",
    )
    add(
        "--embedding-dir",
        type=Path,
        default=Path("embeddings"),
        metavar="DIR",
        help="of embedding:name",
    )
    add(
        "--region",
        type=_region,
        action="append",
        default=[],
        metavar="BOX|MASK=TEXT",
        help="a prompt for a part: 0,0,0.5,1=a fox (left,top,right,bottom), mask.png=a fox",
    )
    add("--steps", type=_count, metavar="N", help="more is finer and slower")
    add("--sampler", metavar="NAME", help="see `mezzotint samplers`")
    add("--spacing", metavar="NAME", help="see `mezzotint samplers`")
    edit = parser.add_argument_group("start from a picture").add_argument
    edit("--image", metavar="FILE", help="draw after this picture")
    edit("--strength", type=_number, metavar="S", help="how far from it, 0 to 1 (default: 0.6)")
    edit("--mask", metavar="FILE", help="draw anew only where this is white")
    edit("--reference", metavar="FILE", help="of models that edit, or follow edges or depth")
    edit(
        "--control",
        type=_control,
        action="append",
        default=[],
        metavar="FILE[=PICTURE],…",
        help="a control network and what it follows (docs/adapters.md)",
    )
    edit(
        "--image-prompt",
        type=_image_prompt,
        action="append",
        default=[],
        metavar="FILE[:S]",
        help="a picture as a prompt, and how strongly it acts",
    )
    edit("--ip-adapter", type=Path, metavar="PATH", help="what makes prompts of pictures")
    edit("--image-encoder", type=Path, metavar="PATH", help="with which it was trained")
    edit("--only-masked", type=_pixels, metavar="PX", help="work on the mask and so much around it")
    edit("--expand", type=_sides, metavar="N|left=N,…|W:H", help="draw around it: pixels, aspect")
    again = parser.add_argument_group("once more, with what else is given").add_argument
    again(
        "--from", dest="source", type=Path, metavar="FILE", help="a picture made here, or a sheet"
    )
    again("--pick", type=_count, metavar="N", help="which picture of the sheet, from 1")
    add("--vary", type=_vary, metavar="[SEED:]HOW", help="variations: subtle, strong, 0 to 1")
    add(
        "--tile",
        choices=("both", "x", "y"),
        help="whose ends fit together, to be laid side by side",
    )
    add("--enlarge", type=_number, metavar="F", help="a second pass at F times the size")
    add("--enlarge-strength", type=_number, metavar="S", help="of that pass (default: 0.35)")
    add("--enlarge-latent", action="store_true", help="enlarge the code (default strength: 0.55)")
    add("--refiner", metavar="FILE", help="a model that goes on from where the other has come to")
    add("--refiner-from", type=_number, metavar="S", help="its share of the way (default: 0.8)")
    guide = parser.add_argument_group("guidance").add_argument
    guide("--guidance", type=_number, metavar="W", help="pull of the prompt; 1 is off")
    guide("--image-guidance", type=_number, metavar="W", help="pull of the reference; 1 is off")
    guide("--rescale", type=_number, default=0.0, metavar="R", help="against glare, 0 to 1")
    guide("--interval", type=_interval, metavar="LOW,HIGH", help="at noise times (0,1: all)")
    guide("--apg", action="store_true", help="adaptive projected guidance")
    guide("--cfg-zero-star", action="store_true", help="CFG-Zero*, for flow models")
    for name, what in (("perturb", "attention layers perturbed"), ("skip", "blocks left out")):
        lead = f"lead away from itself with these {what}"
        guide(f"--{name}", type=_numbers, default=frozenset(), metavar="N,N,…", help=lead)
        guide(f"--{name}-scale", type=_number, metavar="S", help="and how far (default: 1)")
    show = parser.add_argument_group("how").add_argument
    show("--device", metavar="NAME", help="cpu, cuda, cuda:1, mps (default: a GPU if there)")
    precisions = ("auto", "float32", "bfloat16", "float16")
    show("--precision", choices=precisions, default="auto", help="of a checkpoint's numbers")
    show("--memory", metavar="GB", help="take at most so much, such as 6GB (of a checkpoint)")
    show("--threads", type=_count, metavar="N", help="of the processor")
    show("--quiet", action="store_true", help="print the files' names only")
    show("--no-preview", dest="preview", action="store_false", help="no picture while drawing")


def _train_parser(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("config", metavar="CONFIG", help="what to train on what, a .toml file")
    add("--out", required=True, metavar="RUN", help="folder of the run; an existing run goes on")
    add("--skip-bad", action="store_true", help="leave damaged files of the data set out")
    add("--threads", type=_count, metavar="N", help="of the processor")
    add("--quiet", action="store_true", help="no progress bar")


def _convert_parser(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", metavar="SRC", help="file, index of shards, or folder of diffusers")
    add("target", metavar="DST", help="a file .safetensors, else a folder")
    add("--to", choices=("file", "folder"), help="(default: as DST is named)")
    add(
        "--dtype",
        choices=("keep", "float32", "float16", "bfloat16"),
        default="keep",
        help="of the numbers (default: each its own)",
    )
    add("--family", metavar="NAME", help="what a checkpoint is, where its file cannot say")
    _part_option(parser, "a text encoder or VAE")
    add("--force", action="store_true", help="replace what stands at DST")


def _parsers() -> tuple[_Parser, dict[str, _Parser]]:
    top = _Parser(
        prog="mezzotint",
        description="Pictures from words, on this machine.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"mezzotint {mezzotint.__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    helps = {
        "generate": "make pictures",
        "train": "train a model, or go on with it",
        "inspect": "say what a file of weights is",
        "convert": "write a checkpoint in another layout or precision",
        "samplers": "list the samplers and spacings",
        "doctor": "say what is installed and what this machine can do",
    }
    parsers = {
        name: commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        for name, text in helps.items()
    }
    _generate_parser(parsers["generate"])
    _train_parser(parsers["train"])
    parsers["inspect"].add_argument("file", metavar="FILE")
    _convert_parser(parsers["convert"])
    return top, parsers


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    top, parsers = _parsers()
    if arguments and not arguments[0].startswith("-") and arguments[0] not in parsers:
        raise UsageError(f"unknown command {arguments[0]!r}{suggestion(arguments[0], parsers)}")
    args, rest = top.parse_known_args(arguments)
    if rest:
        parsers.get(args.command, top).unknown(rest)
    if args.command is None:
        top.print_help()
        raise SystemExit(0)
    return _from_picture(args, arguments) if args.command == "generate" else args


def _typed(arguments: Sequence[str]) -> dict[str, str | list[str] | bool]:
    """The options of `generate` that were given, by name, as they were typed."""
    top, parsers = _parsers()
    for action in parsers["generate"]._actions:  # argparse has no other way to ask for the text
        if action.dest != "help":
            action.type, action.default = None, None
    given = vars(top.parse_args(arguments))
    return {
        name.replace("_", "-"): value
        for name, value in given.items()
        if value is not None and name != "command"
    }


def _from_picture(args: argparse.Namespace, arguments: Sequence[str]) -> argparse.Namespace:
    """The options of `generate`, with those that the picture of --from carries."""
    args.typed, args.recipe, args.lenient = _typed(arguments), None, False
    if args.source is not None:
        from mezzotint.apps.repeat import repeated

        return repeated(args.typed, _parse)
    if args.pick is not None:
        raise UsageError("--pick needs --from: name the sheet")
    if args.prompt is None:
        raise UsageError(
            "the following arguments are required: prompt (see mezzotint generate --help)"
        )
    if args.vary is not None and args.vary[0][0] is None:
        raise UsageError(
            f"--vary {args.typed['vary']}: give a seed and how far from it, as 7:subtle, or the "
            "picture with --from"
        )
    return args


def _run(args: argparse.Namespace) -> int:
    """Only the command that is asked for is imported, and torch with it."""
    if args.command == "generate":
        from mezzotint.apps.commands_generate import run
    elif args.command == "train":
        from mezzotint.apps.commands_train import run
    elif args.command == "inspect":
        from mezzotint.apps.commands_about import run_inspect as run
    elif args.command == "convert":
        from mezzotint.apps.commands_convert import run
    elif args.command == "samplers":
        from mezzotint.apps.commands_about import run_samplers as run
    else:
        from mezzotint.apps.commands_about import run_doctor as run
    return run(args)


def _out_of_memory(error: RuntimeError) -> bool:
    return any(words in str(error) for words in ("not enough memory", "out of memory"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; the exit code."""
    warnings.filterwarnings("ignore", message="Image size")  # such pictures are refused anyway
    try:
        code = _run(_parse(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:  # `mezzotint samplers | head`: the reader has what it wanted
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (ValueError, OSError) as error:
        print(f"mezzotint: {one_line(error)}", file=sys.stderr)
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RuntimeError) and not _out_of_memory(error):
            raise
        print("mezzotint: not enough memory: take a smaller --size or model", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
