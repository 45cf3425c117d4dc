"""Key maps: every name finds its place, or the error says which does not; and back again."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from mezzotint.checkpoints.files import CheckpointError
from mezzotint.checkpoints.keys import (
    BERT,
    MATRIX,
    ROW,
    SWAPPED,
    Part,
    Reader,
    Table,
    parts,
    prefixed,
    to_ours,
    to_theirs,
)
from mezzotint.networks.bert import Bert, BertConfig

Q, K, V = parts("layers.{n}.qkv.{p}", 3)
TABLE: Table = {
    "embed.weight": Part("words.weight", view=ROW),
    "block.{n}.q.{p}": Q,
    "block.{n}.k.{p}": K,
    "block.{n}.v.{p}": V,
    "block.{n}.conv.weight": Part("layers.{n}.linear.weight", view=MATRIX),
    "block.{n}.norm.{p}": Part("layers.{n}.shift_scale.{p}", view=SWAPPED),
    "a{n}.in.weight": Part("joined.{n}", 0, (1, 3)),
    "a{n}.mlp.weight": Part("joined.{n}", 1, (1, 3)),
    "buffer": None,
    "x.{i}.y.{j}.weight": "grid.{j}.{i}.weight",
}
THEIRS = {
    "embed.weight": (1, 5, 4),
    "block.12.q.weight": (2, 4),
    "block.12.v.weight": (2, 4),
    "block.12.k.weight": (2, 4),
    "block.12.conv.weight": (3, 2, 1, 1),
    "block.12.norm.bias": (6,),
    "a0.mlp.weight": (9, 2),
    "a0.in.weight": (3, 2),
    "buffer": (1,),
    "x.3.y.4.weight": (2,),
}
OURS = {
    "words.weight": (5, 4),
    "layers.12.qkv.weight": (6, 4),
    "layers.12.linear.weight": (3, 2),
    "layers.12.shift_scale.bias": (6,),
    "joined.0": (12, 2),
    "grid.4.3.weight": (2,),
}


def tensors(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=generator) for name, shape in shapes.items()}


def test_every_name_finds_its_place() -> None:
    theirs = tensors(THEIRS)
    ours = to_ours(theirs, TABLE, tensors(OURS))
    assert {name: tuple(value.shape) for name, value in ours.items()} == OURS
    qkv = [theirs[f"block.12.{name}.weight"] for name in "qkv"]
    assert torch.equal(ours["layers.12.qkv.weight"], torch.cat(qkv))
    assert torch.equal(ours["joined.0"][:3], theirs["a0.in.weight"])
    assert torch.equal(ours["layers.12.shift_scale.bias"][:3], theirs["block.12.norm.bias"][3:])


def test_there_and_back_changes_no_bit() -> None:
    theirs = tensors(THEIRS)
    back = to_theirs(to_ours(theirs, TABLE, tensors(OURS)), TABLE)
    assert back.keys() == theirs.keys() - {"buffer"}
    assert all(torch.equal(back[name], theirs[name]) for name in back)


def test_a_part_says_which_rows_it_is() -> None:
    found = Reader(TABLE).find("a7.mlp.weight")
    assert found is not None and found.name == "joined.7" and found.rows(12) == slice(3, 12)
    assert Reader(TABLE).find("buffer") is None


def test_a_prefix_on_either_side() -> None:
    table = prefixed(TABLE, "model.", "network.")
    theirs = {f"model.{name}": value for name, value in tensors(THEIRS).items()}
    ours = to_ours(theirs, table, {f"network.{name}": v for name, v in tensors(OURS).items()})
    assert ours.keys() == {f"network.{name}" for name in OURS}


def test_an_unknown_key_names_the_nearest_pattern() -> None:
    theirs, wanted, extra = tensors(THEIRS), tensors(OURS), torch.zeros(1)
    with pytest.raises(CheckpointError, match=r"'block\.a\.q\.weight' \(nearest: block\.\{n\}"):
        to_ours({**theirs, "block.a.q.weight": extra}, TABLE, wanted)
    with pytest.raises(CheckpointError, match=r"unknown key 'block\.0\.q\.scale'"):
        to_ours({**theirs, "block.0.q.scale": extra}, TABLE, wanted)
    with pytest.raises(CheckpointError, match="unknown key 'embedXweight'"):  # a dot is a dot
        to_ours({**theirs, "embedXweight": extra}, TABLE, wanted)
    with pytest.raises(CheckpointError, match="no name for 'words.bias'"):
        to_theirs({"words.bias": extra}, TABLE)


@pytest.mark.parametrize("name", ["block.12.norm.bias", "block.12.k.weight"])
def test_a_missing_key_is_named(name: str) -> None:
    theirs = {key: value for key, value in tensors(THEIRS).items() if key != name}
    with pytest.raises(CheckpointError, match=r"1 key is missing, .*'layers\.12\.(qkv|shift)"):
        to_ours(theirs, TABLE, tensors(OURS))


def test_a_key_beyond_the_network_is_an_error() -> None:
    theirs = {**tensors(THEIRS), "block.1.q.weight": torch.zeros(2, 4)}
    with pytest.raises(CheckpointError, match=r"'layers\.1\.qkv\.weight', which this network"):
        to_ours(theirs, TABLE, tensors(OURS))


def test_two_keys_for_one_place_are_an_error() -> None:
    table = {**TABLE, "word_embed.weight": "words.weight"}
    theirs = {**tensors(THEIRS), "word_embed.weight": torch.zeros(5, 4)}
    with pytest.raises(CheckpointError, match=r"both stand for 'words\.weight'"):
        to_ours(theirs, table, tensors(OURS))


def test_another_depth_of_bert_is_an_error_both_ways() -> None:
    def names(depth: int) -> dict[str, Tensor]:
        config = BertConfig(vocabulary=9, width=8, depth=depth, heads=2, hidden=8, positions=4)
        return Bert(config).state_dict()

    theirs = to_theirs(names(2), BERT)
    assert to_ours(theirs, BERT, names(2)).keys() == names(2).keys()
    with pytest.raises(CheckpointError, match="missing"):
        to_ours(theirs, BERT, names(3))
    with pytest.raises(CheckpointError, match="which this network lacks"):
        to_ours(theirs, BERT, names(1))
