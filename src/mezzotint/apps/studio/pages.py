"""The studio's page and what it is made of: files of this package, by a table made beforehand.

No path of a request is ever joined to a folder's: what is not in the table is not there.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import NamedTuple

from fastapi import APIRouter, Request, Response

STATIC = Path(__file__).parent / "static"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".LICENSE": "text/plain; charset=utf-8",
}
"""What is served; other files there are for those who read the source."""

router = APIRouter(include_in_schema=False)


class Page(NamedTuple):
    data: bytes
    kind: str
    tag: str


def _pages() -> dict[str, Page]:
    """All files by their addresses, ``/`` the page itself."""
    found: dict[str, Page] = {}
    for path in sorted(STATIC.rglob("*")):
        if path.suffix in TYPES and path.is_file():
            data = path.read_bytes()
            tag = f'"{hashlib.sha256(data).hexdigest()[:32]}"'
            name = path.relative_to(STATIC).as_posix()
            found[f"/{name}"] = Page(data, TYPES[path.suffix], tag)
    found["/"] = found.pop("/index.html")
    return found


def _serve(address: str, page: Page) -> None:
    async def answer(request: Request) -> Response:
        crew = request.app.state.service.crew
        if address == "/" and crew is not None:
            crew.rouse()  # who opens the page wants pictures soon
        headers = {"etag": page.tag, "cache-control": "no-cache"}  # asked again, rarely sent again
        if page.tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers=headers)
        return Response(page.data, media_type=page.kind, headers=headers)

    router.add_route(address, answer)


for address, page in _pages().items():
    _serve(address, page)
