"""The packages on disk, the word lists and the sets: what every reader of drawings needs."""

from __future__ import annotations

import json
import re
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from corpus_fetch import CorpusError, Package, fetch, read_members
from corpus_words import EmojiWords, plain, read_emoji_words

# Sets of whose icons only the names are read, as a list of English words.
_NAMING = ("game-icons", "mdi", "ph", "tabler")


@dataclass(frozen=True)
class Drawing:
    """One drawing with its words; `art` is an SVG, or the bytes of a raster picture."""

    key: str  # "package@version:path-or-icon-name", unique
    set_id: str
    label: str
    tags: tuple[str, ...]
    concept: str
    style: str
    licence: str
    author: str | None
    weight: float
    art: str | bytes


@dataclass(frozen=True)
class Source:
    """A set of `sources.toml`."""

    id: str
    package: str
    reader: str
    licence: str
    style: str
    styles: Mapping[str, str] = field(default_factory=dict[str, str])
    strip: tuple[str, ...] = ()
    respell: Mapping[str, str] = field(default_factory=dict[str, str])  # slips in the names
    number_words: bool = False
    codes_of: str | None = None
    author: str | None = None
    drop_names: tuple[str, ...] = ()
    drop_categories: tuple[str, ...] = ()
    drop_folders: tuple[str, ...] = ()


@dataclass(frozen=True)
class Holder:
    """Who made a set, for the attribution file."""

    name: str
    url: str
    licence_url: str


class Shelf:
    """The packages on disk and the word lists: what every reader needs."""

    def __init__(self, sources: Path, cache: Path, size: int) -> None:
        try:
            table = tomllib.loads(sources.read_text("utf-8"))
            rows = {row.pop("id"): row for row in table["package"]}
            self.packages = {key: Package(**row) for key, row in rows.items()}
            self.sources = [_source(row) for row in table["set"]]
            barred = [*table["exclude"]["brands"], *table["exclude"]["words"]]
        except (OSError, KeyError, TypeError, tomllib.TOMLDecodeError) as error:
            raise CorpusError(f"{sources}: {error!r}") from error
        self.size = size
        self.paths = {key: fetch(package, cache) for key, package in self.packages.items()}
        self.barred = re.compile(rf"\b(?:{'|'.join(map(re.escape, sorted(barred)))})\b")
        self.emoji = self._emoji_words()
        self._sets = self._iconify_sets()
        for set_id in ("noto", "twemoji", "fluent-emoji-flat"):
            self.emoji.add_names(self._sets[set_id]["chars"])
        tagged = {plain(e.base): e.tags for e in self.emoji.by_code.values()}
        self.tags_by_label = {key: tags for key, tags in tagged.items() if key}
        self.names = self._known_names()
        self.found: Counter[str] = Counter()
        self.excluded: Counter[str] = Counter()

    def _emoji_words(self) -> EmojiWords:
        wanted = {"data.json", "shortcodes/cldr.json", "shortcodes/emojibase.json"}
        wanted |= {f"shortcodes/{name}.json" for name in ("github", "iamcal", "joypixels")}
        names = {f"package/en/{name}" for name in wanted}
        names |= {"package/meta/groups.json", "package/meta/unicode-names.json"}
        files = read_members(self.paths["emojibase"], names)
        files |= read_members(self.paths["emojilib"], {"package/dist/emoji-en-US.json"})
        return read_emoji_words(files)

    def _iconify_sets(self) -> dict[str, dict[str, Any]]:
        wanted = [source.id for source in self.sources if source.package == "iconify"]
        names = {f"package/json/{name}.json" for name in wanted} | {"package/collections.json"}
        files = read_members(self.paths["iconify"], names)
        self.collections = json.loads(files["package/collections.json"])
        return {name: json.loads(files[f"package/json/{name}.json"]) for name in wanted}

    def _known_names(self) -> set[str]:
        """English words for things that can be drawn: from the emoji and the icons' names."""
        files = read_members(self.paths["iconify"], {f"package/json/{n}.json" for n in _NAMING})
        sets = [json.loads(content) for content in files.values()]
        sets += [self._sets[source.id] for source in self.sources if source.reader == "named"]
        texts = [plain(name) for table in sets for name in table["icons"]]
        for entry in self.emoji.by_code.values():
            texts += [plain(entry.base), *map(plain, entry.tags)]
        words = {word for text in texts for word in text.split()}
        return {word for word in words if len(word) > 1 and word.isalpha()}

    def icons(self, set_id: str) -> dict[str, Any]:
        return self._sets[set_id]

    def codes(self, set_id: str) -> dict[str, str]:
        """Code point by icon name, where the set tells it."""
        return {name: hexcode for hexcode, name in self._sets[set_id].get("chars", {}).items()}

    def holder(self, source: Source) -> Holder:
        """The copyright holder as the package's own metadata names it."""
        info = self.collections.get(source.id, {})
        author, licence = info.get("author", {}), info.get("license", {})
        name = source.author or author.get("name", "the authors named in each file")
        return Holder(name, author.get("url", ""), licence.get("url", ""))

    def allowed(self, source: Source, *texts: str) -> bool:
        """False, and counted, for trademarks, flags and the rest of the exclusion list."""
        good = not any(self.barred.search(plain(text)) for text in texts)
        self.excluded[source.id] += not good
        return good

    def attribution(self, source: Source) -> str:
        """One line for the metadata of each drawing."""
        holder = self.holder(source)
        return f"{holder.name} ({holder.url})" if holder.url else holder.name


def _source(row: Mapping[str, Any]) -> Source:
    lists = {key: tuple(value) for key, value in row.items() if isinstance(value, list)}
    return Source(**{**row, **lists})
