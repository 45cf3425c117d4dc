"""Where things of the server lie: one folder of data, and folders of models that it only reads."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

WEIGHTS = (".safetensors", ".gguf", ".ckpt", ".pt", ".bin")


@dataclass(frozen=True)
class Places:
    """data: the database, files and the workers' own folders; models: whole models, and below them
    ``loras``, ``embeddings`` and ``wildcards``."""

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
        kinds = ("loras", "embeddings", "controls")
        return [*self.models, *(folder for kind in kinds for folder in self.all_of(kind))]

    def weights(self) -> list[Path]:
        """Files and folders of `diffusers` that may be models."""
        found: list[Path] = []
        for folder in self.models:
            there = sorted(folder.iterdir()) if folder.is_dir() else []
            found += [p for p in there if p.suffix in WEIGHTS or (p / "model_index.json").is_file()]
        return found
