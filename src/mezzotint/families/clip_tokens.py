"""CLIP's tokenizer, and a weighted prompt as the chunks of 77 tokens that its encoders read.

The vocabulary (Radford et al. 2021, MIT licence) lies in the package as its list of merges: the
49,408 tokens are 256 bytes, each of them at a word's end, what the merges make, and two more.
"""

from __future__ import annotations

import json
import lzma
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers
from torch import Tensor

from mezzotint.adapters.inversion import Embedding, split

MERGES = Path(__file__).parent / "data" / "clip-merges.txt.xz"
START, END = 49_406, 49_407
CHUNK = 75
"""Tokens of a prompt in one chunk; start and end stand around them."""

_WORD = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


def _bytes() -> list[str]:
    """The printable stand-in of each byte, in the order of the vocabulary (Radford et al. 2019)."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    return [chr(byte) for byte in shown] + [chr(256 + n) for n in range(len(hidden))]


@lru_cache(maxsize=1)
def tokenizer() -> Tokenizer:
    """The tokenizer, without start and end."""
    lines = lzma.decompress(MERGES.read_bytes()).decode().split("\n")
    merges = [tuple(line.split()) for line in lines]
    single = _bytes()
    names = [*single, *(f"{byte}</w>" for byte in single), *("".join(pair) for pair in merges)]
    vocabulary = {name: number for number, name in enumerate(names)}
    vocabulary |= {"<|startoftext|>": START, "<|endoftext|>": END}
    made = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<|endoftext|>", end_of_word_suffix="</w>")  # type: ignore[arg-type]
    )
    made.normalizer = normalizers.Sequence(  # type: ignore[assignment]
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    made.pre_tokenizer = pre_tokenizers.Sequence(  # type: ignore[assignment]
        [
            pre_tokenizers.Split(Regex(_WORD), "removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()  # type: ignore[assignment]
    return made


def ids(text: str) -> list[int]:
    """The tokens of a text, without start and end; upper and lower case mean the same."""
    return tokenizer().encode(text).ids


def _groups(text: str, embeddings: Sequence[Embedding]) -> Iterator[list[int]]:
    """The tokens of a text, those of an embedding together: they stand in one chunk."""
    first = {
        id(e): END + 1 + sum(b.count for b in embeddings[:n]) for n, e in enumerate(embeddings)
    }
    for part in split(text, embeddings):
        if isinstance(part, Embedding):
            yield list(range(first[id(part)], first[id(part)] + part.count))
        else:
            yield from ([token] for token in ids(part))


def chunks(
    spans: Sequence[Sequence[tuple[str, float]]],
    pad: int = END,
    embeddings: Sequence[Embedding] = (),
) -> tuple[Tensor, Tensor]:
    """Weighted texts as chunks that an encoder reads.

    A text that does not fit into what is left of a chunk goes on in the next.

    Args:
        spans: for each part of the prompt that is to begin a new chunk, its texts with weights.
        pad: fills up a chunk; OpenAI's encoder has the end token there, OpenCLIP's 0.
        embeddings: words with vectors of their own; these are numbered from ``END + 1`` on, one
            embedding after the other.

    Returns:
        ids ``(chunks, 77)`` int64 and weights ``(chunks, 77)`` float32.
    """
    rows: list[list[tuple[int, float]]] = []
    for part in spans:
        row: list[tuple[int, float]] = []
        for text, weight in part:
            for group in _groups(text, embeddings):
                if len(row) + len(group) > CHUNK:
                    rows.append(row)
                    row = []
                row += [(token, weight) for token in group]
        rows.append(row)
    width = CHUNK + 2
    tokens = torch.full((len(rows), width), pad, dtype=torch.int64)
    weights = torch.ones(len(rows), width)
    for number, row in enumerate(rows):
        tokens[number, 0], tokens[number, 1 + len(row)] = START, END
        if row:
            tokens[number, 1 : 1 + len(row)] = torch.tensor([token for token, _ in row])
            weights[number, 1 : 1 + len(row)] = torch.tensor([weight for _, weight in row])
    return tokens, weights


def emphasized(features: Tensor, weights: Tensor, empty: Tensor) -> Tensor:
    """Each token's features led away from those that the empty prompt has in its place,
    ``empty.lerp(features, w)``; where the weight is 1 they are what they were, to the last bit.

    Args:
        features: ``(B, N, C)``; weights: ``(B, N)``; empty: ``(1, N, C)``.
    """
    w = weights[..., None].to(features)
    return torch.where(w == 1, features, empty + w * (features - empty))


def folder(pad: int) -> dict[str, str]:
    """The tokenizer's files as `transformers` stores them, by name.

    pad: the token that fills up a prompt.
    """
    document = json.loads(tokenizer().to_str())["model"]
    merges = "".join(f"{first} {second}\n" for first, second in document["merges"])
    names = {number: name for name, number in document["vocab"].items()}
    special = {
        "bos_token": names[START],
        "eos_token": names[END],
        "unk_token": names[END],
        "pad_token": names[pad],
    }
    config = {
        "tokenizer_class": "CLIPTokenizer",
        "model_max_length": CHUNK + 2,
        "add_prefix_space": False,
        "do_lower_case": True,
        "errors": "replace",
        **special,
    }
    return {
        "vocab.json": json.dumps(document["vocab"], ensure_ascii=False),
        "merges.txt": f"#version: 0.2\n{merges}",
        "special_tokens_map.json": json.dumps(special, indent=2),
        "tokenizer_config.json": json.dumps(config, indent=2),
    }
