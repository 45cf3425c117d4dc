"""CLIP's tokenizer: the tokens that everyone else's gives, and the chunks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from transformers import CLIPTokenizer

from mezzotint.adapters.inversion import Embedding
from mezzotint.families import clip_tokens
from mezzotint.families.clip_tokens import END, START, chunks, ids, tokenizer

TEXTS = [
    "a red fox",
    "A  RED\tFox,\nflat-style!!",
    "it's we'll they'd can't",
    "naïve café ÅÄÖ ß",
    "красная лиса 狐 きつね 🦊👩‍🚀",
    "1234 3.14 #hashtag @user <tag> </w>",
    "...---... ~`^",
    "",
    " ",
    "masterpiece, best quality, (ultra-detailed)",
]


def test_known_tokens() -> None:
    """From OpenAI's own tokenizer."""
    assert ids("a photo of a cat") == [320, 1125, 539, 320, 2368]
    assert ids("hello world") == [3306, 1002]
    assert tokenizer().get_vocab_size() == 49_408


def test_equals_transformers(tmp_path: Path) -> None:
    own = tokenizer()
    vocabulary = own.get_vocab()
    (tmp_path / "vocab.json").write_text(json.dumps(vocabulary), "utf-8")
    merges = [tuple(pair) for pair in json.loads(own.to_str())["model"]["merges"]]
    theirs = CLIPTokenizer(vocab=vocabulary, merges=merges)
    for text in TEXTS:
        assert [START, *ids(text), END] == theirs(text).input_ids, text


def test_a_prompt_is_one_chunk_with_its_weights() -> None:
    tokens, weights = chunks([[("a ", 1.0), ("red", 1.5), (" fox", 1.0)]])
    assert tokens.shape == weights.shape == (1, 77)
    assert tokens[0, :6].tolist() == [START, *ids("a red fox"), END, END]
    assert weights[0, :5].tolist() == [1.0, 1.0, 1.5, 1.0, 1.0]
    assert chunks([[("fox", 1.0)]], pad=0)[0][0, 2:4].tolist() == [END, 0]
    empty, _ = chunks([[]])
    assert empty[0].tolist() == [START] + 76 * [END]


@pytest.mark.parametrize(("words", "count"), [(75, 1), (76, 2), (200, 3)])
def test_a_long_prompt_goes_on_in_the_next_chunk(words: int, count: int) -> None:
    tokens, _ = chunks([[("fox " * words, 1.0)]])
    assert len(tokens) == count
    assert int((tokens == ids("fox")[0]).sum()) == words
    assert tokens[:, 0].tolist() == [START] * count


def test_weights_go_on_across_the_border_of_chunks() -> None:
    """A weight is its token's wherever that stands; an embedding is not torn apart."""
    tokens, weights = chunks([[("red " * 70, 1.0), ("fox " * 10, 1.3), ("sky", 0.5)]])
    fox, sky = ids("fox")[0], ids("sky")[0]
    assert torch.equal(weights[tokens == fox], torch.full((10,), 1.3))
    assert (tokens == fox).sum(1).tolist() == [5, 5] and weights[tokens == sky].tolist() == [0.5]
    assert int((weights != 1).sum()) == 11
    learnt = Embedding("<toy>", {"clip_l": torch.zeros(4, 768)}, bare=True)
    tokens, weights = chunks([[("red " * 73, 1.0), ("<toy>", 1.3), (" fox", 1.0)]], END, [learnt])
    assert tokens[0, 74].item() == END and tokens[1, 1:6].tolist() == [
        *range(END + 1, END + 5),
        fox,
    ]
    assert weights[1, :7].tolist() == pytest.approx([1, *4 * [1.3], 1, 1])


def test_a_break_begins_a_chunk() -> None:
    tokens, _ = chunks([[("a fox", 1.0)], [("a wolf", 1.0)]])
    assert tokens[1, 1:3].tolist() == ids("a wolf")


def test_the_package_stays_small() -> None:
    assert clip_tokens.MERGES.stat().st_size < 200_000
