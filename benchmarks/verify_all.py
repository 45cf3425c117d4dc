"""Make files in every way that there is, and have `mezzotint verify` make each again.

    python benchmarks/verify_all.py                  # about 200 files, 3 minutes on 2 cores
    python benchmarks/verify_all.py --families sd1   # one of them

The families of others are small random models of the true architecture (those of the tests);
`icons` is the model in the package.  Files are made in one process a family and verified in
another, which sees only the files and the models.  Writes report.md and report.json; the exit code
is 1 if a file is not bit-equal.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests"))

QUEUE = "queue"
"""Of `icons`, by a server that has several jobs at once."""
FAMILIES = ("icons", "sd1", "sd2", "sdxl", "sd3", "flux-dev", QUEUE)
FORMATS = (".png", ".webp", ".jpg", ".tif")
SAMPLERS = (
    *("ddpm", "ddim", "euler", "euler_ancestral", "heun", "dpm2", "dpm2_ancestral"),
    *("dpmpp_2s_ancestral", "dpmpp_2m", "dpmpp_sde", "dpmpp_2m_sde", "dpmpp_3m_sde", "deis"),
    *("unipc", "lms", "ipndm", "sa_solver", "edm_stochastic", "lcm", "tcd"),
)
TASKS = {
    "plain": "",
    "negative": "--negative blue --guidance 3",
    "guided": "--guidance 4 --rescale 0.5 --apg",
    "image": "--image in.png --strength 0.6",
    "mask": "--image in.png --mask mask.png",
    "masked area": "--image in.png --mask mask.png --only-masked 8",
    "expand": "--image in.png --expand left=16",
    "vary": "--vary 3:subtle",
    "vary twice": "--vary 3:strong,4:subtle",
    "enlarge": "--enlarge 1.5",
    "regions": "--region 0,0,0.5,1=blue",
    "aspect": "--size 3:2",
    "one thread": "--threads 1",
    "batch": "-n 3",
}
ONLY = {  # what one kind of model does alone
    "tile": ("--tile both", ("sd1", "sd2", "sdxl")),
    "memory": ("--memory 3GB", ("sd1", "sdxl", "sd3", "flux-dev")),
    "lora": ("--lora ink.safetensors:0.7", ("sd1",)),
    "two loras": ("--lora ink.safetensors:0.7 --lora ink.safetensors:-0.2", ("sd1",)),
    "bfloat16": ("--precision bfloat16", ("sd1", "sdxl", "sd3", "flux-dev")),
}
FLOWS = ("sd3", "flux-dev")
NOT = {("negative", "flux-dev"), ("guided", "flux-dev"), ("aspect", "sd3")}
"""FLUX.1 dev is distilled: it has no guidance by a second estimate.  The small SD3 has no positions
for a picture of its usual area."""


def _install(family: str) -> None:
    """Small models in place of the large ones, whose sizes no signature has."""
    import torch

    torch.set_num_threads(2)
    if family == "icons":
        return
    from mezzotint.checkpoints.inspect import Report
    from mezzotint.families import catalogue
    from pipelines import small, small_flow

    own = small_flow(family) if family in FLOWS else small(family)
    catalogue.FAMILIES = (own,)
    catalogue.recognise = lambda _: Report(Path(), 0, "", own.folder.kind)


def _models(family: str) -> None:
    """The model and its adapter, and pictures to begin at, in the folder at hand."""
    import numpy as np
    import torch
    from PIL import Image

    values = np.random.default_rng(5).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(values).resize((64, 64)).save("in.png")
    mask = np.zeros((64, 64), dtype=np.uint8)
    mask[16:48, 8:40] = 255
    Image.fromarray(mask).save("mask.png")
    if family == "icons":
        return
    from mezzotint.checkpoints.files import save
    from pipelines import flux, stable_diffusion, stable_diffusion_3

    maker = {"sd3": stable_diffusion_3, "flux-dev": flux}.get(family, stable_diffusion)
    theirs = maker(family)
    theirs.save_pretrained("model")
    if family != "sd1":
        return
    generator = torch.Generator().manual_seed(1)
    ink: dict[str, torch.Tensor] = {}
    for name, layer in theirs.unet.named_modules():
        if name.endswith(("to_q", "to_v")):
            key = "lora_unet_" + name.replace(".", "_")
            rows, columns = layer.weight.shape
            ink[f"{key}.lora_down.weight"] = torch.randn(4, columns, generator=generator)
            ink[f"{key}.lora_up.weight"] = torch.randn(rows, 4, generator=generator)
            ink[f"{key}.alpha"] = torch.tensor(1.0)
    save(Path("ink.safetensors"), ink, {})


def _wishes(family: str) -> list[tuple[str, str, str]]:
    """What is made: its name, its options, its format."""
    found = [(task, how, "") for task, how in TASKS.items() if (task, family) not in NOT]
    found += [(task, how, "") for task, (how, whose) in ONLY.items() if family in whose]
    names = SAMPLERS if family in ("icons", "sd1", "sdxl") else SAMPLERS[::2]
    found += [(name, f"--sampler {name} --steps 5", "") for name in names]
    return [
        (task, how, FORMATS[number % len(FORMATS)]) for number, (task, how, _) in enumerate(found)
    ]


def _queued() -> int:
    """Have a server make files, several jobs at once, and bring them into the folder at hand."""
    from concurrent.futures import ThreadPoolExecutor

    sys.path.insert(0, str(ROOT / "tests" / "server"))
    from serving import serving

    for name in ("in.png", "mask.png"):  # a server calls what it is given by its hash
        data = Path(name).read_bytes()
        Path(hashlib.sha256(data).hexdigest()).write_bytes(data)
    command = (sys.executable, "-m", "mezzotint", "generate", "a red fox", "--steps", "3")
    jobs = [f"-n 2 --seed {seed}" for seed in (1, 2, 3)]
    jobs += ["--image in.png --strength 0.6", "--image in.png --mask mask.png", "--vary 3:subtle"]
    with serving(Path("server").absolute()) as server, ThreadPoolExecutor(3) as pool:

        def ask(numbered: tuple[int, str]) -> int:
            number, how = numbered
            file = f"made/{number:02d}{FORMATS[number % len(FORMATS)]}"
            asked = [*command, *how.split(), "--server", server.base, "--quiet", "-o", file]
            return subprocess.run(asked, check=False).returncode

        codes = list(pool.map(ask, enumerate(jobs)))
    return max(codes)


def _make(family: str) -> int:
    """Make all files of a family in the folder at hand."""
    from mezzotint.apps.cli import main

    if family == QUEUE:
        _models("icons")
        return _queued()
    _install(family)
    _models(family)
    own = [] if family == "icons" else ["--model", "model", "--precision", "float32"]
    for number, (task, how, suffix) in enumerate(_wishes(family)):
        size = [] if "--size" in how or "--expand" in how else ["--size", "64"]
        size = size if "--mask" not in how or "--only-masked" in how else []
        steps = [] if "--steps" in how else ["--steps", "3"]
        name = f"made/{number:02d} {task}{suffix}"
        typed = [*own, *size, *steps, *how.split(), "--seed", str(number), "--quiet"]
        if "--precision" in how:
            typed.remove("float32")
            typed.remove("--precision")
        code = main(["generate", *typed, "-o", name, "a red fox"])
        if code:
            print(f"{family}, {task}: could not be made", file=sys.stderr)
            return code
    return 0


def _check(family: str) -> int:
    """Verify all files in the folder at hand."""
    from mezzotint.apps.cli import main

    if family != QUEUE:
        _install(family)
    files = sorted(map(str, Path("made").iterdir()))
    return main(["verify", "--json", *files])


def _in_process(step: str, family: str, folder: str) -> str:
    command = [sys.executable, str(Path(__file__).resolve()), "--step", step, "--families", family]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode and step == "make":
        raise SystemExit(2)
    return done.stdout


def _measure(families: list[str], out: Path) -> int:
    rows: list[dict[str, object]] = []
    began = time.monotonic()
    for family in families:
        print(f"verify_all: {family} …", file=sys.stderr)
        with tempfile.TemporaryDirectory() as folder:
            _in_process("make", family, folder)
            lines = _in_process("check", family, folder).splitlines()
        rows += [{"family": family, **json.loads(line)} for line in lines]
    bad = [row for row in rows if row["verdict"] != "bit-equal"]
    minutes = (time.monotonic() - began) / 60
    text = [
        "# Are files what they say?\n",
        "Written by `python benchmarks/verify_all.py`: files made in every way that there is, and",
        "made again by `mezzotint verify` in a process of its own.\n",
        f"**{len(rows) - len(bad)} of {len(rows)} bit-equal**, in {minutes:.1f} minutes.\n",
        "| family | files | bit-equal |",
        "|---|---:|---:|",
    ]
    for family in families:
        own = [row for row in rows if row["family"] == family]
        text.append(f"| {family} | {len(own)} | {sum(row not in bad for row in own)} |")
    text += [
        "",
        *(f"- {row['file']}: {row['verdict']} {row['said']} {row['causes']}" for row in bad),
    ]
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.md").write_text("\n".join(text).rstrip() + "\n")
    (out / "report.json").write_text(json.dumps(rows, indent=1) + "\n")
    print("\n".join(text))
    return 1 if bad else 0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--families", default=",".join(FAMILIES))
    parser.add_argument("--out", type=Path, default=ROOT / "docs/verify", help="report folder")
    parser.add_argument("--step", choices=("make", "check"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    families = args.families.split(",")
    if unknown := set(families) - set(FAMILIES):
        parser.error(f"no {', '.join(sorted(unknown))}: choose from {', '.join(FAMILIES)}")
    if args.step is not None:
        return {"make": _make, "check": _check}[args.step](families[0])
    return _measure(families, args.out)


if __name__ == "__main__":
    sys.exit(main())
