"""Prompts: every notation, alone and nested; and what cannot be read says where."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from mezzotint.engine.prompts import Adapter, PromptError, Span, choose, read


def said(prompt: str, step: int = 0, steps: int = 10) -> list[list[tuple[str, float]]]:
    chunks = read(prompt).at(step, steps)
    return [[(span.text, round(span.weight, 6)) for span in chunk] for chunk in chunks]


@pytest.mark.parametrize(
    ("prompt", "spans"),
    [
        ("a red fox", [("a red fox", 1)]),
        ("", []),
        ("a (red) fox", [("a ", 1), ("red", 1.1), (" fox", 1)]),
        ("((red))", [("red", 1.21)]),
        ("(red:1.5) fox", [("red", 1.5), (" fox", 1)]),
        ("(red: .5 )", [("red", 0.5)]),
        ("(a (b:2) c:0.5)", [("a ", 0.5), ("b", 1.0), (" c", 0.5)]),
        ("[red]", [("red", round(1 / 1.1, 6))]),
        ("[(red)]", [("red", 1.0)]),
        (r"\(red\) \[x\] \\", [("(red) [x] \\", 1)]),
        ("time: noon", [("time: noon", 1)]),
        ("a | b", [("a | b", 1)]),
        ("(ratio 3:4)", [("ratio 3", 4.0)]),
        (r"(ratio 3\:4)", [("ratio 3:4", 1.1)]),
        ("(note: this)", [("note: this", 1.1)]),
        ("a < b", [("a < b", 1)]),
        ("(word:1.2)", [("word", 1.2)]),
        ("(word:-1)", [("word", -1)]),
        ("(a:1.2:1.5)", [("a:1.2", 1.5)]),
        ("(a:1,2)", [("a:1,2", 1.1)]),
        ("()", []),
        ("(((a)))", [("a", 1.331)]),
        ("(a (b:1.2) [c]:2)", [("a ", 2), ("b", 2.4), (" ", 2), ("c", round(2 / 1.1, 6))]),
        (r"(a \(b\):1.2)", [("a (b)", 1.2)]),
        (r"\\(a)", [("\\", 1), ("a", 1.1)]),
        ("a\\", [("a\\", 1)]),
        ("(embedding:ugly-v1.0:1.3)", [("embedding:ugly-v1.0", 1.3)]),
        ("(a, embedding:x, b:0.5)", [("a, embedding:x, b", 0.5)]),
        ("[embedding:x]", [("embedding:x", round(1 / 1.1, 6))]),
        ("<notalora>", [("<notalora>", 1)]),
    ],
)
def test_weights(prompt: str, spans: list[tuple[str, float]]) -> None:
    assert said(prompt) == [spans]


def test_what_changes_on_the_way() -> None:
    prompt = "a [fox:wolf:0.4] here"
    texts = ["".join(text for text, _ in said(prompt, step)[0]) for step in range(10)]
    assert texts == ["a fox here"] * 4 + ["a wolf here"] * 6
    assert read(prompt).changes(10) == (0, 4)
    assert said("[wolf:3]x", 2) == [[("x", 1)]] and said("[wolf:3]x", 3) == [[("wolfx", 1)]]
    assert said("[fox::0.5]", 4) == [[("fox", 1)]] and said("[fox::0.5]", 5) == [[]]
    assert [said("[a|b|c]", n)[0][0][0] for n in range(4)] == ["a", "b", "c", "a"]
    assert read("[a|b]").changes(3) == (0, 1, 2)
    assert read("plain").changes(10) == (0,)


def test_a_share_of_the_steps_is_what_is_written() -> None:
    """0.07 * 100 is 7.000000000000001 and 0.29 * 100 is 28.999999999999996."""
    for steps in (10, 25, 50, 100):
        for number in range(steps):
            assert read(f"[a:b:{number / steps}]").changes(steps)[1:] == ((number,) * (number > 0))
    assert read("[a:b:0.41]").changes(10) == (0, 5)
    assert read("[a:b:12]").changes(20) == (0, 12) and read("[a:b:12]").changes(12) == (0,)


def test_they_nest() -> None:
    prompt = "([fox:(wolf:2):0.5]:0.5)"
    assert said(prompt, 0) == [[("fox", 0.5)]] and said(prompt, 5) == [[("wolf", 1.0)]]
    assert said("[[a|b]:c:0.5]", 1) == [[("b", 1)]] and said("[[a|b]:c:0.5]", 7) == [[("c", 1)]]


def test_breaks() -> None:
    assert said("a BREAK (b) BREAKFAST") == [[("a ", 1)], [(" ", 1), ("b", 1.1), (" BREAKFAST", 1)]]
    assert said("BREAK") == [[], []]
    assert said("(a BREAK b:1.2)") == [[("a ", 1.2)], [(" b", 1.2)]]
    assert said("[a BREAK b:c:0.5]", 0) == [[("a ", 1)], [(" b", 1)]]
    assert said("[a BREAK b:c:0.5]", 5) == [[("c", 1)]]


def test_adapters_are_taken_out() -> None:
    prompt = read("a fox <lora:ink style:0.8>, <lora:x> (b<lora:y:-1>)")
    assert prompt.adapters == (
        Adapter("lora", "ink style", 0.8),
        Adapter("lora", "x", 1.0),
        Adapter("lora", "y", -1.0),
    )
    assert read("<lora:v1.5_ink-2: .8>[a|b]").adapters == (Adapter("lora", "v1.5_ink-2", 0.8),)
    assert prompt.at(0, 1) == ((Span("a fox ,  "), Span("b", 1.1)),)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        ("a (red fox", r"near 'a (red fox': '(' is not closed: write \( for itself"),
        ("a red) fox", r"')' has no partner: write \) for itself"),
        ("[red", "'[' is not closed"),
        ("red]", "']' has no partner"),
        ("(a]", "']' has no partner"),
        ("[a:b]", "write [before:after:when]"),
        ("[a:b:-0.5]", "when from 0 on"),
        ("<lora:x:strong>", "'strong' is no strength"),
        ("<lora:x:nan>", "'nan' is no strength"),
        ("[a|b:0.5]", "write [before:after:when], when from 0 on"),
        ("[a|b:c]", "write [before:after:when], [one|other]"),
        ("[a:b:c:0.5]", "write [before:after:when], [one|other]"),
        ("[<lora:x>:0.5]", "an adapter acts in all steps"),
        ("[a <lora:x>|b]", "an adapter acts in all steps"),
        ("[(b<lora:x>):c:3]", "an adapter acts in all steps"),
    ],
)
def test_what_cannot_be_read_says_where(prompt: str, message: str) -> None:
    with pytest.raises(PromptError) as error:
        read(prompt)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_choices_are_made_by_the_seed() -> None:
    def lines(name: str) -> Sequence[str]:
        return {"animal": ["fox", "", "{big|small} wolf"], "loop": ["__loop__"], "empty": [" "]}[
            name
        ]

    prompt = "a {red|blue} __animal__ {in|on {snow|ice}}"
    made = {choose(prompt, seed, lines) for seed in range(200)}
    assert choose(prompt, 7, lines) == choose(prompt, 7, lines)
    assert len(made) == 2 * 3 * 3
    assert "a red fox on snow" in made and "a blue small wolf in" in made
    assert choose(r"\{a|b\}", 0, lines) == r"\{a|b\}"
    assert {choose("{[a|b]|(c:1.2)}", seed, lines) for seed in range(20)} == {"[a|b]", "(c:1.2)"}
    assert {choose("{[a|b|c}", seed, lines) for seed in range(30)} == {"[a", "b", "c"}
    assert {choose(r"{a\|b|}", seed, lines) for seed in range(20)} == {r"a\|b", ""}
    assert choose("{}{a}", 0, lines) == "a"
    twice = {choose("__animal____animal__", seed, lines) for seed in range(200)}
    assert "foxfox" in twice and len(twice) == 9
    assert choose("snake_case __ x", 0, lines) == "snake_case __ x"
    for bad, message in (("{a", "without its partner"), ("a}", "without its partner")):
        with pytest.raises(PromptError, match=message):
            choose(bad, 0, lines)
    for other in ("{2$$a|b|c}", "{1-2$$ and $$a|b}", "{0.5::red|blue}", "x {a|{b|3::c}}"):
        with pytest.raises(PromptError, match=r"is not read here: of \{a\|b\} one is taken"):
            choose(other, 0, lines)
    with pytest.raises(PromptError, match="without end"):
        choose("__loop__", 0, lines)
    with pytest.raises(PromptError, match="__empty__ has no lines"):
        choose("__empty__", 0, lines)
