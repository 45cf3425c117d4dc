"""Where things of the server lie: one folder of data, and folders of models that it only reads."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from mezzotint.files import stamp

Stamps = frozenset[tuple[Path, tuple[int, ...]]]
WEIGHTS = (".safetensors", ".gguf", ".ckpt", ".pt", ".bin")
_WEIGHED = ("loras", "embeddings", "controls")
KINDS = (*_WEIGHED, "wildcards")


def stamps(paths: Iterable[Path]) -> Stamps:
    """Files and folders as they are now; those that are gone meanwhile are left out."""
    found = set()
    for path in paths:
        with suppress(OSError):
            found.add((path, stamp(path)))
    return frozenset(found)


def listed(folder: Path) -> list[Path]:
    """What lies in a folder, if there is one."""
    return sorted(folder.iterdir()) if folder.is_dir() else []


@dataclass(frozen=True)
class Places:
    """data: the database, files and the workers' own folders; models: whole models, and below them
    folders of all ``KINDS`` else."""

    data: Path
    models: tuple[Path, ...] = ()

    @property
    def files(self) -> Path:
        return self.data / "files"

    @property
    def database(self) -> Path:
        return self.data / "mezzotint.db"

    @property
    def unclean(self) -> Path:
        """A file that is there while a server runs, and after one that did not end well."""
        return self.data / "unclean"

    @property
    def works(self) -> Path:
        """The folders of the workers."""
        return self.data / "work"

    def work(self, worker: str) -> Path:
        """A worker's own folder, in which it stands."""
        return self.works / worker

    def all_of(self, kind: str) -> list[Path]:
        """The folders ``kind`` below those of models, that are there."""
        return [folder / kind for folder in self.models if (folder / kind).is_dir()]

    def one_of(self, kind: str) -> Path:
        """The first of them, for options that name one folder."""
        return next(iter(self.all_of(kind)), self.data / kind)

    def sought(self) -> list[Path]:
        """The folders in which files that a recipe names are looked for."""
        return [*self.models, *(folder for kind in _WEIGHED for folder in self.all_of(kind))]

    def standing(self) -> Stamps:
        """What differs once there is something else to choose from."""
        kinds = [folder for kind in KINDS for folder in self.all_of(kind)]
        found = [path for folder in (*self.models, *kinds) for path in listed(folder)]
        return stamps([*found, *(file for model in self.weights() for file in model.rglob("*"))])

    def weights(self) -> list[Path]:
        """Files and folders of `diffusers` that may be models."""
        found = [path for folder in self.models for path in listed(folder)]
        return [p for p in found if p.suffix in WEIGHTS or (p / "model_index.json").is_file()]
