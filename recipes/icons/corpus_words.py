"""Labels, tags, captions and concepts: everything that turns a file name into words."""

from __future__ import annotations

import hashlib
import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

CAPTIONS = 8
_TONE_WEIGHT = 0.2
_GENDERED = {
    "man": "person",
    "woman": "person",
    "men": "people",
    "women": "people",
    "boy": "child",
    "girl": "child",
    "boys": "children",
    "girls": "children",
    "merman": "merperson",
    "mermaid": "merperson",
    "prince": "royal",
    "princess": "royal",
    "mrs": "mx",
    "santa": "mx",
}
_PREPOSITIONS = {"in", "with", "and", "person"}
_KEEP_NUMBER = {"beaufort", "index", "die", "dice", "number", "keycap", "error", "top"}
_NUMBER_WORDS = {"one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"}
_SINGULAR_AS_IT_IS = {"glasses", "lens", "news", "scissors", "series", "species", "sunglasses"}
_TONES = re.compile(r"(?:medium-light|medium-dark|light|medium|dark)(?:-skin)?(?:-tone)?$")


def digest(*parts: str) -> int:
    """A number that depends on nothing but the text: the source of every random choice here."""
    return int(hashlib.sha1("\x1f".join(parts).encode()).hexdigest(), 16)


def plain(text: str) -> str:
    """Lower-case ASCII words with single spaces; accents dropped, apostrophes closed up."""
    ascii_text = unicodedata.normalize("NFKD", text.replace("’", "'"))
    ascii_text = ascii_text.encode("ascii", "ignore").decode().lower().replace("'", "")
    return " ".join(re.findall(r"[a-z0-9]+", ascii_text))


def slug(text: str) -> str:
    """Letters and digits only: "Face with Tears-of Joy" → "facewithtearsofjoy"."""
    return plain(text).replace(" ", "")


# ------------------------------------------------------------------------------------- captions


def captions(key: str, label: str, tags: Sequence[str], style: str) -> list[str]:
    """Eight captions of a drawing, the same ones every time: `label[, 0-4 tags][, style]`.

    The first is "label, style" and the second the bare label; the rest drop tags and the style
    at random, where random means a hash of the drawing's key. Half of them keep the whole style
    ("emoji, noto style"), a quarter only the kind that it starts with ("emoji"), a quarter none.
    """
    kind = style.partition(",")[0]
    result = [f"{label}, {style}", label]
    for turn in range(2, CAPTIONS):
        dice = digest(key, str(turn))
        shuffled = sorted(tags, key=lambda tag: digest(key, str(turn), tag))
        ending = ((), (kind,), (style,), (style,))[dice // 5 % 4]
        result.append(", ".join([label, *shuffled[: dice % 5], *ending]))
    return result


def useful_tags(words: Iterable[str], label: str) -> tuple[str, ...]:
    """Tags as plain words, without those that the label says already, smileys and codes."""
    said = {singular(word) for word in plain(label).split()}
    result: dict[str, None] = {}
    for word in words:
        tag = plain(word.replace("_", " "))
        new = {singular(part) for part in tag.split()} - said
        if new and 3 <= len(tag) <= 28 and not re.search(r"\d", tag):
            result[tag] = None
    return tuple(result)


# ------------------------------------------------------------------------------------- concepts


@cache
def singular(word: str) -> str:
    """Singular enough to make "apples" and "apple" one concept."""
    if len(word) < 4 or word in _SINGULAR_AS_IT_IS or not word.endswith("s"):
        return word
    if word.endswith("ies") and len(word) > 4:
        return word[:-3] + "y"
    if word.endswith(("ches", "shes", "xes", "sses")):
        return word[:-2]
    return word if word.endswith(("ss", "us", "is", "as")) else word[:-1]


def concept(label: str) -> str:
    """What a drawing shows, without style, number, tone and gender: the unit of holding out."""
    words = [singular(word) for word in plain(label).split()]
    return " ".join(words) or plain(label)


def emoji_concept(base_label: str) -> str:
    """The concept of an emoji from its label without a skin tone.

    "woman farmer", "man farmer" and "farmer" are one; so are all kisses and all families.
    """
    head, _, tail = base_label.partition(":")
    if head in {"kiss", "family", "couple with heart"}:
        return head
    text = tail if head in {"person", "man", "woman"} and tail.strip() else base_label
    words = [_GENDERED.get(word, word) for word in plain(text).split()]
    if len(words) > 2 and words[:3:2] == ["person", "person"] and words[1] == "and":
        words = ["people", *words[3:]]
    if len(words) > 1 and words[0] in {"person", "people"} and words[1] not in _PREPOSITIONS:
        words = words[1:]
    return concept(" ".join(words))


def held_out(name: str) -> bool:
    """One concept in twenty is never trained on."""
    return int(hashlib.sha1(name.encode()).hexdigest(), 16) % 20 == 0


# ----------------------------------------------------------------------------------- file names


def name_label(name: str, variants: Sequence[str] = (), number_words: bool = False) -> str:
    """The words of an icon's name without variant suffixes, sizes and running numbers.

    `paginate-filter-9` → "paginate filter", `org-24` → "org", `phone-two` → "phone" where the
    set counts in words (`number_words`). Numbers that mean something (`die-4`) stay.
    """
    words = re.sub(r"([a-z])([A-Z])", r"\1 \2", name)
    parts = plain(words).split()
    while len(parts) > 1:
        last, before = parts[-1], parts[-2]
        number = (last.isdigit() and len(last) < 3) or (number_words and last in _NUMBER_WORDS)
        if last in variants or (number and before not in _KEEP_NUMBER):
            parts.pop()
        else:
            break
    last = parts[-1] if parts else ""
    if re.fullmatch(r"[a-z]{3,}\d{1,2}", last):  # "lettersymbol2"
        parts[-1] = last.rstrip("0123456789")
    return " ".join(parts)


# ---------------------------------------------------------------------------------------- emoji


@dataclass(frozen=True)
class Emoji:
    """What the word lists know of one emoji."""

    label: str
    base: str  # the label without a skin tone
    tags: tuple[str, ...]
    toned: bool
    group: int  # of emojibase; 2 is components, 9 flags


def code(text: str) -> str:
    """One spelling of a sequence of code points: no variation selectors, no leading zeros."""
    return "-".join(
        part.lstrip("0") for part in text.lower().split("-") if part not in {"fe0f", "fe0e"}
    )


class EmojiWords:
    """The labels and tags of emojibase and emojilib, by code point and by name."""

    def __init__(
        self,
        data: Sequence[Mapping[str, object]],
        words: Mapping[str, Sequence[str]],
        subgroups: Mapping[str, str],
    ) -> None:
        self.by_code: dict[str, Emoji] = {}
        self.by_name: dict[str, str] = {}
        extra = {code("-".join(f"{ord(c):x}" for c in char)): w for char, w in words.items()}
        for row in data:
            base = code(str(row["hexcode"]))
            label = str(row["label"])
            tags = [*_strings(row.get("tags")), *extra.get(base, [])[1:]]
            subgroup = subgroups.get(str(row.get("subgroup")), "")
            tags += [part for part in subgroup.split("-") if part not in {"other", "face"}]
            group = row.get("group")
            group = group if isinstance(group, int) else -1
            self._add(base, Emoji(label, label, tuple(tags), False, group))
            skins = row.get("skins")
            for skin in skins if isinstance(skins, list) else []:
                entry = Emoji(str(skin["label"]), label, tuple(tags), True, group)
                self._add(code(str(skin["hexcode"])), entry)

    def _add(self, key: str, entry: Emoji) -> None:
        self.by_code[key] = entry
        self.by_name.setdefault(slug(entry.label), key)

    def add_names(self, names: Mapping[str, object]) -> None:
        """More names for code points: shortcodes, Unicode names, the names of another set."""
        for key, value in names.items():
            if code(key) not in self.by_code:
                continue
            for name in value if isinstance(value, list) else [value]:
                self.by_name.setdefault(slug(str(name)), code(key))

    def find(self, name: str, hexcode: str | None = None) -> Emoji | None:
        """By code point where the set gives one, else by name, else by name without its number."""
        if hexcode is not None:
            return self.by_code.get(code(hexcode))
        for candidate in (name, re.sub(r"-\d+$", "", name)):
            if (key := self.by_name.get(slug(candidate))) is not None:
                return self.by_code[key]
        return None


def _strings(value: object) -> list[str]:
    return [str(item) for item in value] if isinstance(value, list) else []


def read_emoji_words(files: Mapping[str, bytes]) -> EmojiWords:
    """From the members of emojibase-data and emojilib, by path."""
    parsed = {name: json.loads(content) for name, content in files.items()}
    words = EmojiWords(
        parsed["package/en/data.json"],
        parsed["package/dist/emoji-en-US.json"],
        parsed["package/meta/groups.json"]["subgroups"],
    )
    for name in sorted(parsed):
        if "shortcodes" in name:
            words.add_names(parsed[name])
    words.add_names(parsed["package/meta/unicode-names.json"])
    return words


def untoned(name: str) -> tuple[str, bool]:
    """A name without its skin tone, and whether it had one."""
    bare = _TONES.sub("", name).rstrip("-")
    return (bare, True) if "skin" in name and bare and bare != name else (name, False)


def tone_weight(toned: bool) -> float:
    return _TONE_WEIGHT if toned else 1.0


class Splitter:
    """Splits names that were written in one word ("documentwithpicture") by known words."""

    def __init__(self, vocabulary: Iterable[str]) -> None:
        self.known = {word for word in vocabulary if len(word) > 2}
        self.known |= {"a", "x", "of", "on", "in", "up", "no", "to", "tv", "ok"}

    def _cost(self, piece: str) -> float:
        if piece in self.known:
            return 1.0 if len(piece) > 2 else 1.7
        return 1.0 if piece.isdigit() else 3.0 + len(piece)

    def split(self, name: str) -> str:
        """The cheapest split: few words, and what no word covers in one piece."""
        text = slug(name)
        best: list[tuple[float, list[str]]] = [(0.0, [])]
        for end in range(1, len(text) + 1):
            options: list[tuple[float, list[str]]] = []
            for start in range(max(0, end - 18), end):
                cost, pieces = best[start]
                options.append((cost + self._cost(text[start:end]), [*pieces, text[start:end]]))
            best.append(min(options))
        return " ".join(best[-1][1])
