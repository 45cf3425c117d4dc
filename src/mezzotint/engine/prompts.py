"""Prompts as users write them: weights, changes on the way, choices, adapters.

| written | means |
|---|---|
| ``(fox)``, ``((fox))``, ``(fox:1.3)`` | weight 1.1, 1.21, 1.3 |
| ``[fox]`` | weight 1 / 1.1 |
| ``[fox:wolf:0.4]`` | fox, from 40 % of the steps on wolf; ``[wolf:0.4]``, ``[fox::0.4]`` |
| ``[fox:wolf:8]`` | the same from step 8 on |
| ``[fox|wolf]`` | one, then the other, step by step |
| ``BREAK`` | what follows is encoded on its own |
| ``{red|blue|green}`` | one of them, by the seed |
| ``__animal__`` | a line of the file ``animal.txt``, by the seed |
| ``embedding:name`` | the word that a file has learnt (textual inversion) |
| ``<lora:name:0.8>`` | with this adapter at this strength |
| ``<lora:name:0.8:te=0.5>`` | and at another on some blocks (:mod:`mezzotint.adapters.strengths`) |
| ``\\(``, ``\\[``, ``\\{``, ``\\<``, ``\\\\`` | the character itself |

The notation is that of the web interfaces that made it common; unlike there, a bracket that has
no partner is an error, and so is an adapter that is asked for in some of the steps.
"""

from __future__ import annotations

import math
import random
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from mezzotint.adapters.strengths import Rule, StrengthError, read_rule

STRONGER = 1.1
"""What a round bracket multiplies a weight by, and a square one divides."""


class PromptError(ValueError):
    """A prompt cannot be read; one line that says where and what to write instead."""


@dataclass(frozen=True)
class Span:
    """Text with a weight."""

    text: str
    weight: float = 1.0


@dataclass(frozen=True)
class Weighted:
    nodes: tuple[Node, ...]
    factor: float


@dataclass(frozen=True)
class Switched:
    """``before`` up to a point, then ``after``; when: a share of the steps, or a step's number."""

    before: tuple[Node, ...]
    after: tuple[Node, ...]
    when: float

    def step(self, steps: int) -> int:
        """The first step, counted from 0, that sees ``after``."""
        if self.when >= 1:
            return int(self.when)
        # 0.07 * 100 is a little more than 7: what is said in hundredths is meant so.
        return math.ceil(round(self.when * steps, 6))


@dataclass(frozen=True)
class Alternating:
    choices: tuple[tuple[Node, ...], ...]


@dataclass(frozen=True)
class Break:
    """What follows is encoded on its own."""


Node = Span | Weighted | Switched | Alternating | Break


@dataclass(frozen=True)
class Adapter:
    """An adapter that a prompt asks for."""

    kind: str
    name: str
    strength: float
    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True)
class Prompt:
    """A prompt, read: what is said, and which adapters it wants."""

    nodes: tuple[Node, ...]
    adapters: tuple[Adapter, ...] = ()

    def at(self, step: int, steps: int) -> tuple[tuple[Span, ...], ...]:
        """What is said at a step (from 0): spans with their weights, a tuple a chunk."""
        chunks: list[list[Span]] = [[]]
        for span in _spans(self.nodes, 1.0, step, steps):
            if span is None:
                chunks.append([])
            elif chunks[-1] and chunks[-1][-1].weight == span.weight:
                chunks[-1][-1] = Span(chunks[-1][-1].text + span.text, span.weight)
            else:
                chunks[-1].append(span)
        return tuple(tuple(chunk) for chunk in chunks)

    def changes(self, steps: int) -> tuple[int, ...]:
        """The steps, from 0 on, at which something else is said than at the step before."""
        said = [self.at(step, steps) for step in range(steps)]
        return tuple(n for n in range(steps) if n == 0 or said[n] != said[n - 1])


def _spans(nodes: Sequence[Node], weight: float, step: int, steps: int) -> Iterator[Span | None]:
    """The spans of a step in their order, None for a break."""
    for node in nodes:
        match node:
            case Span(text, own):
                yield Span(text, own * weight)
            case Break():
                yield None
            case Weighted(inner, factor):
                yield from _spans(inner, weight * factor, step, steps)
            case Alternating(choices):
                yield from _spans(choices[step % len(choices)], weight, step, steps)
            case Switched():
                chosen = node.before if step < node.step(steps) else node.after
                yield from _spans(chosen, weight, step, steps)


# --- reading ----------------------------------------------------------------------------------

_TOKENS = re.compile(
    r"\\(?P<plain>[\\()\[\]{}<>|:])"
    r"|<(?P<kind>\w+):(?P<name>[^:<>]+)(?::(?P<strength>[^:<>=]+))?"
    r"(?P<rules>(?::[^:<>=]*=[^:<>]*)*)>"
    r"|(?P<stop>\bBREAK\b)"
    r"|(?P<bracket>[()\[\]|:])"
    r"|(?P<learnt>\bembedding:[\w.+-]*\w)"
    r"|(?P<text>[^\\()\[\]|:<]+?(?=\bBREAK\b|\bembedding:)|[^\\()\[\]|:<]+|.)",
    re.DOTALL,
)
_NUMBER = re.compile(r"\s*[+-]?(\d+\.?\d*|\.\d+)\s*")


@dataclass
class _Reader:
    """A recursive-descent reader over the tokens of a prompt."""

    source: str
    tokens: list[re.Match[str]]
    place: int = 0

    def bracket(self) -> str | None:
        """The bracket or separator that comes next, if one does."""
        if self.place == len(self.tokens):
            return None
        return self.tokens[self.place]["bracket"]

    def fail(self, what: str, where: int) -> PromptError:
        start = max(0, where - 12)
        near = self.source[start : where + 12].replace("\n", " ")
        return PromptError(f"the prompt near {near!r}: {what}")

    def nodes(self, ends: str, adapters: list[Adapter]) -> tuple[Node, ...]:
        """Nodes up to one of ``ends``, which is not taken, or to the end of the prompt."""
        found: list[Node] = []

        def say(text: str) -> None:
            if found and isinstance(found[-1], Span):
                found[-1] = Span(found[-1].text + text)
            else:
                found.append(Span(text))

        while self.place < len(self.tokens):
            token = self.tokens[self.place]
            sign = token["bracket"]
            if sign is not None and sign in ends:
                break
            self.place += 1
            if sign == "(":
                found.append(self._round(token.start(), adapters))
            elif sign == "[":
                found.append(self._square(token.start(), adapters))
            elif sign in (")", "]"):
                raise self.fail(
                    f"{sign!r} has no partner: write \\{sign} for itself", token.start()
                )
            elif token["kind"] is not None:
                adapters.append(self._adapter(token))
            elif token["stop"] is not None:
                found.append(Break())
            else:
                say(token["plain"] or sign or token["learnt"] or token["text"])
        return tuple(found)

    def _adapter(self, token: re.Match[str]) -> Adapter:
        strength = token["strength"]
        if strength is not None and not _NUMBER.fullmatch(strength):
            raise self.fail(f"{strength!r} is no strength: write a number", token.start())
        try:
            rules = tuple(read_rule(text) for text in token["rules"].split(":")[1:])
        except StrengthError as error:
            raise self.fail(str(error), token.start()) from None
        return Adapter(token["kind"], token["name"].strip(), float(strength or 1), rules)

    def _close(self, sign: str, start: int) -> None:
        if self.bracket() != sign:
            opened = "(" if sign == ")" else "["
            raise self.fail(f"{opened!r} is not closed: write \\{opened} for itself", start)
        self.place += 1

    def _number(self) -> float | None:
        """The number that comes next, if it is all up to the next bracket."""
        if self.place < len(self.tokens):
            text = self.tokens[self.place]["text"]
            if text is not None and _NUMBER.fullmatch(text):
                self.place += 1
                return float(text)
        return None

    def _round(self, start: int, adapters: list[Adapter]) -> Weighted:
        found: list[Node] = []
        factor = STRONGER
        while True:
            found += self.nodes("):", adapters)
            if self.bracket() != ":":
                break
            self.place += 1
            before = self.place
            number = self._number()
            if number is not None and self.bracket() == ")":
                factor = number
                break
            self.place = before  # a colon that is only a colon
            found.append(Span(":"))
        self._close(")", start)
        return Weighted(tuple(found), factor)

    def _square(self, start: int, adapters: list[Adapter]) -> Node:
        count = len(adapters)
        node = self._bracketed(start, adapters)
        if len(adapters) > count and not isinstance(node, Weighted):
            raise self.fail("an adapter acts in all steps: ask for it outside of [ ]", start)
        return node

    def _bracketed(self, start: int, adapters: list[Adapter]) -> Node:
        parts: list[tuple[Node, ...]] = [self.nodes("]|:", adapters)]
        signs: set[str] = set()
        while (sign := self.bracket()) in ("|", ":"):
            assert sign is not None
            signs.add(sign)
            self.place += 1
            if sign == ":" and len(parts) <= 2:
                before, number = self.place, self._number()
                if number is not None and self.bracket() == "]":
                    self.place += 1
                    return self._switched(parts, number, signs, start)
                self.place = before
            parts.append(self.nodes("]|:", adapters))
        self._close("]", start)
        if signs == {"|"}:
            return Alternating(tuple(parts))
        if signs:
            raise self.fail(
                "write [before:after:when], [one|other] or [weaker]; \\: for a plain colon", start
            )
        return Weighted(parts[0], 1 / STRONGER)

    def _switched(
        self, parts: list[tuple[Node, ...]], when: float, signs: set[str], start: int
    ) -> Switched:
        if when < 0 or "|" in signs:
            raise self.fail("write [before:after:when], when from 0 on", start)
        before, after = parts if len(parts) == 2 else ((), parts[0])
        return Switched(before, after, when)


def read(prompt: str) -> Prompt:
    """Read a prompt without choices (see :func:`choose`).

    Raises:
        PromptError: a bracket without its partner, or a number that is none.
    """
    reader = _Reader(prompt, list(_TOKENS.finditer(prompt)))
    adapters: list[Adapter] = []
    nodes = reader.nodes("", adapters)
    return Prompt(nodes, tuple(adapters))


# --- choices ----------------------------------------------------------------------------------

_CHOICE = re.compile(r"(?<!\\)\{((?:\\.|[^{}\\])*)\}")
_FILE = re.compile(r"__([\w/-]+?)__")
_OPTIONS = re.compile(r"(?:\\.|\[(?:\\.|[^\]\\])*\]|<[^<>]*>|[^|\\])*", re.DOTALL)
_DRAWN = re.compile(r"\s*(?:[\d-]+\$\$|(?:\d+\.?\d*|\.\d+)::)")
_MOST = 1000


def _options(text: str) -> list[str]:
    """What stands between the bars of a choice; a bar within square brackets is an alternation's.

    Raises:
        PromptError: it is written as in another notation, with numbers or weights.
    """
    found: list[str] = []
    place = -1
    while place < len(text):
        option = _OPTIONS.match(text, place + 1)
        assert option is not None  # it matches nothing at least
        found.append(option[0])
        place = option.end()
    for option in found:
        if drawn := _DRAWN.match(option):
            raise PromptError(
                f"{{{text}}}: {drawn[0].strip()!r} is not read here: of {{a|b}} one is taken, each "
                "as likely; write one more than once, or several choices"
            )
    return found


def choose(prompt: str, seed: int, lines: Callable[[str], Sequence[str]]) -> str:
    """The prompt with every ``{a|b}`` and ``__name__`` decided; the same seed decides the same.

    Args:
        lines: the lines of a wildcard's file, by its name.

    Raises:
        PromptError: braces without a partner, or files that name each other without end.
    """
    dice = random.Random(f"mezzotint/wildcards/{seed}")
    for _ in range(_MOST):
        if found := _CHOICE.search(prompt):
            chosen = dice.choice(_options(found[1]))
            prompt = prompt[: found.start()] + chosen + prompt[found.end() :]
        elif named := _FILE.search(prompt):
            options = [line for line in lines(named[1]) if line.strip()]
            if not options:
                raise PromptError(f"the wildcard __{named[1]}__ has no lines")
            prompt = prompt[: named.start()] + dice.choice(options) + prompt[named.end() :]
        elif brace := re.search(r"(?<!\\)[{}]", prompt):
            raise PromptError(
                f"the prompt has {brace[0]!r} without its partner: write \\{brace[0]} for itself"
            )
        else:
            return prompt
    raise PromptError("the wildcards of this prompt name each other without end")
