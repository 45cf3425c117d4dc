"""Files that a prompt names: adapters, and the lines of wildcards."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mezzotint.adapters.inversion import Embedding
from mezzotint.adapters.strengths import Rule
from mezzotint.apps.errors import UsageError
from mezzotint.engine import prompts
from mezzotint.engine.attach import Adapter, learnt, open_adapter, open_embedding
from mezzotint.engine.request import Attached
from mezzotint.families.model import Model

_SUFFIXES = (".safetensors", ".pt", ".ckpt", ".bin")
_KINDS = ("lora", "lyco")


def decided(prompt: str, seed: int, folder: Path) -> str:
    """The prompt with its choices made by the seed, from the files ``NAME.txt`` of a folder.

    Raises:
        PromptError: it cannot be read; UsageError: a file is not there.
    """

    def lines(name: str) -> Sequence[str]:
        path = folder / f"{name}.txt"
        if name.startswith("/") or not path.is_file():
            raise UsageError(f"the wildcard __{name}__ needs a file {path} (--wildcards FOLDER)")
        try:
            return path.read_text("utf-8-sig").splitlines()  # some editors begin with a mark
        except UnicodeDecodeError:
            raise UsageError(f"{path}: is no text in UTF-8: save it so") from None

    return prompts.choose(prompt, seed, lines)


class Given(NamedTuple):
    """An adapter's file, how strongly it acts, and how strongly on some blocks."""

    path: Path
    strength: float
    rules: tuple[Rule, ...] = ()


class Adapters:
    """The adapters of a run: files given by name, and a folder of more; each read once."""

    def __init__(self, model: Model, given: Sequence[Given], folder: Path, partial: bool) -> None:
        self._model, self._given, self._folder, self._partial = model, given, folder, partial
        self._read: dict[Path, Adapter] = {}

    def of(self, prompt: str) -> tuple[Attached, ...]:
        """The given ones, and those that a prompt asks for.

        Raises:
            UsageError: there is no such file; CheckpointError: it does not fit the model.
        """
        found = [Attached(g.path.stem, self._open(g.path).fitted, *g[1:]) for g in self._given]
        if self._model.weighted is None:
            return tuple(found)
        for wanted in prompts.read(prompt).adapters:
            if wanted.kind not in _KINDS:
                raise UsageError(f"unknown <{wanted.kind}:…>: write <lora:{wanted.name}>")
            path = self._find(wanted.name)
            fitted = self._open(path).fitted
            found.append(Attached(wanted.name, fitted, wanted.strength, wanted.rules))
        return tuple(found)

    def files(self, prompt: str) -> list[Path]:
        """The files of those that a prompt asks for and that were not given."""
        if self._model.weighted is None:
            return []
        given = {adapter.path for adapter in self._given}
        found = [self._find(wanted.name) for wanted in prompts.read(prompt).adapters]
        return [path for path in dict.fromkeys(found) if path not in given]

    def left_out(self) -> tuple[str, ...]:
        """What was left out of the files that were read, a sentence each."""
        return tuple(
            f"{path}: {len(adapter.left_out)} modules left out, the first {adapter.left_out[0]!r}"
            for path, adapter in self._read.items()
            if adapter.left_out
        )

    def _open(self, path: Path) -> Adapter:
        if path not in self._read:
            self._read[path] = open_adapter(self._model, path, self._partial)
        return self._read[path]

    def _find(self, name: str) -> Path:
        """The file of a name: one that was given, else in the folder."""
        if given := [path for path, *_ in self._given if path.stem == name and path.is_file()]:
            return given[0]
        return _find(name, self._folder, "adapter", "--lora-dir")


def _find(name: str, folder: Path, kind: str, option: str) -> Path:
    """The file of weights with a name in a folder.

    Raises:
        UsageError: there is none, or it would be outside of the folder.
    """
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise UsageError(f"no {kind} {name!r}: a prompt names files in {folder} ({option}) only")
    for path in (folder / f"{name}{suffix}" for suffix in _SUFFIXES):
        if path.is_file():
            return path
    there = [path.stem for path in folder.glob("*") if path.suffix in _SUFFIXES]
    near = difflib.get_close_matches(name, there, n=1)
    hint = f" (nearest: {near[0]})" if near else ""
    raise UsageError(f"no {kind} {name!r} in {folder}{hint}: {option} names a folder")


def files_said(texts: Sequence[str], adapters: Path, embeddings: Path) -> list[tuple[str, Path]]:
    """The files that prompts name, by option, as far as they are there: before a model is loaded,
    which says what is wrong with the others."""
    found: list[tuple[str, Path]] = []
    for text in texts:
        try:
            named = [wanted.name for wanted in prompts.read(text).adapters]
        except prompts.PromptError:
            continue
        where = [("lora", name, adapters) for name in named]
        where += [("embedding", name, embeddings) for name in learnt(text)]
        for option, name, folder in where:
            try:
                found.append((option, _find(name, folder, option, f"--{option}-dir")))
            except UsageError:
                continue
    return found


class Embeddings:
    """The embeddings of a run: files, each perhaps with a name, and a folder of more."""

    def __init__(
        self, model: Model, given: Sequence[tuple[Path, str | None]], folder: Path
    ) -> None:
        self._model, self._folder = model, folder
        self._given = tuple(open_embedding(model, path, name) for path, name in given)
        self._read: dict[str, Embedding] = {}

    def of(self, *texts: str) -> tuple[Embedding, ...]:
        """The given ones that one of the prompts says, and those asked for by ``embedding:name``.

        Raises:
            UsageError: there is no such file; CheckpointError: it does not fit the model.
        """
        said = "\n".join(texts)
        if self._model.words is None:
            return ()
        found = [given for given in self._given if re.search(given.pattern(), said, re.IGNORECASE)]
        there = {given.name.lower() for given in self._given}
        for name in learnt(said):
            if name.lower() in there:
                continue
            there.add(name.lower())
            if name not in self._read:
                path = _find(name, self._folder, "embedding", "--embedding-dir")
                self._read[name] = open_embedding(self._model, path, name, bare=False)
            found.append(self._read[name])
        return tuple(found)

    def files(self, *texts: str) -> list[Path]:
        """The files of those that prompts ask for and that were not given."""
        if self._model.words is None:
            return []
        given = {embedding.name.lower() for embedding in self._given}
        names = [name for name in learnt("\n".join(texts)) if name.lower() not in given]
        return [_find(name, self._folder, "embedding", "--embedding-dir") for name in names]

    def check_said(self, template: str) -> None:
        """Raise UsageError for a given embedding that a prompt without choices never says."""
        if "{" in template or "__" in template:
            return
        for given in self._given:
            if not re.search(given.pattern(), template, re.IGNORECASE):
                raise UsageError(
                    f"no prompt says {given.name!r}, so its embedding does nothing: write the "
                    "word, or name it with --embedding FILE=NAME"
                )
