"""The options of each command: one function a command, which adds them to its parser."""

from __future__ import annotations

import argparse
from pathlib import Path

from mezzotint.apps import values

_TRUST = "certificates of authorities that you believe"
_GRID, _ITS_GRID = "DE|380", "country or g of CO2 per kWh, for its energy (docs/energy.md)"


def _part_option(parser: argparse.ArgumentParser, what: str) -> None:
    parser.add_argument(
        "--part",
        type=values.part,
        action="append",
        default=[],
        metavar="[NAME=]FILE",
        help=f"{what} in a file of its own (docs/checkpoints.md)",
    )


def generate(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("prompt", nargs="?", help='what to draw, in quotes; "" draws anything')
    add("-n", "--count", type=values.count, default=1, metavar="N", help="pictures; seeds count up")
    add("--seed", type=values.seed, metavar="N", help="of the first picture (default: random)")
    add("--size", type=values.size, metavar="WxH|16:9|wide", help="default: the model's")
    add("-o", "--output", metavar="PATH", help="folder, or file .png .webp .jpg (default: here)")
    add("--model", default="icons", metavar="NAME|PATH", help="default: %(default)s")
    add("--family", metavar="NAME", help="what a checkpoint is, where its file cannot say")
    _part_option(parser, "a text encoder, VAE or TAESD")
    add("--negative", default="", metavar="TEXT", help="what to keep away from")
    add(
        "--lora",
        type=values.lora,
        action="append",
        default=[],
        metavar="FILE[:S]",
        help="an adapter",
    )
    add(
        "--lora-blocks",
        type=values.blocks,
        default=(),
        metavar="PATTERN=S,…",
        help="docs/adapters.md",
    )
    add("--lora-dir", type=Path, default=Path("loras"), metavar="DIR", help="of <lora:name:0.8>")
    add("--allow-partial", action="store_true", help="leave out what of an adapter has no place")
    add("--wildcards", type=Path, default=Path("wildcards"), metavar="DIR", help="of __name__")
    add(
        "--embedding",
        type=values.embedding,
        action="append",
        default=[],
        metavar="FILE[=NAME]",
        help="a word",
    )
    add(
        "--embedding-dir",
        type=Path,
        default=Path("embeddings"),
        metavar="DIR",
        help="of embedding:name",
    )
    add(
        "--region",
        type=values.region,
        action="append",
        default=[],
        metavar="BOX|MASK=TEXT",
        help="a prompt for a part: 0,0,0.5,1=a fox (left,top,right,bottom), mask.png=a fox",
    )
    add("--steps", type=values.count, metavar="N", help="more is finer and slower")
    add("--sampler", metavar="NAME", help="see `mezzotint samplers`")
    add("--spacing", metavar="NAME", help="see `mezzotint samplers`")
    edit = parser.add_argument_group("start from a picture").add_argument
    edit("--image", metavar="FILE", help="draw after this picture")
    edit(
        "--strength", type=values.number, metavar="S", help="how far from it, 0 to 1 (default: 0.6)"
    )
    edit("--mask", metavar="FILE", help="draw anew only where this is white")
    edit("--reference", metavar="FILE", help="of models that edit, or follow edges or depth")
    edit(
        "--control",
        type=values.control,
        action="append",
        default=[],
        metavar="FILE[=PICTURE],…",
        help="a control network and what it follows (docs/adapters.md)",
    )
    edit(
        "--image-prompt",
        type=values.image_prompt,
        action="append",
        default=[],
        metavar="FILE[:S]",
        help="a picture as a prompt, and how strongly it acts",
    )
    edit("--ip-adapter", type=Path, metavar="PATH", help="what makes prompts of pictures")
    edit("--image-encoder", type=Path, metavar="PATH", help="with which it was trained")
    edit(
        "--only-masked",
        type=values.pixels,
        metavar="PX",
        help="work on the mask and so much around it",
    )
    edit(
        "--expand",
        type=values.sides,
        metavar="N|left=N,…|W:H",
        help="draw around it: pixels, aspect",
    )
    again = parser.add_argument_group("once more, with what else is given").add_argument
    again(
        "--from", dest="source", type=Path, metavar="FILE", help="a picture made here, or a sheet"
    )
    again("--pick", type=values.count, metavar="N", help="which picture of the sheet, from 1")
    add("--vary", type=values.vary, metavar="[SEED:]HOW", help="variations: subtle, strong, 0 to 1")
    add(
        "--tile",
        choices=("both", "x", "y"),
        help="whose ends fit together, to be laid side by side",
    )
    add("--opaque", action="store_true", help="on white, what is transparent")
    add("--enlarge", type=values.number, metavar="F", help="a second pass at F times the size")
    add("--enlarge-strength", type=values.number, metavar="S", help="of that pass (default: 0.35)")
    add("--enlarge-latent", action="store_true", help="enlarge the code (default strength: 0.55)")
    add("--refiner", metavar="FILE", help="a model that goes on from where the other has come to")
    add(
        "--refiner-from",
        type=values.number,
        metavar="S",
        help="its share of the way (default: 0.8)",
    )
    guide = parser.add_argument_group("guidance").add_argument
    guide("--guidance", type=values.number, metavar="W", help="pull of the prompt; 1 is off")
    guide(
        "--image-guidance", type=values.number, metavar="W", help="pull of the reference; 1 is off"
    )
    guide("--rescale", type=values.number, default=0.0, metavar="R", help="against glare, 0 to 1")
    guide("--interval", type=values.interval, metavar="LOW,HIGH", help="at noise times (0,1: all)")
    guide("--apg", action="store_true", help="adaptive projected guidance")
    guide("--cfg-zero-star", action="store_true", help="CFG-Zero*, for flow models")
    for name, what in (("perturb", "attention layers perturbed"), ("skip", "blocks left out")):
        lead = f"lead away from itself with these {what}"
        guide(f"--{name}", type=values.numbers, default=frozenset(), metavar="N,N,…", help=lead)
        guide(f"--{name}-scale", type=values.number, metavar="S", help="and how far (default: 1)")
    carry = parser.add_argument_group("what the file carries").add_argument
    carry(
        "--watermark",
        choices=("both", "noise", "pixels", "none"),
        default="both",
        help="in the noise that it is made of, in its pixels, or none (said in its recipe)",
    )
    carry("--mark-key", type=Path, metavar="FILE", help="a secret key of the watermarks")
    carry(
        "--no-credentials",
        dest="credentials",
        action="store_false",
        help="do not sign it (said in its recipe)",
    )
    carry(
        "--training",
        choices=("allowed", "notAllowed"),
        default="notAllowed",
        help="whether it may be used to train models, stated in its credentials",
    )
    carry(
        "--commercial",
        action="store_true",
        help="make it only if the licences of all that goes in allow commercial use",
    )
    carry("--sidecar", action="store_true", help="write the recipe beside it too, as .json")
    show = parser.add_argument_group("how").add_argument
    show("--server", metavar="URL", help="have it done by a server (mezzotint serve)")
    show("--device", metavar="NAME", help="cpu, cuda, cuda:1, mps (default: a GPU if there)")
    precisions = ("auto", "float32", "bfloat16", "float16")
    show("--precision", choices=precisions, default="auto", help="of a checkpoint's numbers")
    show("--memory", metavar="GB", help="take at most so much, such as 6GB (of a checkpoint)")
    show("--threads", type=values.count, metavar="N", help="of the processor")
    show("--grid", type=values.grid, metavar=_GRID, help=_ITS_GRID)
    show("--quiet", action="store_true", help="print the files' names only")
    show("--no-preview", dest="preview", action="store_false", help="no picture while drawing")


def train(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("config", metavar="CONFIG", help="what to train on what, a .toml file")
    add("--out", required=True, metavar="RUN", help="folder of the run; an existing run goes on")
    add("--skip-bad", action="store_true", help="leave damaged files of the data set out")
    add("--threads", type=values.count, metavar="N", help="of the processor")
    add("--grid", type=values.grid, metavar=_GRID, help=_ITS_GRID)
    add("--quiet", action="store_true", help="no progress bar")


def convert(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", metavar="SRC", help="file, index of shards, or folder of diffusers")
    add("target", metavar="DST", help="a file .safetensors, else a folder")
    add("--to", choices=("file", "folder"), help="(default: as DST is named)")
    add(
        "--dtype",
        choices=("keep", "float32", "float16", "bfloat16"),
        default="keep",
        help="of the numbers (default: each its own)",
    )
    add("--family", metavar="NAME", help="what a checkpoint is, where its file cannot say")
    _part_option(parser, "a text encoder or VAE")
    add("--force", action="store_true", help="replace what stands at DST")


def export(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("source", metavar="FILE", help="a picture that was made here")
    add("target", metavar="DST", help="a file .png, .webp, .jpg, .tif or .svg (traced curves)")
    add("--force", action="store_true", help="replace what stands at DST")


def verify(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("files", nargs="+", type=Path, metavar="FILE", help="pictures and sheets made here")
    add(
        "--in",
        dest="folders",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="where else models, adapters and input pictures lie",
    )
    add("--device", metavar="NAME", help="cpu, cuda, cuda:1, mps (default: as it was made)")
    add("--memory", metavar="GB", help="take at most so much, such as 6GB (of a checkpoint)")
    add("--mark-key", type=Path, metavar="FILE", help="the secret key of their watermarks")
    add("--json", action="store_true", help="one JSON document a file, a line each")


def cutout(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("file", type=Path, metavar="FILE", help="an opaque picture")
    add("-o", "--output", type=Path, metavar="OUT", help="(default: FILE-cutout.png)")
    add("--no-credentials", dest="credentials", action="store_false", help="do not sign it")


def credentials(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("files", nargs="+", type=Path, metavar="FILE")
    add(
        "--trust",
        type=Path,
        action="append",
        default=[],
        metavar="PEM",
        help=_TRUST,
    )
    add("--json", action="store_true", help="as data")


def audit(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("folder", type=Path, metavar="FOLDER", help="with all that is below it")
    add("--trust", type=Path, action="append", default=[], metavar="PEM", help=_TRUST)
    add("--json", action="store_true", help="as data")
    add("--html", type=Path, metavar="FILE", help="write a page of it too")


def licences(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add(
        "name",
        nargs="?",
        metavar="MODEL|FILE",
        help="a model, any file of weights, or a picture (default: all licences that are known)",
    )
    add("--drawings", action="store_true", help="those that a model learnt from, one by one")
    add("--csv", action="store_true", help="these as a table for other programs")
    add("--json", action="store_true", help="as data")


def sources(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("files", nargs="+", type=Path, metavar="FILE", help="pictures on nothing or on one colour")
    add("-n", "--count", type=values.count, default=10, metavar="N", help="drawings (default: 10)")
    add("--json", action="store_true", help="as data")


def inspect(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE")


def none(parser: argparse.ArgumentParser) -> None:
    """A command without options of its own."""


def _serving(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--data", type=Path, metavar="DIR", help="of pictures and jobs (default: your studio)")
    add(
        "--models",
        type=Path,
        action="append",
        default=[],
        metavar="DIR",
        help="of models; loras, embeddings, controls and wildcards below it",
    )
    add("--database", metavar="URL", help="postgresql://user@host/name (default: in the data)")
    add("--host", default="127.0.0.1", metavar="NAME", help="to listen at (default: %(default)s)")
    add("--port", type=values.port, default=7860, metavar="N", help="(default: %(default)s)")
    add("--host-name", action="append", default=[], metavar="NAME", help="that it answers to too")
    add("--origin", action="append", default=[], metavar="URL", help="of pages that may ask it")
    add("--device", action="append", default=[], metavar="NAME", help="a worker on it (several)")
    add("--memory", metavar="GB", help="of a worker's models, such as 12GB (default: one model)")
    add(
        "--idle",
        type=values.seconds,
        default=300,
        metavar="SECONDS",
        help="without work, after which a worker gives all memory back (default: 300; 0: never)",
    )
    add("--most-jobs", type=values.count, default=1000, metavar="N", help="that may wait")
    add("--token", action="store_true", help="ask for a token, even from this machine")
    add(
        "--alias",
        type=values.alias,
        action="append",
        default=[],
        metavar="NAME=MODEL",
        help="another name of a model, for programs that know one only",
    )


def serve(parser: argparse.ArgumentParser) -> None:
    _serving(parser)


def studio(parser: argparse.ArgumentParser) -> None:
    _serving(parser)
    parser.add_argument(
        "--no-browser", dest="browser", action="store_false", help="say the address, open nothing"
    )


def queue(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--server", default="http://127.0.0.1:7860", metavar="URL", help="(default: %(default)s)")
    add("--most", type=values.count, default=20, metavar="N", help="jobs that are shown")
    add("--cancel", metavar="JOB")
    add("--priority", nargs=2, metavar=("JOB", "N"), help="more goes first; usual is 0")


def token(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("action", choices=("add", "list", "revoke"))
    add("name", nargs="?", metavar="NAME", help="of whom it is for")
    add("--scopes", default="make read", metavar="TEXT", help='"make read" (default), and admin')
    add("--jobs", type=values.count, metavar="N", help="that may wait at once")
    add("--data", type=Path, metavar="DIR", help="of the server")
    add("--database", metavar="URL", help="of the server")


def detect(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("files", nargs="+", type=Path, metavar="FILE", help="pictures and sounds")
    add(
        "--model",
        metavar="NAME|PATH",
        help="that made them (default: as the recipe says, icons)",
    )
    add("--prompt", metavar="TEXT", help="of the picture, if known (default: as the recipe says)")
    add("--seed", type=values.seed, metavar="N", help="of the picture, as the prompt")
    add("--steps", type=values.count, metavar="N", help="that it took, as the prompt")
    add("--spacing", metavar="NAME", help="of its steps, as the prompt")
    add("--mark-key", type=Path, metavar="FILE", help="a secret key to look for, beside the public")
    add("--device", metavar="NAME", help="cpu, cuda, cuda:1, mps (default: a GPU if there)")
    add("--threads", type=values.count, metavar="N", help="of the processor")
    add("--json", action="store_true", help="one JSON document a file, a line each")
