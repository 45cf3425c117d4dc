"""A picture once more: what a command line records of itself, and how that is taken up again."""

from __future__ import annotations

import argparse
import hashlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mezzotint.apps.controls import Wanted
from mezzotint.apps.errors import UsageError
from mezzotint.apps.image_prompts import encoder_of
from mezzotint.apps.regions import plain
from mezzotint.engine.licences import eyes, inside, record
from mezzotint.engine.request import Request
from mezzotint.families.catalogue import PACKAGED, locate
from mezzotint.families.model import Model
from mezzotint.families.precision import working
from mezzotint.families.sizes import written
from mezzotint.modalities.image import ImageError, read_text
from mezzotint.provenance.foreign import foreign
from mezzotint.provenance.recipe import (
    File,
    NoRecipeError,
    Options,
    Recipe,
    RecipeError,
    fingerprint,
    opened,
    read,
)
from mezzotint.provenance.terms import Licensed, check_commercial, parts_of

LOCAL = frozenset(
    {
        *("output", "count", "source", "pick", "quiet", "preview", "sidecar", "mark-key"),
        *("server", "grid"),
        *("lora-dir", "embedding-dir", "wildcards", "device", "memory", "threads"),
    }
)
"""Options that say where and how the work is done, not what is made: they are not recorded."""

_INNER = ("typed", "recipe", "command", "lenient", "told")

Swap = Callable[[str], str]


class _Named(NamedTuple):
    """How an option names files.

    swap: its value with the path of each file as the function gives it; text: as it is typed.
    """

    swap: Callable[[Any, Swap], Any]
    text: Callable[[Any], str]


def _first(value: tuple[Path, Any], to: Swap) -> tuple[Any, ...]:
    return (Path(to(str(value[0]))), *value[1:])


def _lora(value: tuple[Path, float, Sequence[Any]]) -> str:
    path, strength, rules = value
    parts = [f"{rule.pattern}={plain(rule.strength)}" for rule in rules]
    return ":".join([str(path), plain(strength), *parts])


def _both(value: Wanted, to: Swap) -> Wanted:
    shown = None if value.picture is None else to(value.picture)
    return value._replace(file=to(value.file), picture=shown)


def _control(value: Wanted) -> str:
    said = value.said()
    told = "=".join(str(said[key]) for key in ("file", "picture") if key in said)
    shown = [f",{said['hint']}"] if "hint" in said else []
    more = [f",{key}={said[key]}" for key in ("strength", "from", "to", "mode") if key in said]
    return "".join([told, *shown, *more])


_WHOLE = _Named(lambda value, to: type(value)(to(str(value))), str)
NAMED: dict[str, _Named] = {
    **dict.fromkeys(("model", "refiner", "image", "mask", "reference"), _WHOLE),
    **dict.fromkeys(("ip-adapter", "image-encoder"), _Named(lambda v, to: Path(to(str(v))), str)),
    "part": _Named(_first, lambda v: str(v[0]) if v[1] is None else f"{v[1]}={v[0]}"),
    "embedding": _Named(_first, lambda v: str(v[0]) if v[1] is None else f"{v[0]}={v[1]}"),
    "lora": _Named(_first, _lora),
    "image-prompt": _Named(_first, lambda v: f"{v[0]}:{plain(v[1])}"),
    "control": _Named(_both, _control),
    "region": _Named(
        lambda v, to: v._replace(where=to(v.where)) if isinstance(v.where, str) else v,
        lambda v: f"{v}={v.prompt}",
    ),
}
"""The options that name files."""


_MODELS = ("model", "refiner")
_WEIGHTS = ("model", "refiner", "part", "lora", "embedding", "ip-adapter", "image-encoder")


def _dest(option: str) -> str:
    return option.replace("-", "_")


def _swapped(value: Any, option: str, to: Swap) -> Any:
    """The value of an option, one or several, with other paths."""
    row = NAMED[option]
    return [row.swap(v, to) for v in value] if isinstance(value, list) else row.swap(value, to)


def name_of(path: str) -> str:
    """A file's name, without where it is; of a model in the package the name that it goes by."""
    if path in PACKAGED:
        return path
    return Path(path).resolve().name if Path(path).name in ("", "..") else Path(path).name


# --- recording --------------------------------------------------------------------------------


class Used:
    """The files of a run, each with its fingerprint, which is taken once, and compared with those
    of the recipe that is followed."""

    def __init__(self, args: argparse.Namespace, known: Mapping[Path, str] | None = None) -> None:
        """known: fingerprints that were taken when files were loaded."""
        self._recipe: Recipe | None = args.recipe
        self._source: Path | None = args.source
        self._lenient: bool = args.lenient
        self._known = dict(known or {})
        self.others: list[str] = []
        """Of a lenient run, those that are not the recipe's."""
        self.conditions: list[str] = []
        """Of a run that asks for commercial use, those under which it is allowed."""
        self._commercial: bool = args.commercial and not args.lenient
        self._sees = bool(args.image_prompt) and args.ip_adapter is None
        self._networks = {Path(wanted.file) for wanted in args.control}
        self._parts: dict[tuple[str, str], list[Licensed]] = {}
        self.given = self._given(args)
        """Those that options name."""

    def file(self, option: str, path: Path, name: str | None = None) -> File:
        """A file that an option named, or what was named by a prompt.

        Raises:
            UsageError: it is another one than the recipe's.
            LicenceError: what is asked for is commercial, and its licence does not allow that.
        """
        if path not in self._known:
            self._known[path] = fingerprint(path)
        made = File(option, name or name_of(str(path)), self._known[path])
        if made[:2] not in self._parts:
            self._parts[made[:2]] = found = self._licensed(option, path, made.name)
            if self._commercial:
                self.conditions += check_commercial(found)
        if self._recipe is not None:
            self._compare(made, path, self._recipe)
        return made

    def _licensed(self, option: str, path: Path, name: str) -> list[Licensed]:
        """The licences of weights and of what they read with, and of a picture that we made those
        of all that went into it; of other pictures their owner knows."""
        if option in _WEIGHTS or path in self._networks:
            return [
                Licensed(option, name, record(path)),
                *(inside(path) if option in _MODELS else ()),
                *([eyes()] if option == "model" and self._sees else ()),
            ]
        try:
            found = parts_of(opened(path))
        except (RecipeError, ImageError, OSError):
            return []
        return [Licensed(option, f"{name} ({part.name})", part.record) for part in found]

    def parts(self, files: Sequence[File]) -> list[Licensed]:
        """What is licensed of some files, each part once."""
        found = (part for file in files for part in self._parts.get(file[:2], ()))
        return list(dict.fromkeys(found))

    def _compare(self, made: File, path: Path, recipe: Recipe) -> None:
        alike = [
            file
            for file in recipe.files
            if file.option == made.option and (file.name == made.name or made.option == "model")
        ]
        if alike and made.fingerprint not in {file.fingerprint for file in alike}:
            told = (
                f"{path} is not the {alike[0].name} that made {self._source}: it has "
                f"{_short(made)}, that one had {_short(alike[0])}"
            )
            if not self._lenient:
                raise UsageError(
                    f"{told}: give that one with --{made.option}, or type the command anew"
                )
            self.others.append(told)

    def _given(self, args: argparse.Namespace) -> tuple[File, ...]:
        found: list[File] = []
        for option in NAMED:
            paths: list[str] = []

            def note(path: str, paths: list[str] = paths) -> str:
                paths.append(path)
                return path

            value = getattr(args, _dest(option))
            if option == "image-encoder" and args.ip_adapter is not None:
                value = encoder_of(args.ip_adapter, value)
            if value is not None:
                _swapped(value, option, note)
            for path in paths:
                named = option in ("model", "refiner")
                where = locate(path) if named else Path(path)
                if where.exists():  # what is not there is an error of whoever opens it
                    found.append(self.file(option, where, name_of(path)))
        return tuple(found)


def _short(file: File) -> str:
    kind, _, digest = file.fingerprint.partition(":")
    return f"{kind}:{digest[:12]}"


def options_of(args: argparse.Namespace, model: Model, request: Request) -> Options:
    """The options with which the one picture of a request is made again.

    What was typed, but for choices, which are made, and what the model says where nothing was:
    another version may have other defaults.
    """
    defaults = model.defaults
    usual = {
        "seed": str(request.seeds[0]),
        "model": name_of(args.model),
        "steps": str(defaults.steps),
        "sampler": defaults.sampler,
        "spacing": defaults.spacing,
        "guidance": repr(float(defaults.guidance)),
        "precision": str(working(model.network)).removeprefix("torch."),
        "watermark": args.watermark,
    }
    if defaults.interval is not None:
        usual["interval"] = ",".join(map(repr, defaults.interval))
    found = {**usual, **{k: v for k, v in args.typed.items() if k not in LOCAL}}
    found["prompt"], found["seed"] = request.prompt, usual["seed"]
    found["precision"] = usual["precision"]
    if request.negative:
        found["negative"] = request.negative
    if args.size is not None:
        found["size"] = written(args.size)
    elif args.image is None and args.reference is None:
        found["size"] = written(request.size or defaults.size)
    if args.vary is not None:
        found["vary"] = ",".join(f"{seed}:{plain(amount)}" for seed, amount in args.vary)
    for option in NAMED.keys() & found.keys() - {"model"}:
        value = _swapped(getattr(args, _dest(option)), option, name_of)
        if option == "region":
            pairs = zip(value, request.regions, strict=True)
            value = [wanted._replace(prompt=region.prompt) for wanted, region in pairs]
        text = NAMED[option].text
        found[option] = [text(v) for v in value] if isinstance(value, list) else text(value)
    found["model"] = usual["model"]
    return dict(sorted(found.items()))


# --- repeating --------------------------------------------------------------------------------

Parse = Callable[[Sequence[str]], argparse.Namespace]


def repeated(typed: Mapping[str, str | list[str] | bool], parse: Parse) -> argparse.Namespace:
    """The command that a picture carries, and what was typed in place of what it says.

    Args:
        typed: by name, ``from`` (as ``source``) and perhaps ``pick`` among them.
        parse: of a command line.

    Raises:
        RecipeError, ImageError: it carries none that can be read.
        UsageError: it names a file that is not found; an option that is not known, or its value.
    """
    source = Path(str(typed["source"]))
    pick = typed.get("pick")
    given = {name: value for name, value in typed.items() if name not in ("source", "pick")}
    try:
        recipe = read(source, None if pick is None else int(str(pick)))
    except NoRecipeError:
        if pick is not None:
            raise
        return _taken_over(source, given, parse)
    return followed(recipe, source, given, parse)


def _taken_over(source: Path, given: Options, parse: Parse) -> argparse.Namespace:
    """The command of a picture that another program made, as far as it can be expressed; ``told``
    says what cannot.

    Raises:
        RecipeError, UsageError: as :func:`repeated`.
    """
    try:
        found = foreign(read_text(source))
    except RecipeError as error:
        raise RecipeError(f"{source}: {error}") from None
    args = followed(Recipe(found.options, ()), source, given, parse)
    args.told = [f"{source}: of {found.program}: {line}" for line in found.left]
    for sought in found.sought:
        if sought.option == "model" and (path := Path(args.model)).is_file():
            digest = _of_whole(path)
            if not digest.startswith(sought.digest.lower()):
                args.told.append(
                    f"{path} is not the {sought.name} that made {source}: its SHA-256 begins with "
                    f"{digest[: len(sought.digest)]}, that one's with {sought.digest}"
                )
    return args


def _of_whole(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def followed(
    recipe: Recipe, source: Path, given: Options, parse: Parse, folders: Sequence[Path] = ()
) -> argparse.Namespace:
    """The command of a recipe, from the file ``source``, as options.

    Args:
        given: what is in place of what the recipe says.
        folders: where files are looked for after the folder at hand and that of ``source``.

    Raises:
        UsageError: it names a file that is not found; an option that is not known, or its value.
    """
    known = vars(parse(["generate", ""])).keys()
    for name in recipe.options:
        if _dest(name) not in known or name in (*LOCAL, *_INNER):
            raise UsageError(
                f"{source}: its recipe has the option {name[:40]!r}, which this version does not "
                "know: update mezzotint"
            )
    merged = _merged(recipe.options, given)
    try:
        args = parse(["generate", *_words(merged)])
    except UsageError as error:  # what was typed has been read before: it is the recipe's
        raise UsageError(f"{source}: its recipe is not understood: {error}") from None
    for option in NAMED.keys() & recipe.options.keys() - given.keys():
        value = getattr(args, _dest(option))
        setattr(args, _dest(option), _found(value, option, recipe, source, args, folders))
    args.recipe, args.source, args.told = recipe, source, []
    return args


def _merged(recorded: Options, given: Options) -> dict[str, str | list[str] | bool]:
    """The recorded options under those that were given."""
    merged = {**recorded, **given}
    if "vary" in given:
        merged["vary"] = _varied(recorded, str(given["vary"]))
        if "seed" not in given:  # the variation's own, anew
            merged.pop("seed", None)
    if "expand" in given and "size" not in given:  # which the picture and its sides set
        merged.pop("size", None)
    return merged


def _varied(recorded: Options, how: str) -> str:
    """What --vary says of a recorded picture: how far from its seed, and from what that varies."""
    if ":" in how:
        return how
    before = [str(recorded["vary"])] if "vary" in recorded else []
    return ",".join([*before, f"{recorded.get('seed')}:{how}"])


def _words(options: Options) -> list[str]:
    """Options as a command line."""
    words: list[str] = []
    for name, value in options.items():
        if name == "prompt":
            continue
        for each in value if isinstance(value, list) else [value]:
            flag = {True: f"--{name}", False: f"--no-{name}"}
            words.append(flag[each] if isinstance(each, bool) else f"--{name}={each}")
    return [*words, "--", str(options.get("prompt", ""))]


_ENDS = ("", ".safetensors", ".gguf", ".ckpt")
"""Other programs leave the end of a model's name out."""


def _kept(fingerprint: str, folders: Sequence[Path]) -> list[Path]:
    """Where servers whose folders these are (`--data`) would keep a file: by its SHA-256."""
    name = fingerprint.removeprefix("sha256:")
    if len(name) != 64 or not name.isalnum():
        return []
    return [folder / "files" / name[:2] / name[2:] for folder in folders]


def _found(
    value: Any,
    option: str,
    recipe: Recipe,
    source: Path,
    args: argparse.Namespace,
    more: Sequence[Path],
) -> Any:
    """An option's value with its files where they are found: here or beside the picture."""
    known = {(file.option, file.name): file.fingerprint for file in recipe.files}
    folders = [Path(), source.parent, *more]
    folders += [args.lora_dir] if option == "lora" else []
    folders += [args.embedding_dir] if option == "embedding" else []

    def find(name: str) -> str:
        if option in ("model", "refiner") and name in PACKAGED:
            return name
        if name != Path(name).name or name == ".." or not name.isprintable():
            raise UsageError(f"{source}: its recipe has a path, {name[:80]!r}, and no file's name")
        names = (folder / f"{name}{end}" for folder in folders for end in _ENDS)
        kept = _kept(known.get((option, name), ""), more)
        there = [path for path in (*names, *kept) if path.exists()]
        if not there:
            where = "".join(f", nor in {folder}" for folder in more)
            raise UsageError(
                f"{name}, with which {source} was made, is neither here nor beside it{where}: say "
                f"where with --{option}"
            )
        same = (path for path in there if fingerprint(path) == known.get((option, name)))
        return str(next(same, there[0]))

    return _swapped(value, option, find)
