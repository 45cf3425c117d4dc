"""What has been made and given: looked up by those whose it is."""

from __future__ import annotations

import io
import time
from typing import Any, BinaryIO, NamedTuple

from PIL import Image, UnidentifiedImageError
from sqlalchemy import Engine, Row, delete, insert, select, update

from mezzotint.apps.server import likeness, uses
from mezzotint.apps.server.tables import (
    OPEN,
    board_outputs,
    boards,
    favourites,
    inputs,
    jobs,
    outputs,
    reading,
    uploads,
)

MOST_PIXELS = 64 * 2**20
KINDS = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp", "TIFF": "image/tiff"}
MOST_ROWS = 200


class UploadError(ValueError):
    """What was given is no picture that can be used; one line that says why."""


class Page(NamedTuple):
    """Which rows: the newest ones before a number (None: of all), that fit."""

    before: int | None = None
    limit: int = 50
    words: str = ""
    model: str = ""
    seed: str = ""
    state: str = ""
    licence: str = ""
    since: float | None = None
    until: float | None = None
    board: str | None = None
    favourite: bool = False
    beyond: float | None = None
    """Of those that look like another one: after the row before that is so alike."""


def _mine(table: Any, owner: str | None) -> list[Any]:
    return [] if owner is None else [table.c.owner == owner]


def _found(engine: Engine, table: Any, wheres: list[Any], page: Page) -> list[Row[Any]]:
    if page.before is not None:
        wheres = [*wheres, table.c.number < page.before]
    wanted = select(table).where(*wheres).order_by(table.c.number.desc())
    with reading(engine) as connection:
        return list(connection.execute(wanted.limit(min(page.limit, MOST_ROWS))).all())


def job(engine: Engine, name: str, owner: str | None) -> Row[Any] | None:
    """A job; owner: whose it must be, None: anybody's."""
    with reading(engine) as connection:
        found = select(jobs).where(jobs.c.id == name, *_mine(jobs, owner))
        return connection.execute(found).one_or_none()


def jobs_of(engine: Engine, owner: str | None, page: Page) -> list[Row[Any]]:
    """Jobs, the newest first; those that wait and those that run are together ``open``."""
    states = OPEN if page.state == "open" else (page.state,)
    wheres = _mine(jobs, owner) + ([jobs.c.state.in_(states)] if page.state else [])
    return _found(engine, jobs, wheres, page)


def output(engine: Engine, name: str, owner: str | None) -> Row[Any] | None:
    with reading(engine) as connection:
        found = select(outputs).where(outputs.c.id == name, *_mine(outputs, owner))
        return connection.execute(found).one_or_none()


def outputs_of(
    engine: Engine, owner: str | None, page: Page, whose: str | None = None
) -> list[Row[Any]]:
    """Pictures, the newest first: those whose prompts have all of the words.

    whose: boards and favourites are meant.
    """
    return _found(engine, outputs, _wheres(owner, page, whose), page)


def outputs_like(
    engine: Engine, like: bytes, owner: str | None, page: Page, whose: str | None = None
) -> list[tuple[Row[Any], float]]:
    """Pictures with how much they look like another one, the most alike first: of those that
    :func:`outputs_of` finds, where it is known how they look.

    like: what is seen of the other one.
    """
    after = None
    if page.before is not None and page.beyond is not None:
        after = likeness.Found(page.beyond, page.before)
    seen = select(outputs.c.number, outputs.c.seen).where(outputs.c.seen.is_not(None))
    seen = seen.where(*_wheres(owner, page, whose))
    limit = min(page.limit, MOST_ROWS)
    with reading(engine).execution_options(yield_per=1000) as connection:
        found = likeness.nearest(connection.execute(seen), like, limit, after)
    alike = {each.number: each.likeness for each in found}
    with reading(engine) as connection:
        wanted = select(outputs).where(outputs.c.number.in_(alike))
        rows = {row.number: row for row in connection.execute(wanted)}
    return [(rows[number], much) for number, much in alike.items() if number in rows]


def seen_of(engine: Engine, file: str) -> bytes | None:
    """What is seen of a file; None: nobody has looked yet."""
    with reading(engine) as connection:
        for table in (outputs, uploads):
            wanted = select(table.c.seen).where(table.c.file == file, table.c.seen.is_not(None))
            if (found := connection.scalar(wanted.limit(1))) is not None:
                return found
    return None


def saw(engine: Engine, file: str, seen: bytes) -> None:
    """Keep what was seen of a file."""
    with engine.begin() as connection:
        for table in (outputs, uploads):
            connection.execute(update(table).where(table.c.file == file).values(seen=seen))


def _wheres(owner: str | None, page: Page, whose: str | None) -> list[Any]:
    wheres = _mine(outputs, owner)
    wheres += [outputs.c.prompt.icontains(word, autoescape=True) for word in page.words.split()]
    wheres += [outputs.c.model == page.model] if page.model else []
    wheres += [outputs.c.seed == page.seed] if page.seed else []
    wheres += [outputs.c.licence.icontains(page.licence, autoescape=True)] if page.licence else []
    wheres += [outputs.c.created >= page.since] if page.since is not None else []
    wheres += [outputs.c.created < page.until] if page.until is not None else []
    if page.board is not None:
        pinned = select(board_outputs.c.output).join(boards, boards.c.id == board_outputs.c.board)
        pinned = pinned.where(boards.c.id == page.board, boards.c.owner == whose)
        wheres.append(outputs.c.id.in_(pinned))
    if page.favourite:
        loved = select(favourites.c.output).where(favourites.c.owner == whose)
        wheres.append(outputs.c.id.in_(loved))
    return wheres


def outputs_by_job(engine: Engine, names: list[str]) -> dict[str, list[Row[Any]]]:
    """The pictures of jobs, in their order."""
    found: dict[str, list[Row[Any]]] = {name: [] for name in names}
    wanted = select(outputs).where(outputs.c.job.in_(names)).order_by(outputs.c.place)
    with reading(engine) as connection:
        for row in connection.execute(wanted):
            found[row.job].append(row)
    return found


def file_of(engine: Engine, name: str, owner: str | None) -> str | None:
    """The file of an output's id or of an upload's, or one that an output was made of; None: there
    is none that is the owner's."""
    if len(name) == 32:
        found = output(engine, name, owner)
        return None if found is None else found.file
    made_of = select(inputs.c.file).join(outputs, outputs.c.id == inputs.c.output)
    looks = [
        select(table.c.file).where(table.c.file == name, *_mine(table, owner))
        for table in (uploads, outputs)
    ]
    looks.append(made_of.where(inputs.c.file == name, *_mine(outputs, owner)))
    with reading(engine) as connection:
        there = any(connection.scalar(each.limit(1)) is not None for each in looks)
    return name if there else None


def called(engine: Engine, file: str, owner: str | None) -> str:
    """What people call a picture, as the name of a file: by its prompt, or as it was given."""
    looks = [
        select(column).where(table.c.file == file, *_mine(table, owner)).limit(1)
        for table, column in ((outputs, outputs.c.prompt), (uploads, uploads.c.name))
    ]
    with reading(engine) as connection:
        found = (connection.scalar(each) or "" for each in looks)
        words = ("".join(c for c in name if c.isprintable() and c not in "/\\") for name in found)
        names = (" ".join(each.split())[:60].strip(" .") for each in words)
        return next((name for name in names if name), file[:12])


def kind_of(file: bytes | BinaryIO) -> str:
    """The media type of a picture, by its header alone.

    Raises:
        UploadError: it is none, or too large.
    """
    try:
        opened = io.BytesIO(file) if isinstance(file, bytes) else file
        with Image.open(opened, formats=tuple(KINDS)) as image:
            if image.width * image.height > MOST_PIXELS:
                raise UploadError(
                    f"{image.width}x{image.height} is more than {MOST_PIXELS >> 20} megapixels"
                )
            return KINDS[str(image.format)]
    except UnidentifiedImageError:
        raise UploadError(f"no picture of a known format: {', '.join(KINDS)}") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise UploadError(f"is of more than {MOST_PIXELS >> 20} megapixels") from None
    except UploadError:
        raise
    except Exception as error:  # Pillow's plugins raise anything on damaged files
        raise UploadError(f"a damaged picture: {' '.join(str(error).split())[:200]}") from None


def enter(engine: Engine, owner: str, file: str, kind: str, size: int, name: str) -> None:
    """Note that somebody has given a file; twice is once.  name: what he calls it, of which is kept
    what can be seen."""
    name = "".join(c for c in name if c.isprintable())[:200]
    with engine.begin() as connection:
        there = select(uploads.c.file).where(uploads.c.file == file, uploads.c.owner == owner)
        if connection.scalar(there) is None:
            connection.execute(
                insert(uploads).values(
                    file=file, owner=owner, kind=kind, bytes=size, name=name, created=time.time()
                )
            )


def forget(engine: Engine, name: str, owner: str | None) -> list[str] | None:
    """Take a picture out of the gallery; None: there is none.

    Returns the files that nothing names any more: its own, and those that it was made of.
    """
    with engine.begin() as connection:
        of_it = list(connection.scalars(select(inputs.c.file).where(inputs.c.output == name)))
        gone = delete(outputs).where(outputs.c.id == name, *_mine(outputs, owner))
        file = connection.scalar(gone.returning(outputs.c.file))
        return None if file is None else uses.unused(connection, [file, *of_it])
