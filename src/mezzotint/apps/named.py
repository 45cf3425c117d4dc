"""Files that a prompt names: adapters, and the lines of wildcards."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from mezzotint.adapters.strengths import Rule
from mezzotint.apps.errors import UsageError
from mezzotint.engine import prompts
from mezzotint.engine.attach import Adapter, open_adapter
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
        return path.read_text("utf-8").splitlines()

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
        given = [path for path, *_ in self._given if path.stem == name]
        for path in (*given, *(self._folder / f"{name}{suffix}" for suffix in _SUFFIXES)):
            if path.is_file():
                return path
        there = [path.stem for path in self._folder.glob("*") if path.suffix in _SUFFIXES]
        near = difflib.get_close_matches(name, there, n=1)
        hint = f" (nearest: {near[0]})" if near else ""
        raise UsageError(f"no adapter {name!r} in {self._folder}{hint}: --lora-dir names a folder")
