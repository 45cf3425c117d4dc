"""Embed every drawing of the corpus: what the prior learns to make, and the denoiser is told.

python recipes/icons/embed.py icons-128.zip --out work/embeddings.safetensors

The embedding is the first 256 principal components, over the training split, of what
EfficientNet-Lite0 (Apache-2.0, ImageNet) sees of a drawing: its pooled features, the mean and
maximum of two middle stages, and the drawing averaged down to 8 × 8.  Each component is divided by
the square root of its spread: in full the faint ones would be mostly noise to learn, and as they
are the first few would be all that is learnt.  The network is needed here alone, not by the model.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from torch import Tensor

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from mezzotint.engine.embeddings import save_embeddings
from quality.features import Extractor
from quality.probe import principal
from quality.reference import read_corpus, real

WIDTH = 256


def embed(
    features: Tensor, training: list[int], width: int = WIDTH
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """``(N, D)`` features → ``(N, width)`` embeddings of root mean square 1, and the mean ``(D,)``
    and matrix ``(D, width)`` that make them."""
    mean, matrix, _ = principal(features[training], width)
    components = (features.float() - mean) @ matrix
    spread = components[training].std(0).sqrt()
    found = components / spread
    size = found[training].square().mean().sqrt()
    return found / size, (mean, matrix / spread / size)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("corpus", type=Path, help="the archive that corpus.py wrote")
    parser.add_argument("--out", type=Path, required=True, help="the file to write")
    parser.add_argument("--cache", type=Path, default=Path("work/quality"), help="for features")
    parser.add_argument("--site", type=Path, help="where the feature network's packages are")
    args = parser.parse_args()
    corpus = read_corpus(args.corpus)
    seen = real(corpus, args.cache, Extractor(args.site)).features.sight
    training = [row for row, entry in enumerate(corpus.entries) if entry.split == "train"]
    found, _ = embed(seen, training)
    save_embeddings(args.out, [entry.file for entry in corpus.entries], found.half())
    print(f"{args.out}: {len(found)} embeddings of {found.shape[1]} numbers")


if __name__ == "__main__":
    main()
