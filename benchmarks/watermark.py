"""Measure the watermarks that survive re-encoding: how often they are found at a false-positive
rate of 1e-6, what they cost, and that they are not imagined.

    python benchmarks/watermark.py --out docs/watermark --photos PHOTOS --icons ICONS

--photos: a folder of more natural pictures than the few that scikit-image and scikit-learn bring
(the report's: alexeygrigorev/clothing-dataset-small, CC0).  --icons: a folder of pictures of the
`icons` model; what is missing there is made.  Each run replaces its own sections of blind.json and
writes blind.md anew.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import watermark_image
from peers.report import merge

_HEAD = """\
# The watermark in the pixels

Written by `python benchmarks/watermark.py`. What it is: `provenance/blind.py`; how to look for it:
`mezzotint detect FILE`. *Found*: the bound of the p-value is at most 1e-6. *Read*: found, and the
64 bits are right.
"""


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("docs/watermark"), help="report folder")
    parser.add_argument("--photos", type=Path, help="folder of natural pictures")
    parser.add_argument("--icons", type=Path, help="folder of pictures of the `icons` model")
    parser.add_argument("--trials", type=int, default=200, help="for each bar")
    parser.add_argument("--more", type=int, default=60, help="for each row without a bar")
    parser.add_argument("--unmarked", type=int, default=1000, help="pictures without a mark")
    parser.add_argument("--only", choices=watermark_image.PARTS, nargs="+", help="sections")
    options = parser.parse_args(arguments)
    if min(options.trials, options.more, options.unmarked) < 1:
        parser.error("at least one of each")
    asked = watermark_image.Asked(
        options.photos, options.icons, options.trials, options.more, options.unmarked
    )
    for section in watermark_image.sections(asked, options.only or watermark_image.PARTS):
        merge(options.out, "blind", _HEAD, [section])
    print((options.out / "blind.md").read_text("utf-8"))
    return 0


if __name__ == "__main__":
    sys.exit(main())
