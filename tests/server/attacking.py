"""What attackers send: the places of a request for a text, found in the server's own OpenAPI
document, texts to put there, and a watch on what a process opens."""

from __future__ import annotations

import json
import os
from ast import literal_eval
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import httpx
from serving import Serving

import tiny_model

PATHS = (
    "../../../../../../../../etc/passwd",
    "/etc/passwd",
    "..\\..\\..\\windows\\win.ini",
    "file:///etc/passwd",
    "\\\\host\\share\\model.safetensors",
    "icons\0.png",
    "%2e%2e%2f%2e%2e%2fetc%2fpasswd",
    "%252e%252e%252fetc%252fpasswd",
    "..%c0%af..%c0%afetc/passwd",
    "\uff0e\uff0e\uff0f\uff0e\uff0e\uff0fetc\uff0fpasswd",  # full-width dots and slashes
    "CON",
    "~root/.ssh/id_rsa",
    "$(touch hostile)`touch hostile`;touch hostile",
    "-",
    "--output=hostile.png",
    "\ud800",  # half a character
    "e\u0301\u202e\u0000\uffff" + "\u0300" * 40,
    "x" * 12_000,
)
"""Names of files elsewhere, as they come; what is to be seen of them is an answer below 500."""


class Spot(NamedTuple):
    """A place of a request that takes a text: where in it, and the keys that lead there."""

    method: str
    route: str
    where: str  # path, query, header, json, form or file
    keys: tuple[str | int, ...]

    def __str__(self) -> str:
        return f"{self.method} {self.route} {self.where} {'.'.join(map(str, self.keys))}"


class Known(NamedTuple):
    """Things of the server that requests may name, by the part of the route before the name; a
    picture as a file, and the fields of bodies that the document leaves open, by route."""

    ids: Mapping[str, str]
    picture: bytes
    open: Mapping[str, Mapping[str, Any]]


def _leaves(schema: Any, parts: Mapping[str, Any], more: Mapping[str, Any]) -> Iterator[Any]:
    """The ways to everything in a body that has no parts; more: fields that it may have too."""
    if "$ref" in schema:
        schema = parts[schema["$ref"].rpartition("/")[2]]
    for kind in schema.get("anyOf", ()):
        if "$ref" in kind or kind.get("type") in ("object", "array"):
            yield from _leaves(kind, parts, more)
    named = schema.get("properties", {})
    if schema.get("type") == "object" or named:
        for name, inner in named.items():
            yield from ((name, *rest) for rest in _leaves(inner, parts, {}))
        for name in more:
            if name not in named:
                yield (name,)
        if schema.get("additionalProperties") and not more:
            yield ("deep", "er", 0, "still")
    elif schema.get("type") == "array":
        yield (0,)
    else:
        yield ()


def spots(document: Mapping[str, Any], known: Known) -> list[Spot]:
    """Every place for a text of every route of an OpenAPI document."""
    parts = document["components"]["schemas"]
    found: list[Spot] = []
    for route, methods in document["paths"].items():
        for method, operation in methods.items():

            def at(where: str, *keys: Any, own: tuple[str, str] = (method.upper(), route)) -> None:
                found.append(Spot(*own, where, keys))

            for each in operation.get("parameters", ()):
                at(each["in"], each["name"])
            at("query", "not-known")
            at("header", "authorization")
            for kind, said in operation.get("requestBody", {}).get("content", {}).items():
                if kind == "multipart/form-data":
                    for name in said["schema"]["properties"]:
                        at("file" if name in ("image", "mask") else "form", name)
                    at("form", "not-known")
                elif kind == "application/json":
                    for way in _leaves(said["schema"], parts, known.open.get(route, {})):
                        at("json", *way)
                    at("json", "not-known")
    return found


def _example(schema: Any, parts: Mapping[str, Any], known: Known) -> Any:
    """The least that fits."""
    if "$ref" in schema:
        return _example(parts[schema["$ref"].rpartition("/")[2]], parts, known)
    if "anyOf" in schema:
        return _example(schema["anyOf"][0], parts, known)
    match schema.get("type"):
        case "object":
            named = schema.get("properties", {})
            return {
                name: _example(named[name], parts, known) for name in schema.get("required", ())
            }
        case "array":
            return []
        case "integer" | "number":
            return schema.get("minimum", 0)
        case "boolean":
            return True
    if "pattern" in schema:
        return known.ids["file" if "64" in schema["pattern"] else "output"]
    return schema.get("enum", ["fox"])[0]


def _put(body: Any, keys: tuple[str | int, ...], text: str) -> Any:
    """A body with a text at the end of a way, which is made."""
    if not keys:
        return text
    key, *rest = keys
    if isinstance(key, int):
        inner = body[0] if isinstance(body, list) and body else None
        return [_put(inner, tuple(rest), text)]
    there = dict(body) if isinstance(body, dict) else {}
    return {**there, key: _put(there.get(key), tuple(rest), text)}


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def request(
    base: str, document: Mapping[str, Any], known: Known, spot: Spot, text: str
) -> httpx.Request:
    """A request that is right but for a text in one place."""
    operation = document["paths"][spot.route][spot.method.lower()]
    parts, route = document["components"]["schemas"], spot.route
    query, headers = {}, {}
    for each in operation.get("parameters", ()):
        name, hit = each["name"], (each["in"], each["name"]) == (spot.where, *spot.keys)
        if each["in"] == "path":
            before = spot.route.partition("{" + name)[0].rstrip("/")
            value = text if hit else known.ids[before]
            route = route.replace("{" + name + "}", quote(_utf8(value), safe="" if hit else "/"))
        elif each["in"] == "query" and (hit or each["required"]):
            query[name] = text if hit else _example(each["schema"], parts, known)
    if spot.where == "query":
        query[str(spot.keys[0])] = text
    if spot.where == "header":
        headers[str(spot.keys[0])] = text
    content = b""
    for kind, said in operation.get("requestBody", {}).get("content", {}).items():
        headers["content-type"] = kind
        if kind == "application/octet-stream":
            content = known.picture
        elif kind == "application/json":
            body = {**_example(said["schema"], parts, known), **known.open.get(spot.route, {})}
            content = json.dumps(
                _put(body, spot.keys, text) if spot.where == "json" else body
            ).encode()
        else:
            headers["content-type"] += "; boundary=edge"
            content = _form(said["schema"], known, spot, text)
    asked = "&".join(f"{quote(k)}={quote(_utf8(str(v)), safe='')}" for k, v in query.items())
    clean = [(name.encode(), _in_header(value)) for name, value in headers.items()]
    return httpx.Request(
        spot.method,
        f"{base}{route}" + (f"?{asked}" if asked else ""),
        headers=clean,
        content=content,
    )


def _in_header(text: str) -> bytes:
    """A header has no NUL and no end of line, or no server reads it at all; test_attacks_sites.py
    sends those."""
    return _utf8(text).translate(None, b"\0\r\n")[:8000]


def _form(schema: Any, known: Known, spot: Spot, text: str) -> bytes:
    """A form with a picture."""
    hit = str(spot.keys[0]) if spot.where in ("form", "file") else ""
    texts = {name: "fox" for name in schema["required"] if name != "image"}
    texts |= known.open.get(spot.route, {})
    if spot.where == "form":
        texts[hit] = text
    files = {"image": "a.png"} | ({hit: text} if spot.where == "file" else {})
    pieces = [
        b'--edge\r\ncontent-disposition: form-data; name="%b"\r\n\r\n%b\r\n'
        % (name.encode(), _utf8(str(value)))
        for name, value in texts.items()
    ]
    pieces += [
        b'--edge\r\ncontent-disposition: form-data; name="%b"; filename="%b"\r\n'
        b"content-type: image/png\r\n\r\n%b\r\n"
        % (name.encode(), _in_header(called).replace(b'"', b"%22"), known.picture)
        for name, called in files.items()
    ]
    return b"".join(pieces) + b"--edge--\r\n"


# --- what is opened ---------------------------------------------------------------------------

_HOOK = """
import os, sys
_log = os.open(os.environ["WATCH"], os.O_WRONLY | os.O_APPEND | os.O_CREAT)
_TELLS = {"open", "os.listdir", "os.scandir", "os.mkdir", "os.remove", "os.rename", "os.link",
    "os.symlink", "os.truncate", "shutil.copyfile", "shutil.rmtree", "subprocess.Popen",
    "os.system", "os.exec", "os.posix_spawn", "os.chdir", "socket.connect", "socket.getaddrinfo",
    "sqlite3.connect"}
def _hook(event, args):
    if event in _TELLS:
        told = [os.fsdecode(each) if isinstance(each, (str, bytes)) else repr(each)
            for each in args[:2]]
        os.write(_log, (repr((event, *told)) + "\\n").encode("utf-8", "backslashreplace"))
sys.addaudithook(_hook)
"""


def watched(folder: Path) -> dict[str, str]:
    """Variables that make each Python process write down what it opens, starts and connects to."""
    folder.mkdir()
    (folder / "sitecustomize.py").write_text(_HOOK)
    path = f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"
    return {"PYTHONPATH": path, "WATCH": str(folder / "log"), "PYTHONDONTWRITEBYTECODE": "1"}


SECRET = "a secret that is nobody's business"
TINY = "tiny.safetensors"


class Attacked(Serving):
    """A server of which everything that it opens is written down; files of nobody's business lie
    beside its folders."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, ("--models", str(folder / "models")))
        self.models = folder / "models"
        for kind in ("loras", "embeddings", "wildcards", "controls"):
            (self.models / kind).mkdir(parents=True)
        tiny_model.write(self.models / TINY)
        for name in ("canary.txt", "canary.safetensors", "canary.png"):
            (folder / name).write_text(SECRET)
        self.env |= watched(folder / "watch")

    def opened(self) -> list[tuple[str, ...]]:
        """All that was opened, started, connected to."""
        lines = (self.folder / "watch" / "log").read_text().splitlines()
        return [literal_eval(line) for line in lines]
