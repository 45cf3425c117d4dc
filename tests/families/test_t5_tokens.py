"""T5's tokenizer: known tokens, and the row that its encoder reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from mezzotint.checkpoints.files import CheckpointError
from mezzotint.families import t5_tokens
from mezzotint.families.t5_tokens import END, PAD, row, tokenizer, tokenizer_in


def _ids(text: str) -> list[int]:
    return row([[(text, 1.0)]], 64, tokenizer())[0][0].tolist()


@pytest.mark.parametrize(
    ("text", "known"),
    [  # from the pages of `transformers` on T5
        (
            "translate English to German: The house is wonderful.",
            [13959, 1566, 12, 2968, 10, 37, 629, 19, 1627, 5],
        ),
        ("Das Haus ist wunderbar.", [644, 4598, 229, 19250, 5]),
        ("", []),
    ],
)
def test_known_tokens(text: str, known: list[int]) -> None:
    assert _ids(text) == [*known, END] + [PAD] * (63 - len(known))


def test_the_vocabulary() -> None:
    assert tokenizer().get_vocab_size() == 32_100
    assert tokenizer().id_to_token(32_099) == "<extra_id_0>"


def test_texts_have_their_weights() -> None:
    ids, weights = row([[("a ", 1.0), ("red", 1.5)], [("fox", 0.5)]], 8, tokenizer())
    assert ids.shape == weights.shape == (1, 8)
    assert ids[0].tolist() == [3, 9, 1131, 3, 20400, END, PAD, PAD]
    assert weights[0].tolist() == [1, 1, 1.5, 0.5, 0.5, 1, 1, 1]


def test_nothing_is_cut_off() -> None:
    assert row([[("red " * 7, 1.0)]], 8, tokenizer())[0][0, -1] == END
    with pytest.raises(ValueError, match="has 8 tokens of T5, this model reads 7: shorten it"):
        row([[("red " * 8, 1.0)]], 8, tokenizer())


def test_a_folder_without_its_own_takes_ours(tmp_path: Path) -> None:
    assert tokenizer_in(tmp_path / "none", 32_128) is tokenizer()
    own = json.loads(tokenizer().to_str())
    (tmp_path / "tokenizer.json").write_text(json.dumps(own, indent=2), "utf-8")
    assert tokenizer_in(tmp_path, 32_128) is tokenizer()


def test_a_folder_with_another(tmp_path: Path) -> None:
    file = tmp_path / "tokenizer.json"
    own = json.loads(tokenizer().to_str())
    own["padding"] = {
        "strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": None,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "<pad>",
    }  # fmt: skip
    file.write_text(json.dumps(own), "utf-8")
    assert tokenizer_in(tmp_path, 32_128) is tokenizer()
    own["model"]["vocab"][500][1] -= 0.1
    file.write_text(json.dumps(own), "utf-8")
    found = tokenizer_in(tmp_path, 32_128)
    assert isinstance(found, Tokenizer) and found is not tokenizer()
    assert found.encode("a red fox").ids == [*_ids("a red fox")[:5], END]
    with pytest.raises(CheckpointError, match="has 32100 words, its encoder only 100"):
        tokenizer_in(tmp_path, 100)
    for text in ("{", '{"model": 1}', "\x00"):
        file.write_text(text, "utf-8")
        with pytest.raises(CheckpointError, match="tokenizer.json: is not a tokenizer: ") as caught:
            tokenizer_in(tmp_path, 32_128)
        assert "\n" not in str(caught.value)
    file.unlink()
    (tmp_path / "spiece.model").write_bytes(b"another")
    with pytest.raises(CheckpointError, match="spiece.model: another vocabulary than T5's"):
        tokenizer_in(tmp_path, 32_128)


def test_another_beginning_is_no_t5(tmp_path: Path) -> None:
    own = json.loads(tokenizer().to_str())
    own["added_tokens"] = [t for t in own["added_tokens"] if t["content"] != "<pad>"]
    own["model"]["vocab"][0][0] = "<other>"
    (tmp_path / "tokenizer.json").write_text(json.dumps(own), "utf-8")
    with pytest.raises(CheckpointError, match="is no tokenizer of T5: <pad> is not 0"):
        tokenizer_in(tmp_path, 32_128)


def test_the_package_stays_small() -> None:
    assert t5_tokens.TOKENIZER.stat().st_size < 400_000
