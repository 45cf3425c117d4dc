"""Race the candidate networks of `icons`: each trains for the same CPU time on the same data.

    python recipes/icons/race.py --minutes 12 --out recipes/icons/work/race pixels unet latent

Each candidate is a file in `race/`.  The models, exported at the bell, are then measured by
`benchmarks/icons_quality.py`; the table is in docs/icons.md.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import torch

from mezzotint.engine.config_file import read_config
from mezzotint.engine.reports import Listener, Progress
from mezzotint.engine.train import train

CANDIDATES = Path(__file__).parent / "race"


def race(name: str, minutes: float, out: Path) -> dict[str, float | str]:
    """Train one candidate for ``minutes`` of CPU time; what it reached."""
    config = read_config(CANDIDATES / f"{name}.toml")
    seen: list[Progress] = []
    started: list[float] = []  # CPU seconds at the first step: reading the data is not raced

    def progress(now: Progress) -> None:
        if not started:
            started.append(time.process_time())
        seen[:] = [now]

    def bell() -> bool:
        return time.process_time() - started[0] > 60 * minutes

    train(config, out / name, Listener(note=print, progress=progress, stop=bell))
    last = seen[0]
    done = replace(config, train=replace(config.train, pictures=last.pictures))
    model = train(done, out / name)  # nothing is left to learn: it writes the averaged model
    spent = (time.process_time() - started[0]) / 60
    return {"model": str(model), "pictures": last.pictures, "cpu_minutes": spent, "loss": last.loss}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="+", help="files in race/, without .toml")
    parser.add_argument("--minutes", type=float, default=12, help="CPU minutes for each")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs")
    args = parser.parse_args()
    torch.set_num_threads(1)  # CPU time is then the time of one core
    for name in args.names:
        result = race(name, args.minutes, args.out)
        (args.out / name / "race.json").write_text(json.dumps(result, indent=2))
        print(name, result)


if __name__ == "__main__":
    main()
