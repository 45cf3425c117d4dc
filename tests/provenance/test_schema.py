"""`docs/recipe.schema.json` describes what our files carry: neither more nor less."""

from __future__ import annotations

import argparse
import copy
import json
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from PIL import Image

from mezzotint.apps import cli
from mezzotint.apps.repeat import LOCAL, NAMED
from mezzotint.modalities.image import read_text
from mezzotint.provenance.recipe import CHUNK, FORMAT

SCHEMA = json.loads((Path(__file__).parents[2] / "docs/recipe.schema.json").read_text("utf-8"))
VALIDATOR = Draft202012Validator(SCHEMA)
DIGEST = "sha256:" + "0" * 64
MORE = {
    "versions": {"mezzotint": "0.1.0", "torch": "2.13.0", "python": "3.11.7"},
    "machine": {"device": "cpu", "kernels": "AVX512", "threads": 1, "precision": "float32"},
    "pixels": {"hash": DIGEST, "size": "64x64", "mode": "RGBA"},
    "licences": [
        {"option": "model", "name": "icons", "licence": "Apache-2.0"},
        {"option": "lora", "name": "a.pt", "licence": "mine", "by": "you", "attribution": ["A"]},
        {"option": "part", "name": "b", "licence": "unknown", "likely": "MIT"},
        {"option": "part", "name": "c", "licence": "c", "commercial": "conditional", "clause": "x"},
    ],
    "marks": {"key": 0},
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A sheet of two, made after a picture."""
    folder = tmp_path_factory.mktemp("made")
    Image.new("RGB", (32, 32), "red").save(folder / "in.png")
    words = ["generate", "a {red|blue} fox", "--image", str(folder / "in.png"), "--steps", "2"]
    more = ["--seed", "3", "-n", "2", "--apg", "--quiet", "-o", f"{folder}/out/"]
    assert cli.main([*words, *more]) == 0
    sheet = next(iter((folder / "out").glob("*sheet*")))
    return json.loads(read_text(sheet)[CHUNK])


def test_the_schema_is_one() -> None:
    Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$defs"]["format"]["const"] == FORMAT


def test_real_documents(made: dict[str, Any]) -> None:
    VALIDATOR.validate(made)
    for picture in made["pictures"]:
        VALIDATOR.validate(picture)
        VALIDATOR.validate(picture | MORE)
        assert picture["energy"]["wh"] > 0
        assert picture["options"]["apg"] is True and len(picture["files"]) == 2


def test_the_options_are_those_of_generate() -> None:
    _, parsers = cli._parsers()
    known = SCHEMA["$defs"]["options"]["properties"]
    actions = {
        action.dest.replace("_", "-"): action
        for action in parsers["generate"]._actions
        if action.dest != "help" and action.dest.replace("_", "-") not in LOCAL
    }
    assert known.keys() == actions.keys()
    for name, action in actions.items():
        several = isinstance(action, argparse._AppendAction)
        kind = "array" if several else "string" if action.nargs != 0 else None
        assert known[name].get("type") == kind and (kind is not None or "const" in known[name]), (
            name
        )
    assert set(SCHEMA["$defs"]["file"]["properties"]["option"]["enum"]) == NAMED.keys()


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("format",), 2),
        (("format",), "1"),
        (("options",), None),
        (("options", "output"), "x.png"),
        (("options", "seed"), 7),
        (("options", "apg"), "true"),
        (("options", "lora"), "a.safetensors"),
        (("options", "lora"), []),
        (("files", 0, "path"), "x"),
        (("files", 0, "name"), "a/b"),
        (("files", 0, "name"), ".."),
        (("files", 0, "fingerprint"), "md5:00"),
        (("files", 0, "option"), "steps"),
        (("pictures",), []),
        (("pixels", "hash"), "sha256:00"),
        (("machine", "threads"), 0),
        (("marks", "key"), -1),
        (("energy", "wh"), -1),
        (("energy", "how"), "guessed"),
        (("energy", "user"), "me"),
        (("energy", "parts", 0, "name"), "disk"),
        (("energy", "grid", "g_per_kwh"), "380"),
    ],
)
def test_what_it_refuses(place: tuple[str | int, ...], value: object, made: dict[str, Any]) -> None:
    document = copy.deepcopy(made["pictures"][0] | MORE)
    VALIDATOR.validate(document)
    inside: Any = document
    for key in place[:-1]:
        inside = inside[key]
    inside[place[-1]] = value
    assert not VALIDATOR.is_valid(document)
