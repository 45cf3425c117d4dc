"""Write the ledger of the drawings and the index of the nearest, for the package.

python recipes/icons/ledger.py icons-128.zip --cache DIR

The archive is the one that corpus.py wrote, the cache that with the packages (who drew a clip
stands in the clip alone).  Takes a minute of one core; the same archive gives the same ledger.
"""

from __future__ import annotations

import argparse
import io
import json
import lzma
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from corpus_clipart import read_clip_info
from corpus_fetch import members
from corpus_shelf import Shelf
from PIL import Image
from torch import Tensor

from mezzotint.checkpoints.files import save
from mezzotint.families.catalogue import PACKAGED
from mezzotint.families.ledger import FORMAT
from mezzotint.files import atomic_write
from mezzotint.modalities.image import to_tensor
from mezzotint.provenance.eyes import canonical, seen

WIDTH = 64
_CLIPS = "usr/share/openclipart/svg/"
_BATCH = 128


def creators(package: Path) -> dict[str, str]:
    """Of each clip, who drew it, as its own metadata says."""
    return {
        path.removeprefix(_CLIPS): " ".join(read_clip_info(content).creator.split())
        for path, content in members(package)
        if path.startswith(_CLIPS) and path.endswith(".svg")
    }


def name_of(row: dict[str, Any]) -> str:
    """A drawing's name within its set: what its key has after package and set."""
    _, _, key = row["source"].rpartition("@")  # a Debian version has a colon of its own
    package_version = key.split(":")
    name = ":".join(package_version[2 if row["set"] == "openclipart" else 1 :])
    return name.removeprefix(f"{row['set']}/")


def text(
    rows: Sequence[dict[str, Any]], sets: Sequence[dict[str, Any]], drawn: dict[str, str]
) -> str:
    """The ledger: the sets, then a line each drawing."""
    lines = [json.dumps({"format": FORMAT, "sets": sets}, ensure_ascii=False)]
    for row in rows:
        name = name_of(row)
        author = drawn.get(name, "") if row["set"] == "openclipart" else ""
        held = "h" if row["split"] == "heldout" else ""
        concept = "" if row["concept"] == name.replace("-", " ") else row["concept"]
        lines.append("\t".join([name, concept, author, held]))
    assert not any("\n" in line or "\r" in line or line.count("\t") != 3 for line in lines[1:])
    return "".join(line + "\n" for line in lines)


def sets_of(rows: Sequence[dict[str, Any]], shelf: Shelf) -> list[dict[str, Any]]:
    """What is told of each set, in the corpus's order."""
    found: list[dict[str, Any]] = []
    counts = Counter(row["set"] for row in rows)
    for source in shelf.sources:
        holder = shelf.holder(source)
        found.append(
            {
                "id": source.id,
                "licence": source.licence,
                "holder": holder.name,
                "url": holder.url,
                "licence_url": holder.licence_url,
                "package": shelf.packages[source.package].spec,
                "drawings": counts[source.id],
            }
        )
    order = [entry["id"] for entry in found for _ in range(entry["drawings"])]
    assert order == [row["set"] for row in rows], "the corpus is not in the order of its sets"
    return found


def looks(archive: zipfile.ZipFile, rows: Sequence[dict[str, Any]]) -> Iterator[Tensor]:
    """What is seen of the drawings, in batches."""
    for first in range(0, len(rows), _BATCH):
        pictures = [
            to_tensor(Image.open(io.BytesIO(archive.read(row["file"]))), "rgba")
            for row in rows[first : first + _BATCH]
        ]
        yield seen(canonical(torch.stack(pictures)))


def index(features: Tensor, learnt: Tensor) -> dict[str, Tensor]:
    """The first principal components of the drawings learnt from, each by the root of its spread.

    In full the first few would tell nearly all, and divided by all of it the faint ones as much.
    """
    mean = features[learnt].double().mean(0)
    centred = features.double() - mean
    spread = centred[learnt].T @ centred[learnt]
    matrix = torch.linalg.eigh(spread).eigenvectors[:, -WIDTH:].flip(1)
    matrix = matrix * matrix.sum(0).sign()  # an eigenvector's sign is the library's choice
    matrix = matrix / (centred[learnt] @ matrix).std(0).sqrt()
    matrix = matrix.half()
    components = centred.float() @ matrix.float()
    scale = components.abs().amax(0) / 127
    rows = (components / scale).round().clamp(-127, 127).to(torch.int8)
    return {"rows": rows, "scale": scale, "mean": mean.float(), "matrix": matrix}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("corpus", type=Path, help="the archive that corpus.py wrote")
    parser.add_argument("--cache", type=Path, required=True, help="folder with the packages")
    args = parser.parse_args()
    model = PACKAGED["icons"]
    shelf = Shelf(Path(__file__).with_name("sources.toml"), args.cache, 128)
    with zipfile.ZipFile(args.corpus) as archive:
        rows = [json.loads(line) for line in archive.read("metadata.jsonl").splitlines()]
        sets = sets_of(rows, shelf)
        drawn = creators(shelf.paths["openclipart"])
        packed = lzma.compress(text(rows, sets, drawn).encode(), preset=9 | lzma.PRESET_EXTREME)
        learnt = torch.tensor([row["split"] == "train" for row in rows])
        tensors = index(torch.cat(list(looks(archive, rows))), learnt)
    with atomic_write(model.with_name("icons-ledger.txt.xz")) as file:
        file.write(packed)
    save(model.with_name("icons-nearest.safetensors"), tensors, {"format": "1"})
    print(f"{len(rows)} drawings, {len(packed):,} bytes; {WIDTH} components each")


if __name__ == "__main__":
    main()
