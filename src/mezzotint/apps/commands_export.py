"""`mezzotint export`: a picture that was made here in another format, with all that it carries."""

from __future__ import annotations

import argparse
from pathlib import Path

from mezzotint.apps.errors import UsageError
from mezzotint.apps.sealing import converted
from mezzotint.files import atomic_write
from mezzotint.modalities.image import ImageError, writable_format
from mezzotint.provenance.identity import configured
from mezzotint.provenance.recipe import RecipeError, opened, pictures_of


def run(args: argparse.Namespace) -> int:
    """Write a picture in the format of another name; print that name.

    Raises:
        UsageError: there is such a file; ImageError, RecipeError: what is given is no picture that
            was made here; MetadataError, CredentialsError, WriteError: it cannot be written.
    """
    source, target = Path(args.source), Path(args.target)
    if target.exists() and not args.force:
        raise UsageError(f"cannot write {target}: there is such a file: --force replaces it")
    try:
        kind = "SVG" if target.suffix.lower() == ".svg" else writable_format(target)
    except ImageError as error:
        raise ImageError(f"{error}, .svg") from None
    if "pictures" in (document := opened(source)):
        count = len(pictures_of(source, document))
        raise RecipeError(f"{source}: is a sheet of {count}: export the pictures one by one")
    data, _ = converted(source, kind, target.name, configured())
    with atomic_write(target) as file:
        file.write(data)
    print(target)
    return 0
