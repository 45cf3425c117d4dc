"""Key maps: every name finds its place, or the error says which does not."""

from __future__ import annotations

import pytest

from mezzotint.checkpoints.files import CheckpointError
from mezzotint.checkpoints.keys import BERT, rename
from mezzotint.networks.bert import Bert, BertConfig

TABLE = {
    "embed.weight": "words.weight",
    "block.{n}.fc.{p}": "layers.{n}.linear.{p}",
    "buffer": None,
    "x.{i}.y.{j}.weight": "grid.{j}.{i}.weight",
}
WANTED = ["words.weight", "layers.0.linear.weight", "layers.12.linear.bias", "grid.4.3.weight"]
STATE = {
    "embed.weight": 1,
    "block.0.fc.weight": 2,
    "block.12.fc.bias": 3,
    "buffer": 4,
    "x.3.y.4.weight": 5,
}


def test_placeholders_carry_over_and_none_is_left_out() -> None:
    assert rename(STATE, TABLE, WANTED) == dict(zip(WANTED, (1, 2, 3, 5), strict=True))


def test_an_unknown_key_names_the_nearest_pattern() -> None:
    with pytest.raises(CheckpointError, match=r"'block\.a\.fc\.weight' \(nearest: block\.\{n\}"):
        rename({**STATE, "block.a.fc.weight": 0}, TABLE, WANTED)
    with pytest.raises(CheckpointError, match=r"unknown key 'block\.0\.fc\.scale'"):
        rename({**STATE, "block.0.fc.scale": 0}, TABLE, WANTED)
    with pytest.raises(CheckpointError, match="unknown key 'embedXweight'"):  # a dot is a dot
        rename({**STATE, "embedXweight": 0}, TABLE, WANTED)


def test_a_missing_key_is_named() -> None:
    state = {name: value for name, value in STATE.items() if name != "block.12.fc.bias"}
    with pytest.raises(CheckpointError, match=r"1 key is missing, .*'layers\.12\.linear\.bias'"):
        rename(state, TABLE, WANTED)


def test_a_key_beyond_the_network_is_an_error() -> None:
    with pytest.raises(CheckpointError, match=r"'layers\.1\.linear\.weight', which this network"):
        rename({**STATE, "block.1.fc.weight": 0}, TABLE, WANTED)


def test_two_keys_for_one_place_are_an_error() -> None:
    table = {**TABLE, "word_embed.weight": "words.weight"}
    with pytest.raises(CheckpointError, match=r"both stand for 'words\.weight'"):
        rename({**STATE, "word_embed.weight": 0}, table, WANTED)


def test_another_depth_of_bert_is_an_error_both_ways() -> None:
    def names(depth: int) -> dict[str, None]:
        config = BertConfig(vocabulary=9, width=8, depth=depth, heads=2, hidden=8, positions=4)
        return dict.fromkeys(Bert(config).state_dict())

    theirs = {
        pattern.format(n=n, p=p): None
        for pattern in BERT
        for n in range(2)
        for p in ("weight", "bias")
    }
    assert rename(theirs, BERT, names(2)) == names(2)
    with pytest.raises(CheckpointError, match="another size"):
        rename(theirs, BERT, names(1))
    with pytest.raises(CheckpointError, match="16 keys are missing"):
        rename(theirs, BERT, names(3))
