"""What follows of several licences: the strictest, never less, and what cannot be kept together."""

from __future__ import annotations

import json
from itertools import permutations

import pytest

from mezzotint.engine.licences import record
from mezzotint.provenance.licence_table import LICENCES, find
from mezzotint.provenance.licences import LicenceError, Record
from mezzotint.provenance.terms import (
    Licensed,
    allowed,
    as_row,
    check_commercial,
    combine,
    named,
    parts_of,
)

NC, COMMUNITY, FLUX = "CC-BY-NC-4.0", "stabilityai-ai-community", "FLUX.1 [dev] Non-Commercial"
MINE = Record("bought", "you", "", ("Ada",), "yes")


def part(said: str, name: str = "a.pt", by: str = "file") -> Licensed:
    return Licensed("lora", name, Record(said, by))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("said", "names"),
    [
        ("MIT", ["MIT"]),
        ("MIT AND CC0-1.0", ["MIT", "CC0-1.0"]),
        (f"{NC} OR MIT", ["MIT"]),  # the freer one may be chosen
        (f"(CC0-1.0 OR {NC}) AND {COMMUNITY}", ["CC0-1.0", COMMUNITY]),
        (f"(({NC} AND MIT) OR what) AND CC0-1.0", ["what", "CC0-1.0"]),
        ("FLUX.1 [dev] Non-Commercial License", ["flux-1-dev-non-commercial-license"]),
        ("unknown", []),
        ("other", []),
        ("my own terms", ["my own terms"]),
        ("MIT AND", ["MIT AND"]),
        ("(what AND MIT", ["(what AND MIT"]),
        ("MIT) AND CC0-1.0", ["MIT) AND CC0-1.0"]),
        ("(" * 200, ["(" * 200]),
        ("MIT WITH exceptions", ["MIT WITH exceptions"]),
    ],
)
def test_expressions(said: str, names: list[str]) -> None:
    found = named(said)
    assert [each.name if each.row is None else each.row.id for each in found] == names
    assert all(each.row is find(each.name) for each in found)


@pytest.mark.parametrize(
    ("parts", "commercial"),
    [
        (["MIT", "CC-BY-4.0"], "yes"),
        (["MIT", COMMUNITY], "conditional"),
        (["MIT", COMMUNITY, "unknown"], "unknown"),
        (["MIT", COMMUNITY, "my own terms"], "unknown"),
        (["MIT", COMMUNITY, "unknown", NC], "no"),
        ([FLUX, "MIT"], "no"),
        ([], "unknown"),
    ],
)
def test_the_strictest_holds_in_every_order(parts: list[str], commercial: str) -> None:
    for order in permutations(parts):
        terms = combine([part(said) for said in order])
        assert terms.commercial == commercial
        assert (terms.because == ()) == (commercial == "yes" or not parts)


def test_all_that_is_asked_is_told() -> None:
    terms = combine([part("CC-BY-SA-4.0", "a"), part(COMMUNITY, "b"), Licensed("x", "c", MINE)])
    assert terms.credit == (
        *("Ada", "a, CC Attribution-ShareAlike 4.0", "b, Stability AI Community License"),
    )
    assert [line.split(":")[0] for line in terms.share_alike] == ["CC Attribution-ShareAlike 4.0"]
    assert "Acceptable Use Policy" in terms.restrictions[0] and len(terms.restrictions) == 1
    assert "must not train" in terms.rules[0] and terms.conflicts == ()
    assert terms.because[0].startswith("b is under Stability AI Community License, whose")
    twice = combine([part(COMMUNITY, "a"), part(COMMUNITY, "b")])
    assert len(twice.rules) == 1 and len(twice.because) == 2


@pytest.mark.parametrize("one", LICENCES, ids=lambda row: row.id)
def test_conflicts(one: object) -> None:
    """Two share-alike licences, or one beside what is not commercial, cannot both be kept."""
    row = next(row for row in LICENCES if row is one)
    for other in LICENCES:
        found = combine([part(row.id, "a"), part(other.id, "b")]).conflicts
        both = row.share_alike and other.share_alike
        closed = (row.share_alike and row.commercial != "no" and other.commercial == "no") or (
            other.share_alike and other.commercial != "no" and row.commercial == "no"
        )
        assert len(found) == (0 if row is other else both + closed)


# --- --commercial -----------------------------------------------------------------------------


def test_what_may_be_used_commercially() -> None:
    assert check_commercial([part("MIT"), Licensed("model", "m", MINE)]) == ()
    (line,) = check_commercial([part("MIT"), part(COMMUNITY, "sd3.safetensors")])
    assert line.startswith("sd3.safetensors is under Stability") and "1,000,000 USD" in line
    limited = Record("friends", "you", "", (), "conditional", "below 10 copies")
    assert check_commercial([Licensed("lora", "a", limited)]) == (
        "a is under friends, whose commercial use has a condition: below 10 copies",
    )


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (Record(NC, "file"), "a.pt is under CC Attribution-NonCommercial 4.0, .* section 2"),
        (Record(FLUX, "card"), "sections 1\\(c\\), 4\\(a\\).*Black Forest Labs"),
        (Record(), "nobody states the licence of a.pt: .* a.pt.licence.toml"),
        (Record(likely="MIT"), r"nobody states .*\(its kind was released under MIT License\)"),
        (Record("my terms", "file"), "'my terms', whose terms are not known here: .*toml"),
        (Record("MIT AND unknown", "file"), "nobody states the licence of a part of a.pt: .*toml"),
        (Record("MIT", "you", "", (), "no"), "which does not allow commercial use, as you state"),
    ],
)
def test_what_may_not(record: Record, message: str) -> None:
    parts = [part("MIT", "m"), part(COMMUNITY, "c"), Licensed("lora", "a.pt", record)]
    with pytest.raises(LicenceError, match=message) as error:
        check_commercial(parts)
    assert "\n" not in str(error.value) and str(error.value).startswith("--commercial: ")


def test_what_is_forbidden_is_said_before_what_is_unknown() -> None:
    with pytest.raises(LicenceError, match="b is under CC Attribution-NonCommercial"):
        check_commercial([part("unknown", "a"), part(NC, "b")])


# --- in recipes -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "known",
    [
        record("icons"),
        Record(),
        Record(likely="MIT"),
        Record("MIT", "text", "", ("A", "B")),
        Record("friends", "you", "", (), "conditional", "below 10 copies"),
    ],
)
def test_a_recipe_keeps_a_part(known: Record) -> None:
    whole = Licensed("lora", "a.pt", known)
    row = json.loads(json.dumps(as_row(whole)))
    assert "" not in row.values() and row["licence"] == known.said
    assert parts_of({"licences": [row, row]}) == [whole]
    assert parts_of({"pictures": [{"licences": [row]}, {"licences": [row]}]}) == [whole]
    assert allowed(parts_of({"licences": [row]})[0].record) == allowed(known)


@pytest.mark.parametrize(
    "licences",
    [
        *(None, 4, "MIT", {}, [None, 4, "x"]),
        [{"option": 4, "name": ["x"], "licence": None, "by": "me", "commercial": "sure"}],
        [
            {
                "option": "o",
                "name": "n\x1b[2J",
                "licence": "x" * 9000,
                "attribution": [4, "a\nb"] * 99,
            }
        ],
        [{"licence": "MIT", "name": str(n)} for n in range(5000)],
    ],
)
def test_a_forged_recipe_does_no_harm(licences: object) -> None:
    found = parts_of({"licences": licences})
    assert len(found) <= 64
    for each in found:
        texts = (*each[:2], each.record.said, each.record.by, *each.record.attribution)
        assert all(text.isprintable() and len(text) <= 400 for text in texts)
        assert each.record.commercial == "" and each.record.by == ""
    assert combine(found).commercial in ("unknown", "yes")
