"""`mezzotint convert`: a checkpoint in another layout or precision."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import cast

import torch

from mezzotint.apps.errors import UsageError
from mezzotint.engine.convert import Form, convert
from mezzotint.families.separate import Given

_SUFFIX = ".safetensors"
_TYPES = {
    "keep": None,
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


def run(args: argparse.Namespace) -> int:
    """Convert; print the name of what was written, and on standard error what was not carried."""
    target = Path(args.target)
    named = "file" if target.suffix == _SUFFIX else "folder"
    if args.to is not None and args.to != named:
        rule = f"a file's name ends in {_SUFFIX}, a folder's does not"
        raise UsageError(f"{target} is no name for a {args.to}: {rule}")
    done = convert(
        Path(args.source),
        target,
        cast(Form, named),
        _TYPES[args.dtype],
        args.family,
        args.force,
        [Given(*part) for part in args.part],
    )
    for note in done.notes:
        print(note, file=sys.stderr)
    print(f"{done.tensors} tensors of the family {done.family}", file=sys.stderr)
    print(done.path)
    return 0
