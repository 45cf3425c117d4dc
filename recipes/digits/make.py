"""scikit-learn's handwritten digits as class folders of pictures, ready for `mezzotint train`.

    python recipes/digits/make.py            # writes recipes/digits/work/{train,test}/{0 … 9}/
    mezzotint train recipes/digits/digits.toml --out runs/digits

1,797 grey pictures of 8 × 8 pixels (Alpaydin & Kaynak 1998, UCI Machine Learning Repository,
CC BY 4.0); they lie in the package, nothing is downloaded.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

WORK = Path(__file__).parent / "work"
TEST_EVERY = 5
"""Of each class every fifth picture is for testing: 1,442 to learn from, 355 held out."""


def write_digits(out: Path) -> dict[str, int]:
    """Write ``out/{train,test}/CLASS/NUMBER.png``; the pictures of each split, counted.

    NUMBER is the picture's place in the data set.  Values 0 … 16 become 0 … 255.
    """
    digits = load_digits()
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)  # (1797, 8, 8)
    counts = {"train": 0, "test": 0}
    for label in range(10):
        for place, number in enumerate(np.flatnonzero(digits.target == label)):
            split = "test" if place % TEST_EVERY == TEST_EVERY - 1 else "train"
            path = out / split / str(label) / f"{number:04d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(grey[number]).save(path)
            counts[split] += 1
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description="Write scikit-learn's digits as class folders.")
    parser.add_argument("--out", type=Path, default=WORK, help="where to (default: %(default)s)")
    out: Path = parser.parse_args().out
    counts = write_digits(out)
    print(f"{out}: {counts['train']} pictures in train, {counts['test']} in test")


if __name__ == "__main__":
    main()
