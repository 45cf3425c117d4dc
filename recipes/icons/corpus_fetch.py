"""Bring the packages named in `sources.toml` into a cache folder and read members out of them.

Only the ordinary registry clients are used, and only for the packages listed; a file that is
already in the cache is used without asking anyone. Every file is checked against its SHA-256.
"""

from __future__ import annotations

import hashlib
import io
import shutil
import subprocess
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path


class CorpusError(Exception):
    """A foreseeable failure; its text is one line for the person who runs the recipe."""


@dataclass(frozen=True)
class Package:
    """One line of `sources.toml`: what to fetch, and the digest that it must have."""

    name: str
    version: str
    registry: str  # "npm", "pypi" or "debian"
    file: str
    sha256: str

    @property
    def spec(self) -> str:
        return f"{self.name}@{self.version}"


def _client(package: Package) -> list[str]:
    if package.registry == "npm":
        return ["npm", "pack", "--silent", package.spec]
    if package.registry == "pypi":
        requirement = f"{package.name}=={package.version}"
        return ["pip", "download", "--quiet", "--no-deps", requirement]
    if package.registry == "debian":
        return ["apt-get", "download", f"{package.name}={package.version}"]
    raise CorpusError(f"sources.toml: {package.name}: unknown registry {package.registry!r}")


def fetch(package: Package, cache: Path) -> Path:
    """The path of the package's file in `cache`, downloaded first if it is not there."""
    path = cache / package.file
    if not path.exists():
        command = _client(package)
        if shutil.which(command[0]) is None:
            raise CorpusError(f"{package.spec}: needs {command[0]}, which is not installed")
        cache.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(command, cwd=cache, capture_output=True, text=True, check=False)
        if done.returncode != 0 or not path.exists():
            lines = (done.stderr or done.stdout).strip().splitlines() or ["no message"]
            raise CorpusError(f"{package.spec}: {' '.join(command)} failed: {lines[-1]}")
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != package.sha256:
        raise CorpusError(f"{path}: SHA-256 is {digest}, sources.toml says {package.sha256}")
    return path


def _deb_data(path: Path) -> bytes:
    """The data archive inside a Debian package (an `ar` file)."""
    raw = path.read_bytes()
    offset = 8  # after the magic line "!<arch>\n"
    while offset + 60 <= len(raw):
        name = raw[offset : offset + 16].decode("ascii").strip()
        size = int(raw[offset + 48 : offset + 58])
        start = offset + 60
        if name.startswith("data.tar"):
            return raw[start : start + size]
        offset = start + size + size % 2  # members start at even offsets
    raise CorpusError(f"{path}: no data archive inside")


def members(path: Path) -> Iterator[tuple[str, bytes]]:
    """The regular files of an npm, Debian or Python package: (name, content)."""
    if path.suffix == ".whl":
        with zipfile.ZipFile(path) as wheel:
            for info in wheel.infolist():
                if not info.is_dir():
                    yield info.filename, wheel.read(info)
        return
    raw = _deb_data(path) if path.suffix == ".deb" else path.read_bytes()
    with tarfile.open(fileobj=io.BytesIO(raw), mode="r:*") as tar:
        for info in tar:
            content = tar.extractfile(info) if info.isreg() else None
            if content is not None:
                yield info.name.removeprefix("./"), content.read()


def read_members(path: Path, names: set[str]) -> dict[str, bytes]:
    """The named members; an error names one that is missing."""
    found = {name: content for name, content in members(path) if name in names}
    for name in sorted(names - set(found)):
        raise CorpusError(f"{path}: no member {name}")
    return found
