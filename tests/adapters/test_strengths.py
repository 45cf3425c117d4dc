"""Strengths by blocks: what a pattern matches, and that one that matches nothing says so."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mezzotint.adapters.deltas import Delta
from mezzotint.adapters.lora import Fitted, Target
from mezzotint.adapters.strengths import Rule, StrengthError, by_blocks, name, read_rule
from mezzotint.apps import cli, values
from mezzotint.checkpoints.keys import Part
from mezzotint.engine import prompts

MODULES = (
    "network.joint.0.picture.qkv",
    "network.joint.0.text.qkv",
    "network.joint.1.picture.qkv",
    "network.joint.10.picture.out",
    "network.single.1.inward",
    "text.layers.0.qkv",
    "t5.layers.0.out",
)


def fitted() -> list[Fitted]:
    delta = Delta("lora", {"down": torch.ones(1, 1), "up": torch.ones(1, 1)})
    pairs = [module.split(".", 1) for module in MODULES]
    return [Fitted(Target(part, Part(f"{rest}.weight")), delta) for part, rest in pairs]


def found(*rules: str) -> dict[str, float]:
    groups = by_blocks(fitted(), 0.8, [read_rule(rule) for rule in rules])
    return {name(each.target): strength for deltas, strength in groups for each in deltas}


@pytest.mark.parametrize(
    ("rules", "wanted"),
    [
        ((), [0.8] * 7),
        (("te=0.5",), [0.8] * 5 + [0.5] * 2),
        (("denoiser=0",), [0] * 5 + [0.8] * 2),
        (("unet=1", "te=-1"), [1] * 5 + [-1] * 2),
        (("text=0.1",), [0.8] * 5 + [0.1, 0.8]),
        (("network.joint.1=0.2",), [0.8, 0.8, 0.2] + [0.8] * 4),  # and not block 10
        (("network.joint.*.picture=0.2",), [0.2, 0.8, 0.2, 0.2] + [0.8] * 3),
        (("*.qkv=0.3",), [0.3] * 3 + [0.8] * 2 + [0.3, 0.8]),
        (("network.joint.1?=0.3",), [0.8] * 3 + [0.3] + [0.8] * 3),
        (("network=0.1", "network.joint.0=0.9"), [0.9, 0.9, 0.1, 0.1, 0.1, 0.8, 0.8]),
        (("network.joint.0=0.9", "network=0.1"), [0.1] * 5 + [0.8] * 2),  # the last counts
    ],
)
def test_patterns(rules: tuple[str, ...], wanted: list[float]) -> None:
    assert found(*rules) == dict(zip(MODULES, wanted, strict=True))
    assert len(found(*rules)) == len(MODULES)


@pytest.mark.parametrize(
    ("rule", "nearest"),
    [
        ("network.joinr.0=1", r"nearest: network.joint.0\)"),
        ("texts=1", r"nearest: text\)"),
        ("network.single.7=1", r"nearest: network.single.1\)"),
        ("te2=0", r"nearest: te\)"),
        ("zzzzzz=0", r"nearest: denoiser, network\)"),
    ],
)
def test_a_pattern_that_matches_nothing_says_what_is_near(rule: str, nearest: str) -> None:
    pattern = rule.split("=")[0]
    with pytest.raises(StrengthError, match=f"'{pattern}' matches nothing .*{nearest}"):
        found(rule)
    groups = [each for each in fitted() if each.target.network == "network"]
    with pytest.raises(StrengthError, match="'te' matches nothing that this adapter changes"):
        by_blocks(groups, 1.0, [Rule("te", 0.5)])


@pytest.mark.parametrize("text", ["te", "te=", "=1", "te=x", "te=nan", "te=inf"])
def test_what_is_no_rule(text: str) -> None:
    with pytest.raises(StrengthError, match="write PATTERN=NUMBER, as te=0.5"):
        read_rule(text)


def test_in_a_prompt() -> None:
    read = prompts.read("a fox <lora:ink style:0.8:te=0.5:network.*.qkv=0> in snow <lora:b:te=1>")
    first, second = read.adapters
    assert (first.name, first.strength) == ("ink style", 0.8)
    assert first.rules == (Rule("te", 0.5), Rule("network.*.qkv", 0.0))
    assert (second.name, second.strength, second.rules) == ("b", 1.0, (Rule("te", 1.0),))
    with pytest.raises(prompts.PromptError, match="'te=x' is no strength of blocks"):
        prompts.read("a fox <lora:ink:0.8:te=x>")


def test_on_the_command_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert values.lora("a.safetensors:0.5:te=0.1:unet=1") == (
        Path("a.safetensors"),
        0.5,
        (Rule("te", 0.1), Rule("unet", 1.0)),
    )
    assert values.lora("a.safetensors:te=0.1") == (Path("a.safetensors"), 1.0, (Rule("te", 0.1),))
    (tmp_path / "b:x=1.safetensors").write_bytes(b"")  # a file may be called so
    assert values.lora("b:x=1.safetensors") == (Path("b:x=1.safetensors"), 1.0, ())
    assert values.blocks("te=0,network.*=1") == (Rule("te", 0.0), Rule("network.*", 1.0))
    assert cli.main(["generate", "a fox", "--lora-blocks", "te=0"]) == 2
    assert "--lora-blocks needs --lora" in capsys.readouterr().err
    assert cli.main(["generate", "a fox", "--lora-blocks", "te"]) == 2
    assert "'te' is no strength of blocks" in capsys.readouterr().err
