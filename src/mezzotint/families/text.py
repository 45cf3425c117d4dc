"""The text encoder that lies in the package: all-MiniLM-L6-v2, its tokenizer, its features.

``data/minilm.safetensors`` keeps the word embeddings as int8 rows with one scale a row and the
rest in float16 (``recipes/icons/text_encoder.py`` writes it); here it is float32 again.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from mezzotint.checkpoints.files import CheckpointError, build_unfilled, load, load_into
from mezzotint.checkpoints.rows import ROWS, SCALE, WEIGHT, pack, unpack
from mezzotint.networks.bert import Bert, BertConfig, mean_pool

DATA = Path(__file__).parent / "data"
WEIGHTS = "minilm.safetensors"
TOKENIZER = "minilm-tokenizer.json"

_WORD = "embedding.word"  # the layer that is shipped as int8 rows


def quantize(state: Mapping[str, Tensor], dtype: torch.dtype) -> dict[str, Tensor]:
    """The encoder's float32 state dict as it is shipped: int8 word rows, the rest in ``dtype``."""
    word = _WORD + WEIGHT
    shipped = {name: value.to(dtype) for name, value in state.items() if name != word}
    return shipped | pack(word, state[word])


def dequantize(shipped: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The float32 state dict of what :func:`quantize` gave."""
    return {name: value.float() for name, value in unpack(shipped).items()}


class TextEncoder:
    """Captions to token features and sentence embeddings, float32 on the CPU.

    Each caption goes through the network alone and without padding, so its features are the same
    bits whatever stands beside it in a batch.  The last ``memo`` captions are remembered, for the
    number of threads that they were encoded on: another number sums in another order.
    """

    def __init__(self, network: Bert, tokenizer: Tokenizer, memo: int = 1024) -> None:
        self._network = network.eval().requires_grad_(False)
        self._tokenizer = tokenizer
        self._remembered = lru_cache(maxsize=memo)(self._encode)
        self.width = network.config.width

    def _encode(self, ids: tuple[int, ...], threads: int) -> Tensor:
        """``(n, C)`` on the threads that there are; never to be written to: it is shared by all who
        ask for the caption."""
        return self.encode(torch.tensor([ids]))[0]

    def encode(self, ids: Tensor) -> Tensor:
        """Features ``(B, n, 384)`` of captions of equal length, several at once.

        Equal to :meth:`tokens` up to the rounding of float32, and several times as fast.

        Args:
            ids: ``(B, n)``, rows of :meth:`ids`.
        """
        # A trainer may call this under autocast: the features must not depend on that.
        with torch.no_grad(), torch.autocast("cpu", enabled=False):
            return self._network(ids, torch.ones_like(ids, dtype=torch.bool))

    def ids(self, caption: str, max_tokens: int = 64) -> tuple[int, ...]:
        """A caption's word pieces, with those of [CLS] and [SEP].

        Raises:
            ValueError: there are more than ``max_tokens``.
        """
        ids = self._tokenizer.encode(caption).ids
        if len(ids) > max_tokens:
            start = caption if len(caption) <= 40 else caption[:37] + "..."
            raise ValueError(
                f"the text {start!r} has {len(ids)} tokens, the limit is {max_tokens}: shorten it"
            )
        return tuple(ids)

    def _features(self, captions: Sequence[str], max_tokens: int) -> list[Tensor]:
        if isinstance(captions, str):
            raise TypeError("captions must be a list of texts, not one text: write [caption]")
        if not captions:
            raise ValueError("no captions: give at least one, '' for no text")
        if not 2 <= max_tokens <= (most := self._network.config.positions):
            raise ValueError(f"max_tokens must lie between 2 and {most}, not {max_tokens}")
        # Tokenize all first: a text that is too long should not cost the encoding of the others.
        told, threads = [self.ids(c, max_tokens) for c in captions], torch.get_num_threads()
        return [self._remembered(ids, threads) for ids in told]

    def tokens(
        self, captions: Sequence[str], max_tokens: int = 64, fixed: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Features of each token in context, with [CLS] first and [SEP] last.

        Args:
            captions: B texts; upper and lower case mean the same.
            max_tokens: the longest text allowed, [CLS] and [SEP] included, at most 512.
            fixed: N is ``max_tokens``, so that shapes do not depend on the other captions;
                else N is the length of the longest.

        Returns:
            values ``(B, N, 384)`` float32, zero at padding; mask ``(B, N)``, True where real.

        Raises:
            ValueError: a text is longer than ``max_tokens``; nothing is ever cut off.
            TypeError: one text was given in place of a list.
        """
        features = self._features(captions, max_tokens)
        length = max_tokens if fixed else max(len(f) for f in features)
        values = torch.zeros(len(features), length, self.width)
        mask = torch.zeros(len(features), length, dtype=torch.bool)
        for i, feature in enumerate(features):
            values[i, : len(feature)] = feature
            mask[i, : len(feature)] = True
        return values, mask

    def pooled(self, captions: Sequence[str], max_tokens: int = 64) -> Tensor:
        """Sentence embeddings ``(B, 384)`` of unit length: their dot product is the cosine.

        Raises:
            ValueError, TypeError: as :meth:`tokens`.
        """
        return torch.cat(
            [
                mean_pool(feature[None], torch.ones(1, len(feature), dtype=torch.bool))
                for feature in self._features(captions, max_tokens)
            ]
        )


def _tokenizer(path: Path) -> Tokenizer:
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file: install the package again")
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library raises nothing narrower
        reason = str(error).splitlines()[0]
        raise CheckpointError(f"{path}: is not a tokenizer: {reason}") from None


def identity(folder: Path = DATA) -> str:
    """A hash of the encoder's files: what a cache of its features is named by."""
    digest = hashlib.sha256()
    for name in (TOKENIZER, WEIGHTS):
        digest.update((folder / name).read_bytes())
    return digest.hexdigest()[:16]


def load_text_encoder(folder: Path = DATA, memo: int = 1024) -> TextEncoder:
    """The encoder from ``folder``, by default the one that lies in the package.

    Raises:
        CheckpointError: a file is missing, damaged or of another network.
    """
    tokenizer = _tokenizer(folder / TOKENIZER)
    shipped, _ = load(folder / WEIGHTS)
    if lacking := [_WORD + part for part in (ROWS, SCALE) if _WORD + part not in shipped]:
        raise CheckpointError(f"{folder / WEIGHTS}: is no text encoder: {lacking[0]!r} is missing")
    network = build_unfilled(lambda: Bert(BertConfig()))
    load_into(network, dequantize(shipped), str(folder / WEIGHTS), assign=True)
    return TextEncoder(network, tokenizer, memo)
