"""The captions as the trainer reads them: the text features of each, computed once.

Encoding a caption takes half as long as a training step of our `icons` takes for a picture, and
each comes up many times.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import accumulate, groupby
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from mezzotint.diffusion.level import Conditioning, Tokens
from mezzotint.engine.pictures import Note, open_cache, write_cache
from mezzotint.families.model import Conditioner
from mezzotint.families.text import TextEncoder, identity
from mezzotint.networks.bert import mean_pool

_BATCH = 64  # captions encoded at once; part of what the features' bits depend on


def caption_features(
    ids: Mapping[str, tuple[int, ...]],
    encoder: TextEncoder,
    folder: Path | None,
    writes: bool,
    note: Note,
    tokens: bool = True,
) -> Conditioner:
    """A conditioner that knows these captions, given with their word pieces; without ``tokens`` it
    tells the pooled vector only.

    Features are kept as float16, for each caption a row for the whole and one for each token, in
    a file in ``folder`` (none: in memory).  The file is made by the process that ``writes``; the
    others call when it is there.
    """
    texts = sorted(ids, key=lambda text: (len(ids[text]), text))
    ends = list(accumulate(1 + len(ids[text]) for text in texts))
    place = {text: slice(a, b) for text, a, b in zip(texts, [0, *ends[:-1]], ends, strict=True)}

    def rows() -> Iterator[Tensor]:
        for _, group in groupby((ids[text] for text in texts), len):
            for batch in torch.tensor(list(group)).split(_BATCH):
                features = encoder.encode(batch)  # (B, n, C)
                mean = mean_pool(features, torch.ones(batch.shape, dtype=torch.bool))
                yield torch.cat([mean[:, None], features], dim=1).flatten(0, 1).half()

    if folder is None:
        stored = torch.cat(list(rows()))
    else:
        name = hashlib.sha256("\n".join([identity(), *texts]).encode()).hexdigest()[:16]
        path, shape = folder / f"captions-{name}.npy", (ends[-1], encoder.width)
        if not path.exists() and writes:
            write_cache(path, shape, np.float16, (part.numpy() for part in rows()), note)
        stored = open_cache(path, shape, np.float16)

    def pooled(prompts: Sequence[str]) -> Conditioning:
        return Conditioning(stored[[place[prompt].start for prompt in prompts]].float())

    def condition(prompts: Sequence[str]) -> Conditioning:
        starts, stops = torch.tensor([[place[p].start, place[p].stop] for p in prompts]).T
        counts = stops - starts - 1
        number = torch.arange(int(counts.max()))
        mask = number < counts[:, None]  # (B, N)
        rows = (starts[:, None] + 1 + number).where(mask, starts[:, None])
        values = stored[rows].float().masked_fill(~mask[..., None], 0.0)
        return Conditioning(stored[starts].float(), tokens=Tokens(values, mask))

    return condition if tokens else pooled
