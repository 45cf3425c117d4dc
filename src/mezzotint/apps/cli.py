"""The command line.  Nothing heavy is imported here: `mezzotint --help` answers at once.

Files that were made are named on standard output, one a line; all else goes to standard error.
Exit codes: 0 done, 1 a fault of the program or of the installation, or a check that a file did not
pass, 2 a request that cannot be carried out (one line says why), 130 interrupted.
"""

from __future__ import annotations

import argparse
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib import import_module
from typing import NoReturn

import mezzotint
from mezzotint.apps import options
from mezzotint.apps.errors import UsageError, one_line, suggestion

_EXAMPLES = """examples:
  mezzotint generate "a red fox, flat style"
  mezzotint generate "a red fox" -n 4 --seed 7 -o foxes/
  mezzotint generate "a blue fox" --image fox.png --strength 0.6
  mezzotint generate --from foxes/a-red-fox_7-10_sheet.png --pick 3 --vary subtle -n 4
  mezzotint train recipe.toml --out runs/first
"""


COMMANDS: dict[str, tuple[str, str, Callable[[argparse.ArgumentParser], None]]] = {
    "generate": ("make pictures", "commands_generate:run", options.generate),
    "train": ("train a model, or go on with it", "commands_train:run", options.train),
    "verify": ("make files again from what they carry", "commands_verify:run", options.verify),
    "credentials": (
        "show who made files, from what, and whether they were changed",
        "commands_credentials:run_credentials",
        options.credentials,
    ),
    "export": (
        "write a picture in another format, with all that it carries",
        "commands_export:run",
        options.export,
    ),
    "detect": ("look for watermarks", "commands_detect:run", options.detect),
    "audit": ("say what the files of a folder carry", "commands_audit:run", options.audit),
    "studio": ("make pictures in the browser", "studio.run:run", options.studio),
    "licences": (
        "say under which terms models and pictures are",
        "commands_licences:run",
        options.licences,
    ),
    "sources": (
        "list the drawings that are most like a picture",
        "commands_licences:run_sources",
        options.sources,
    ),
    "serve": ("serve pictures to other programs", "server.run:run", options.serve),
    "queue": ("show the jobs of a server", "client:run_queue", options.queue),
    "token": ("make and end tokens of the server", "server.run:run_token", options.token),
    "inspect": ("say what a file of weights is", "commands_about:run_inspect", options.inspect),
    "convert": (
        "write a checkpoint in another layout or precision",
        "commands_convert:run",
        options.convert,
    ),
    "cutout": ("remove the ground of a picture", "commands_cutout:run", options.cutout),
    "samplers": ("list the samplers and spacings", "commands_about:run_samplers", options.none),
    "doctor": (
        "say what is installed and what this machine can do",
        "commands_about:run_doctor",
        options.none,
    ),
}
"""Of each command its help, the function that runs it, and that which adds its options."""


_METERED = ("generate", "train")
"""Those whose energy is counted, from before they are imported."""


class _Parser(argparse.ArgumentParser):
    """Complains by an exception, in one line, and names the nearest option."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see {self.prog} --help)")

    def unknown(self, arguments: Sequence[str]) -> NoReturn:
        first = arguments[0]
        if first.startswith("-"):
            known = sorted(set(re.findall(r"--[a-z][\w-]*", self.format_help())))
            name = first.split("=")[0]
            raise UsageError(f"unknown option {name}{suggestion(name, known)}")
        raise UsageError(
            f"unexpected {' '.join(arguments)!r}: put a prompt of several words in quotes"
        )


@lru_cache(2)
def _parsers(typed: bool = False) -> tuple[_Parser, dict[str, _Parser]]:
    """The command line and its commands, made once: a server reads many.

    typed: those of `generate` are texts, as they were typed, and only those that were.
    """
    top = _Parser(
        prog="mezzotint",
        description="Pictures from words, on this machine.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    top.add_argument("--version", action="version", version=f"mezzotint {mezzotint.__version__}")
    commands = top.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    parsers: dict[str, _Parser] = {}
    for name, (text, _, add) in COMMANDS.items():
        parsers[name] = commands.add_parser(name, help=text, description=text, allow_abbrev=False)
        add(parsers[name])
    if typed:
        for action in parsers["generate"]._actions:  # argparse has no other way to ask for the text
            if action.dest != "help":
                action.type, action.default = None, None
    return top, parsers


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options of a command line, of `generate` with those of the picture that --from names.

    Raises:
        UsageError: it is not understood; RecipeError, ImageError: the picture is not.
    """
    top, parsers = _parsers()
    if arguments and not arguments[0].startswith("-") and arguments[0] not in parsers:
        raise UsageError(f"unknown command {arguments[0]!r}{suggestion(arguments[0], parsers)}")
    args, rest = top.parse_known_args(arguments)
    if rest:
        parsers.get(args.command, top).unknown(rest)
    if args.command is None:
        top.print_help()
        raise SystemExit(0)
    for name, value in vars(args).items():
        if isinstance(value, list):  # perhaps the parsers' own
            setattr(args, name, list(value))
    return _from_picture(args, arguments) if args.command == "generate" else args


def _typed(arguments: Sequence[str]) -> dict[str, str | list[str] | bool]:
    """The options of `generate` that were given, by name, as they were typed."""
    top, _ = _parsers(typed=True)
    given = vars(top.parse_args(arguments))
    return {
        name.replace("_", "-"): value
        for name, value in given.items()
        if value is not None and name != "command"
    }


def _from_picture(args: argparse.Namespace, arguments: Sequence[str]) -> argparse.Namespace:
    """The options of `generate`, with those that the picture of --from carries."""
    args.typed, args.recipe, args.lenient, args.told = _typed(arguments), None, False, []
    if args.source is not None:
        from mezzotint.apps.repeat import repeated

        return repeated(args.typed, parse)
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
    if args.command in _METERED:  # now: importing torch is a good part of a short run
        from mezzotint.provenance.meter import Meter

        args.meter = Meter()
    module, function = COMMANDS[args.command][1].split(":")
    if args.command == "generate" and args.server is not None:
        module, function = "client", "run"
    run: Callable[[argparse.Namespace], int]
    run = getattr(import_module(f"mezzotint.apps.{module}"), function)
    return run(args)


def _out_of_memory(error: RuntimeError) -> bool:
    return any(words in str(error) for words in ("not enough memory", "out of memory"))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line; the exit code."""
    warnings.filterwarnings("ignore", message="Image size")  # such pictures are refused anyway
    try:
        code = _run(parse(sys.argv[1:] if arguments is None else arguments))
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
