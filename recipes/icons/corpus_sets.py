"""Read the emoji and icon sets: from packages to drawings with their words, before rendering."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from corpus_clipart import read_clipart
from corpus_fetch import CorpusError, members
from corpus_render import resize_svg, wrap_icon
from corpus_shelf import Drawing, Shelf, Source
from corpus_words import (
    Emoji,
    Splitter,
    code,
    concept,
    digest,
    emoji_concept,
    name_label,
    plain,
    singular,
    tone_weight,
    untoned,
    useful_tags,
)

TONES_KEPT = 2  # variants of an emoji that differ in skin tone only
_EMOJI_FLAGS = 9
_EMOJI_COMPONENTS = 2
_GENERIC_FLAGS = {"chequered flag", "triangular flag", "white flag", "black flag", "pirate flag"}


def read_set(shelf: Shelf, source: Source) -> list[Drawing]:
    """All drawings of a set that may be used, in a fixed order."""
    readers: dict[str, Callable[[Shelf, Source], Iterator[Drawing]]] = {
        "emoji": _read_emoji,
        "pictures": _read_pictures,
        "named": _read_named,
        "clipart": read_clipart,
    }
    if source.reader not in readers:
        raise CorpusError(f"sources.toml: {source.id}: unknown reader {source.reader!r}")
    return _few_tones(list(readers[source.reader](shelf, source)))


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
        author=shelf.attribution(source),
        weight=tone_weight(entry.toned),
        art=art,
    )


def _unlisted(name: str, label: str) -> Emoji:
    """An emoji that the word lists lack: its name has to do."""
    bare, toned = untoned(name)
    tone = re.sub(r"medium (?=light|dark)", "medium-", plain(name[len(bare) :]))
    base = name_label(bare) if toned else label
    return Emoji(f"{base}, {tone}" if toned else label, base, (), toned, -1)


def _read_emoji(shelf: Shelf, source: Source) -> Iterator[Drawing]:
    icons = shelf.icons(source.id)
    codes = shelf.codes(source.codes_of or source.id)
    dropped = _in_categories(icons, source.drop_categories)
    splitter = Splitter(shelf.names)
    for name, icon in sorted(icons["icons"].items()):
        if icon.get("hidden"):
            continue  # withdrawn by the set, an older drawing of another one
        shelf.found[source.id] += 1
        if name in dropped or (name.startswith("flag-") and "hole" not in name):
            shelf.excluded[source.id] += 1
            continue
        spelt = name
        for wrong, right in source.respell.items():
            spelt = spelt.replace(wrong, right)
        entry = shelf.emoji.find(spelt, codes.get(name)) or shelf.emoji.find(spelt)
        if entry is None:
            label = name_label(spelt)
            if " " not in label and label not in shelf.names:
                label = splitter.split(label)
            if not shelf.allowed(source, label):
                continue
            entry = _unlisted(name, label)
        key = f"{shelf.packages[source.package].spec}:{source.id}/{name}"
        art = wrap_icon(icon, icons, shelf.size)
        if (drawing := _emoji_drawing(shelf, source, key, entry, art)) is not None:
            yield drawing


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
        parts = plain(re.sub(r"([a-z])([A-Z])", r"\1 \2", category)).split()
        words = [singular(part) for part in parts if part not in {"essential", "others"}]
        for name in names:
            result.setdefault(name, []).extend(words)
    return result


def _read_named(shelf: Shelf, source: Source) -> Iterator[Drawing]:
    icons = shelf.icons(source.id)
    dropped = _in_categories(icons, source.drop_categories).union(source.drop_names)
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
            author=shelf.attribution(source),
            weight=1.0,
            art=wrap_icon(icon, icons, shelf.size),
        )


def prepare(art: str | bytes, size: int) -> str | bytes:
    """The art as the renderer wants it: an SVG on a canvas of the right size, or a picture."""
    if isinstance(art, bytes) or f'width="{size}" height="{size}" viewBox' in art[:300]:
        return art
    return resize_svg(art, size)
