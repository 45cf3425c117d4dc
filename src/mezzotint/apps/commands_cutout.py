"""`mezzotint cutout`: a picture without the ground behind what it shows."""

from __future__ import annotations

import argparse

from mezzotint.apps import derived, output, sealing
from mezzotint.apps.errors import UsageError
from mezzotint.modalities.image import writable_format
from mezzotint.provenance.identity import configured


def run(args: argparse.Namespace) -> int:
    """Cut out; print the name of what was written, which carries from what it comes."""
    source = args.file
    target = output.free(source.with_name(f"{source.stem}-cutout.png"))
    target = target if args.output is None else args.output
    if writable_format(target) == "JPEG":
        raise UsageError(f"{target}: a JPEG has no transparency: choose .png, .webp or .tiff")
    if target.exists():
        raise UsageError(f"{target}: is there already: choose another --output")
    how = derived.signing_cut(source, configured()) if args.credentials else None
    sealing.write(derived.cut(source), target, how)
    print(target)
    return 0
