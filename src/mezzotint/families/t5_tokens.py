"""T5's tokenizer, and a weighted prompt as the row of tokens that its encoder reads.

The vocabulary (Raffel et al. 2020, Google's T5 v1.1, Apache-2.0 licence) lies in the package as the
tokenizer that comes with FLUX.1: a unigram model of 32,000 word pieces, 100 marks and three more.
"""

from __future__ import annotations

import hashlib
import json
import lzma
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from mezzotint.checkpoints.files import CheckpointError

TOKENIZER = Path(__file__).parent / "data" / "t5-tokenizer.json.xz"
PAD, END = 0, 1

_FILE = "tokenizer.json"
_PIECES = "spiece.model"  # the same vocabulary in the format of its authors
_OURS = "d60acb128cf7b7f2536e8f38a5b18a05535c9e14c7a355904270e15b0945ea86"  # SHA-256 of that file


@lru_cache(maxsize=1)
def tokenizer() -> Tokenizer:
    """The tokenizer that lies in the package."""
    return Tokenizer.from_str(lzma.decompress(TOKENIZER.read_bytes()).decode())


def folder() -> dict[str, str]:
    """The tokenizer's files as `transformers` stores them, by name."""
    special = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    config = {"tokenizer_class": "T5TokenizerFast", "model_max_length": 512, "extra_ids": 100}
    return {
        _FILE: lzma.decompress(TOKENIZER.read_bytes()).decode(),
        "special_tokens_map.json": json.dumps(special, indent=2),
        "tokenizer_config.json": json.dumps({**config, **special}, indent=2),
    }


def tokenizer_in(folder: Path, vocabulary: int) -> Tokenizer:
    """The tokenizer of a folder of `diffusers`: the package's, unless the folder has another.

    Args:
        vocabulary: words of the encoder that reads its tokens.

    Raises:
        CheckpointError: its tokenizer is damaged, does not fit the encoder, or is in a format that
            is not read.
    """
    path = folder / _FILE
    if not path.exists():
        pieces = folder / _PIECES
        if pieces.exists() and hashlib.sha256(pieces.read_bytes()).hexdigest() != _OURS:
            raise CheckpointError(
                f"{pieces}: another vocabulary than T5's: put its {_FILE} beside it"
            )
        return tokenizer()
    try:
        found = Tokenizer.from_str(path.read_text("utf-8"))
    except Exception as error:  # the library raises nothing narrower
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise CheckpointError(f"{path}: is not a tokenizer: {reason}") from None
    found.no_padding()  # how it was last used may have been stored with it
    found.no_truncation()
    if found.to_str() == tokenizer().to_str():
        return tokenizer()
    if found.get_vocab_size() > vocabulary:
        raise CheckpointError(
            f"{path}: has {found.get_vocab_size()} words, its encoder only {vocabulary}"
        )
    if (found.token_to_id("<pad>"), found.token_to_id("</s>")) != (PAD, END):
        raise CheckpointError(f"{path}: is no tokenizer of T5: <pad> is not {PAD}, </s> not {END}")
    return found


def row(
    spans: Sequence[Sequence[tuple[str, float]]], length: int, using: Tokenizer
) -> tuple[Tensor, Tensor]:
    """Weighted texts as the one row that an encoder reads: their tokens, the end, padding.

    Args:
        spans: the texts with their weights, in parts as :func:`~mezzotint.families.clip_tokens
            .chunks` has them; here one part goes on where the last ends.
        length: tokens of the row.

    Returns:
        ids ``(1, length)`` int64 and weights ``(1, length)`` float32.

    Raises:
        ValueError: the texts have more tokens; nothing is cut off.
    """
    found: list[tuple[int, float]] = []
    for text, weight in (span for part in spans for span in part):
        found += [(token, weight) for token in using.encode(text, add_special_tokens=False).ids]
    if len(found) >= length:
        raise ValueError(
            f"the prompt has {len(found)} tokens of T5, this model reads {length - 1}: shorten it"
        )
    tokens, weights = torch.full((1, length), PAD), torch.ones(1, length)
    tokens[0, len(found)] = END
    if found:
        tokens[0, : len(found)] = torch.tensor([token for token, _ in found])
        weights[0, : len(found)] = torch.tensor([weight for _, weight in found])
    return tokens, weights
