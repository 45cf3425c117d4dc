"""Read the clip art: free drawings whose titles are often templates, foreign or missing."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from corpus_fetch import members
from corpus_shelf import Drawing, Shelf, Source
from corpus_words import concept, name_label, plain, singular, useful_tags

_PREFIX = "usr/share/openclipart/svg/"
_DC = "{http://purl.org/dc/elements/1.1/}"
_PUBLIC_DOMAIN = re.compile(r"public\s?domain", re.IGNORECASE)
_NEEDS_MORE = re.compile(rb"<(?:svg:)?(?:text|image|flowRoot)\b")  # fonts, or photographs
_OFTEN = 3  # a title that more files carry than this names a collection
_VAGUE = {
    "action", "actions", "advertising", "animal", "animals", "app", "application", "apps", "art",
    "back", "black", "blue", "buttons", "clip", "clipart", "color", "computer", "decoration",
    "decorations", "desktop", "device", "devices", "direction", "duplicates", "education", "eggs",
    "electronics", "emblems", "equipment", "etiquette", "examples", "fantasy", "filesystems",
    "flat", "food", "general", "generic", "geography", "green", "hardware", "hash", "holiday",
    "icon", "icons", "large", "material", "math", "meats", "menu", "mimetypes", "misc",
    "miscellany", "money", "nature", "object", "office", "old", "one", "orange", "over", "party",
    "people", "plants", "protection", "purple", "recreation", "red", "rules", "science", "shape",
    "shapes", "sign", "signs", "simple", "small", "source", "special", "stock", "style", "svg",
    "symbol", "symbols", "technology", "theme", "tool", "tools", "toys", "transport",
    "transportation", "two", "unsorted", "various", "view", "white", "work", "yellow",
}  # fmt: skip
_JUNK = {"aiga", "aj", "bw", "ganson", "lumen", "mo", "peterm", "roystonlodge", "svg"}
_CUT = {"collection", "elements", "iconset", "rpg", "submission", "svg", "theme"}  # end a name
_FOREIGN = ("rollandin", "guillou")  # authors whose titles are Italian or French throughout
_SMALL = {"a", "an", "and", "at", "by", "for", "from", "in", "no", "of", "on", "the", "to", "with"}


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
        if tag == _DC + "title" and not title:
            title = (node.text or "").strip()
        elif tag == _DC + "subject":
            subjects += [item.text for item in node.iter() if item.text and item.text.strip()]
        elif tag == _DC + "creator" and not creator:
            creator = " ".join("".join(node.itertext()).split())
        elif tag.rpartition("}")[2] == "license":
            free = free or any(_PUBLIC_DOMAIN.search(value) for value in node.attrib.values())
    return ClipInfo(title, tuple(subjects), creator, free)


def strip_creator(stem: str, creator: str) -> list[str]:
    """The words of a file's name without its author and number.

    Names are cut at a fixed length, so the author may be cut too: `bucket_michael_moore_`,
    `dinosauro_architetto_fra_01`.
    """
    people = plain(creator).split()
    words = name_label(stem).split()
    while len(words) > 1 and any(person.startswith(words[-1]) for person in people):
        words.pop()
    end = next((i for i, word in enumerate(words) if i and word in _CUT), len(words))
    return [word for word in words[:end] if word not in _JUNK]


class Clips:
    """The free clips and what is known only from all of them: common titles, rare tags."""

    def __init__(self, shelf: Shelf, source: Source) -> None:
        self.shelf = shelf
        self.clips: list[tuple[str, bytes, ClipInfo]] = []
        for path, content in sorted(members(shelf.paths[source.package])):
            if path.startswith(_PREFIX) and path.endswith(".svg"):
                shelf.found[source.id] += 1
                place = path.removeprefix(_PREFIX)
                outside = not any(place.startswith(f + "/") for f in source.drop_folders)
                info = read_clip_info(content)
                if outside and info.free and not _NEEDS_MORE.search(content):
                    self.clips.append((place, content, info))
        shelf.excluded[source.id] += shelf.found[source.id] - len(self.clips)
        self.titles = Counter(info.title for _, _, info in self.clips)
        self.tag_counts = Counter(plain(s) for _, _, info in self.clips for s in info.subjects)

    def english(self, words: list[str]) -> bool:
        """Every word known, at least one of them a name of something, none of them vague only."""
        content = [word for word in words if word not in _SMALL]
        if set(content) & _CUT:
            return False
        known = self.shelf.names
        if not all(word in known or singular(word) in known for word in content):
            return False
        return any(len(word) > 2 for word in set(content) - _VAGUE)

    def tags(self, place: str, info: ClipInfo) -> list[str]:
        """English subjects, rarest first, then the folders from the inside out."""
        people = set(plain(info.creator).split())
        subjects = dict.fromkeys(plain(subject) for subject in info.subjects)
        good = [s for s in subjects if self.english(s.split()) and not people & set(s.split())]
        good.sort(key=lambda subject: self.tag_counts[subject])
        folders = [plain(part) for part in reversed(place.split("/")[:-1])]
        return [*good, *(f for f in folders if self.english(f.split()))]

    def label(self, place: str, info: ClipInfo) -> str | None:
        """A title of its own if it is English, else the file's name, else the rarest tag."""
        stem = place.rpartition("/")[2].removesuffix(".svg")
        own_title = self.titles[info.title] <= _OFTEN and "clipart by" not in info.title.lower()
        title = name_label(info.title).split() if own_title else []
        file = strip_creator(stem, info.creator)
        known = [word for word in file if word in self.shelf.names or word in _SMALL]
        candidates = [] if _foreign(info) else [title, file, known]
        candidates += [tag.split() for tag in self.tags(place, info)]
        if not own_title:
            candidates.append(name_label(info.title).split())
        for words in candidates:
            while words and words[-1] in _SMALL:
                words = words[:-1]
            if words[:2] == ["hotel", "icon"]:  # a set of signs: "hotel icon in room phone"
                words = words[2:]
            if words and len(words) <= 6 and self.english(words):
                return " ".join(words)
        return None


def _foreign(info: ClipInfo) -> bool:
    return any(name in info.creator.lower() for name in _FOREIGN)


def read_clipart(shelf: Shelf, source: Source) -> Iterator[Drawing]:
    """The clips that are free, drawn in vectors only, and have an English name."""
    everything = Clips(shelf, source)
    for place, content, info in everything.clips:
        label = everything.label(place, info)
        if label is None:
            shelf.excluded[source.id] += 1
            continue
        if not shelf.allowed(source, label, place, info.title, *info.subjects):
            continue
        known = shelf.tags_by_label.get(label, ())
        yield Drawing(
            key=f"{shelf.packages[source.package].spec}:{place}",
            set_id=source.id,
            label=label,
            tags=useful_tags([*everything.tags(place, info), *known], label),
            concept=concept(label),
            style=source.style,
            licence=source.licence,
            author=None,
            weight=1.0,
            art=content.decode("utf-8", "replace"),
        )
