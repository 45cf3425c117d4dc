"""Where the pictures of a command go: names that say what is in them, and never an old file's."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path

from mezzotint.apps.errors import UsageError

SUFFIXES = (".png", ".webp", ".jpg", ".jpeg", ".tif", ".tiff")
_SLUG = 48


def slug(text: str) -> str:
    """The words of a text as the part of a file name: letters and digits of any script."""
    words = "".join(c if c.isalnum() else " " for c in text.lower()).split()
    short = "-".join(words)[:_SLUG].strip("-")
    return short or "picture"


def free(path: Path) -> Path:
    """``path``, or where that is taken the first of ``name-2``, ``name-3`` … that is not."""
    candidate, number = path, 1
    while candidate.exists():
        number += 1
        candidate = path.with_stem(f"{path.stem}-{number}")
    return candidate


@dataclass(frozen=True)
class Output:
    """A folder and the start of the names in it; ``exact``: the one picture takes just ``stem``."""

    folder: Path
    stem: str
    suffix: str
    exact: bool

    def picture(self, seed: int) -> Path:
        """A free name for the picture of a seed."""
        name = self.stem if self.exact else f"{self.stem}_{seed}"
        return free(self.folder / (name + self.suffix))

    def sheet(self, seeds: tuple[int, ...]) -> Path:
        """A free name for the contact sheet of all seeds."""
        name = f"{self.stem}_{seeds[0]}-{seeds[-1]}_sheet"
        return free(self.folder / (name + self.suffix))


def _probe(folder: Path) -> None:
    """Raise OSError unless files can be made in ``folder`` (permission bits alone may lie)."""
    with tempfile.TemporaryFile(dir=folder):
        pass


def prepare(wish: str | None, prompt: str, count: int) -> Output:
    """What ``--output`` means, checked before any work: the folder exists and takes files.

    A name with a picture's extension is a file, another one a folder, which is made; none is the
    folder at hand.

    Raises:
        UsageError: an unknown extension, or the folder cannot be made or written to.
    """
    path = Path(wish if wish is not None else ".")
    is_folder = wish is None or wish.endswith(("/", "\\")) or path.is_dir() or not path.suffix
    if not is_folder and path.suffix.lower() not in SUFFIXES:
        raise UsageError(
            f"cannot write {path.suffix} files ({path}): choose one of {', '.join(SUFFIXES)}, or "
            "end the name of a folder with /"
        )
    folder = path if is_folder else path.parent
    try:
        folder.mkdir(parents=True, exist_ok=True)
        _probe(folder)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise UsageError(f"cannot write to {folder}: {reason}: choose another --output") from error
    if is_folder:
        return Output(folder, slug(prompt), ".png", exact=False)
    return Output(folder, path.stem, path.suffix, exact=count == 1)
