"""Rows as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import Row


def when(seconds: float | None) -> str | None:
    """A time as people and programs read it."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def output(row: Row[Any], whole: bool = False) -> dict[str, Any]:
    """A picture; whole: with its recipe."""
    recipe = json.loads(row.recipe)
    said = {
        "id": row.id,
        "job": row.job,
        "place": row.place,
        "number": row.number,
        "file": row.file,
        "url": f"/v1/outputs/{row.id}/file",
        "type": row.kind,
        "bytes": row.bytes,
        "width": row.width,
        "height": row.height,
        "seed": row.seed,
        "model": row.model,
        "prompt": row.prompt,
        "licence": row.licence,
        "derived": recipe.get("derived"),
        "transparent": str(recipe.get("pixels", {}).get("mode", "")).endswith("A"),
        "energy": recipe.get("energy"),
        "created": when(row.created),
    }
    return {**said, "recipe": recipe} if whole else said


def model(name: str) -> dict[str, Any]:
    """A model as OpenAI's programs read it; when it was made is not known."""
    return {"id": name, "object": "model", "created": 0, "owned_by": "mezzotint"}


def job(row: Row[Any], made: Sequence[Row[Any]] = ()) -> dict[str, Any]:
    """A job, with what it has made so far."""
    asked = json.loads(row.wish)
    return {
        "id": row.id,
        "number": row.number,
        "kind": row.kind,
        "state": row.state,
        "owner": row.owner,
        "priority": row.priority,
        "asked": asked.get("options"),
        "count": row.pictures,
        "step": row.step,
        "steps": row.steps,
        "attempt": row.attempt,
        "error": None if row.error is None else {"message": row.error, "fault": row.fault},
        "result": None if row.result is None else json.loads(row.result),
        "outputs": [output(each) for each in made],
        "created": when(row.created),
        "started": when(row.started),
        "finished": when(row.finished),
    }
