"""Pictures made of other pictures: cut out of one, and put together of several."""

from __future__ import annotations

import asyncio
import json
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Query, Request, Response
from pydantic import StringConstraints

from mezzotint.apps.server import gallery, shown
from mezzotint.apps.server.api import BYTES, Named, ended
from mezzotint.apps.server.asking import PICTURE, Asks, Serves
from mezzotint.apps.server.service import MissingError

router = APIRouter(prefix="/v1", tags=["mezzotint"])

PictureId = Annotated[str, StringConstraints(pattern="^([0-9a-f]{32}|[0-9a-f]{64})$")]
MOST_PARTS = 200
OUTPUT = "x-mezzotint-output"


@router.post("/cutouts", status_code=201)
async def cut_out(body: Named, who: Asks, service: Serves) -> dict[str, Any]:
    """Remove the ground of a picture: a new one in the gallery, which comes from it."""
    job = await asyncio.to_thread(service.look, who, "cutout", body.picture)
    result = json.loads((await ended(service, who, job)).result or "{}")
    found = await asyncio.to_thread(gallery.output, service.engine, result["output"], who.sees)
    if found is None:
        raise MissingError("it was thrown away already")
    return shown.output(found)


@router.post(
    "/composites",
    response_class=Response,
    responses=PICTURE,
    openapi_extra={"requestBody": BYTES},
)
async def compose(
    request: Request,
    who: Asks,
    service: Serves,
    part: Annotated[list[PictureId], Query(max_length=MOST_PARTS)] = [],  # noqa: B006
    name: Annotated[str, Query(max_length=200)] = "",
    form: Annotated[Literal["png", "webp", "jpeg"], Query(alias="format")] = "png",
    keep: bool = False,
) -> Response:
    """A picture that was put together of others, which is the whole body, as a file that says so:
    signed, with each `part` (the id of a picture of which there is something in it) and their
    licences.  `keep`: in the gallery too, as the output that `x-mezzotint-output` names."""
    data = await request.body()
    told = "".join(c for c in " ".join(name.split()) if c.isprintable())
    job = await asyncio.to_thread(service.compose, who, data, part, told, form, keep)
    files = [json.loads(job.wish)["file"]]
    try:
        result = json.loads((await ended(service, who, job)).result or "{}")
        files.append(result["file"])
        sealed = await asyncio.to_thread(service.store.get, result["file"])
    finally:
        await asyncio.to_thread(service.tidy, files)
    headers = {"content-disposition": f'attachment; filename="{job.id}.{form}"'}
    headers |= {OUTPUT: result["output"]} if keep else {}
    return Response(sealed, media_type=result["type"], headers=headers)
