"""What people do with pictures: boards that they lie on, favourites, and what came from what."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy import ColumnElement, Engine, Row, and_, delete, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from mezzotint.apps.server.tables import (
    board_outputs,
    boards,
    favourites,
    inputs,
    outputs,
    reading,
    uploads,
)
from mezzotint.apps.server.uses import inputs_of

MOST_BOARDS = 500
_MOST_CHILDREN = 100


class BoardError(ValueError):
    """A board cannot be as it is wished; one line that says why."""


def listed(engine: Engine, owner: str) -> list[dict[str, Any]]:
    """The boards of somebody by their names, each with how many pictures and the newest of them."""
    counted = (
        select(boards.c.id, boards.c.name, func.count(board_outputs.c.output).label("count"))
        .outerjoin(board_outputs, board_outputs.c.board == boards.c.id)
        .where(boards.c.owner == owner)
        .group_by(boards.c.id, boards.c.name)
        .order_by(func.lower(boards.c.name), boards.c.name)
    )
    covers = (
        select(board_outputs.c.board, board_outputs.c.output)
        .join(boards, boards.c.id == board_outputs.c.board)
        .where(boards.c.owner == owner)
        .order_by(board_outputs.c.added)
    )
    with reading(engine) as connection:
        newest = {row.board: row.output for row in connection.execute(covers)}
        found = connection.execute(counted).all()
    return [
        {"id": row.id, "name": row.name, "count": row.count, "cover": newest.get(row.id)}
        for row in found
    ]


def _named(name: str) -> str:
    told = " ".join(name.split())
    if not told or not told.isprintable():
        raise BoardError("a board needs a name that is to be seen")
    return told


def add(engine: Engine, owner: str, name: str) -> dict[str, Any]:
    """A new board.

    Raises:
        BoardError: there is one of that name, or there are too many.
    """
    made = {"id": secrets.token_hex(16), "owner": owner, "name": _named(name)}
    try:
        with engine.begin() as connection:
            count = select(func.count()).select_from(boards).where(boards.c.owner == owner)
            if (connection.scalar(count) or 0) >= MOST_BOARDS:
                raise BoardError(f"there are {MOST_BOARDS} boards: drop one first")
            connection.execute(insert(boards).values(**made, created=time.time()))
    except IntegrityError:
        raise BoardError(f"there is a board {made['name']!r} already") from None
    return {"id": made["id"], "name": made["name"], "count": 0, "cover": None}


def rename(engine: Engine, owner: str, board: str, name: str) -> bool:
    """Whether there is such a board, which has another name now.

    Raises:
        BoardError: there is another one of that name.
    """
    mine = and_(boards.c.id == board, boards.c.owner == owner)
    try:
        with engine.begin() as connection:
            changed = connection.execute(update(boards).where(mine).values(name=_named(name)))
            return changed.rowcount == 1
    except IntegrityError:
        raise BoardError(f"there is a board {_named(name)!r} already") from None


def drop(engine: Engine, owner: str, board: str) -> bool:
    """Whether there was such a board; its pictures stay."""
    with engine.begin() as connection:
        gone = connection.execute(
            delete(boards).where(boards.c.id == board, boards.c.owner == owner)
        )
        return gone.rowcount == 1


def pin(
    engine: Engine, owner: str, board: str, names: Sequence[str], sees: str | None, on: bool
) -> bool:
    """Put pictures onto a board, or take them off it; whether there is such a board.

    Args:
        sees: whose pictures may be put there; None: anybody's.
    """
    with engine.begin() as connection:
        mine = select(boards.c.id).where(boards.c.id == board, boards.c.owner == owner)
        if connection.scalar(mine) is None:
            return False
        lying = and_(board_outputs.c.board == board, board_outputs.c.output.in_(names))
        if not on:
            connection.execute(delete(board_outputs).where(lying))
            return True
        there = set(connection.scalars(select(board_outputs.c.output).where(lying)))
        seen = [] if sees is None else [outputs.c.owner == sees]
        known = connection.scalars(select(outputs.c.id).where(outputs.c.id.in_(names), *seen))
        new = [name for name in known if name not in there]
        if new:
            rows = [{"board": board, "output": name, "added": time.time()} for name in new]
            connection.execute(insert(board_outputs), rows)
        return True


def favour(engine: Engine, owner: str, name: str, on: bool) -> None:
    """Make a picture that there is a favourite, or not."""
    mine = and_(favourites.c.owner == owner, favourites.c.output == name)
    with engine.begin() as connection:
        there = connection.scalar(select(favourites.c.output).where(mine)) is not None
        if on and not there:
            connection.execute(insert(favourites).values(owner=owner, output=name))
        elif not on:
            connection.execute(delete(favourites).where(mine))


def favourites_of(engine: Engine, owner: str, names: Sequence[str]) -> set[str]:
    """Which of some pictures are favourites."""
    wanted = select(favourites.c.output).where(
        favourites.c.owner == owner, favourites.c.output.in_(names)
    )
    with reading(engine) as connection:
        return set(connection.scalars(wanted))


def boards_of(engine: Engine, owner: str, name: str) -> list[str]:
    """On which boards a picture lies."""
    wanted = (
        select(board_outputs.c.board)
        .join(boards, boards.c.id == board_outputs.c.board)
        .where(boards.c.owner == owner, board_outputs.c.output == name)
    )
    with reading(engine) as connection:
        return list(connection.scalars(wanted))


# --- what came from what ----------------------------------------------------------------------


def _varied(recipe: dict[str, Any]) -> str | None:
    """The seed of what a picture varies."""
    told = recipe.get("options", {}).get("vary")
    return str(told).rpartition(",")[2].partition(":")[0] if told else None


def _is_variation(recipe: dict[str, Any], of: dict[str, Any]) -> bool:
    """Whether a picture varies another one: asked for alike, but for where its noise lies."""
    mine, theirs = recipe.get("options", {}), of.get("options", {})
    before = f"{theirs['vary']}," if "vary" in theirs else ""
    if not str(mine.get("vary", "")).startswith(f"{before}{theirs.get('seed')}:"):
        return False
    if _varied(recipe) != theirs.get("seed"):
        return False
    own = ("seed", "vary")
    alike = [{k: v for k, v in each.items() if k not in own} for each in (mine, theirs)]
    return alike[0] == alike[1]


def family(
    engine: Engine, row: Row[Any], owner: str | None
) -> tuple[list[tuple[str, Row[Any]]], list[Row[Any]], list[tuple[str, Row[Any]]]]:
    """What a picture was made from, of outputs and of uploads, and what was made from it; each
    output with how."""
    seen = [] if owner is None else [outputs.c.owner == owner]
    recipe = json.loads(row.recipe)
    named, varied = inputs_of(recipe), _varied(recipe)
    alike = and_(outputs.c.prompt == row.prompt, outputs.c.model == row.model)
    above: list[ColumnElement[bool]] = [outputs.c.file.in_(list(named))]
    if varied is not None:
        above.append(and_(alike, outputs.c.seed == varied))
    below = or_(
        outputs.c.id.in_(select(inputs.c.output).where(inputs.c.file == row.file)),
        and_(alike, outputs.c.recipe.contains(f"{row.seed}:", autoescape=True)),
    )
    parents = select(outputs).where(or_(*above), outputs.c.id != row.id, *seen)
    children = select(outputs).where(below, outputs.c.id != row.id, *seen)
    given = select(uploads).where(uploads.c.file.in_(list(named)))
    given = given if owner is None else given.where(uploads.c.owner == owner)
    with reading(engine) as connection:
        up = connection.execute(parents.order_by(outputs.c.number).limit(20)).all()
        down = connection.execute(children.order_by(outputs.c.number).limit(_MOST_CHILDREN)).all()
        beside = list(connection.execute(given).all())
    ups = [
        (named.get(each.file, "vary"), each)
        for each in up
        if each.file in named or _is_variation(recipe, json.loads(each.recipe))
    ]
    downs: list[tuple[str, Row[Any]]] = []
    for each in down:
        theirs = json.loads(each.recipe)
        how = inputs_of(theirs).get(row.file)
        if how is None and _is_variation(theirs, recipe):
            how = "vary"
        if how is not None:
            downs.append((how, each))
    first = {file.file: file for file in beside}
    return ups, list(first.values()), downs
