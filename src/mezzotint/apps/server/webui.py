"""AUTOMATIC1111's API under /sdapi/v1: what talks to it talks to us after changing one address.

docs/server/apis.md says what is mapped how, and what is refused.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import os
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Request, Response
from fastapi.exceptions import RequestValidationError
from sqlalchemy import Row
from starlette.exceptions import HTTPException  # what the guard raises is no fastapi one

from mezzotint.apps.server import asking, gallery, given, webui_asked, webui_text
from mezzotint.apps.server.asking import RETRY_SECONDS, STATUS, Knows, Serves, status, whose
from mezzotint.apps.server.given import Given, Masking
from mezzotint.apps.server.places import listed
from mezzotint.apps.server.service import Service
from mezzotint.apps.server.tokens import Who
from mezzotint.apps.server.webui_asked import Body, Here
from mezzotint.apps.server.wish import WishError
from mezzotint.provenance.called import SAMPLERS, WEBUI_SAMPLERS, WEBUI_SPACINGS

MODEL = "icons"
_WEIGHTS = (".safetensors", ".pt", ".ckpt", ".bin")
_FOLLOW_SECONDS = 5.0
Given64 = dict[str, Any]


@dataclass
class Doing:
    """A request that is being fulfilled."""

    job: str
    count: int
    began: float = field(default_factory=time.monotonic)
    step: int = 0
    steps: int = 0
    preview: str | None = None
    interrupted: bool = False


@dataclass
class State:
    """What is remembered while the server runs, by owner: what is being done for him, and the model
    that he has chosen by `options`."""

    doing: dict[str, list[Doing]] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)


# --- errors and who asks ----------------------------------------------------------------------


def _error(code: int, kind: str, told: str) -> Response:
    """An error in AUTOMATIC1111's form."""
    headers = {"retry-after": str(RETRY_SECONDS)} if code in (429, 503) else None
    said = {"error": kind, "detail": told, "body": "", "errors": told}
    return asking.in_json(said, code, headers)


def _answer(error: Exception) -> Response:
    """Any error in AUTOMATIC1111's form."""
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][1:])
        return _error(422, "RequestValidationError", f"{where}: {first['msg']}")
    if isinstance(error, HTTPException):
        answer = _error(error.status_code, "HTTPException", str(error.detail))
        answer.headers.update(error.headers or {})
        return answer
    if isinstance(error, tuple(STATUS)):
        return _error(status(error), type(error).__name__, asking.said(error))
    traceback.print_exception(error)
    return _error(500, "HTTPException", "a fault of the server: its log says more")


def _who(request: Request, service: Serves) -> Who:
    """Who asks: a token as the password of HTTP Basic, or as elsewhere."""
    kind, _, said = request.headers.get("authorization", "").partition(" ")
    token = said.strip() if kind.lower() == "bearer" else ""
    if kind.lower() == "basic":
        try:
            token = base64.b64decode(said, validate=True).decode().partition(":")[2]
        except (binascii.Error, ValueError):
            raise HTTPException(401, "Authorization: Basic … is no user:password") from None
    return whose(request, service, token, "Basic")


def _state(request: Request) -> State:
    return request.app.state.webui


Asks = Annotated[Who, Depends(_who)]
Remembers = Annotated[State, Depends(_state)]
router = APIRouter(
    prefix="/sdapi/v1",
    tags=["AUTOMATIC1111"],
    route_class=asking.route_of(_answer),
    responses=asking.refusals(webui_text.Refused),
)

# --- what there is ----------------------------------------------------------------------------


def _about(service: Service) -> dict[str, Any]:
    return {} if service.crew is None else service.crew.about


def _names(service: Service) -> list[str]:
    return [each["name"] for each in _about(service).get("models", [])]


def _model(service: Service, said: str) -> str:
    """The model that is called so, perhaps with its hash behind it or without its ending.

    Raises:
        WishError: there is none.
    """
    plain = said.rpartition(" [")[0] if said.endswith("]") else said
    names = _names(service)
    alike = [name for name in names if plain in (name, Path(name).stem)]
    if not alike and plain not in service.aliases:
        raise WishError(
            f"no model {said[:80]!r}: there is {', '.join(names)}", "sd_model_checkpoint"
        )
    return alike[0] if alike else plain


def _weights(service: Service, kind: str) -> list[Path]:
    """Files of adapters or embeddings, from where prompts find them."""
    return [path for path in listed(service.places.one_of(kind)) if path.suffix in _WEIGHTS]


def _here(service: Service, who: Who, model: str, body: Mapping[str, Any]) -> Here:
    about = _about(service)

    def stretch(picture: Given, size: tuple[int, int]) -> Given:
        data = given.stretched(service.store.get(picture.id), size)
        return given.enter(service, who, data, "stretched")

    return Here(
        samplers=about.get("samplers", []),
        spacings=about.get("spacings", []),
        embeddings={p.stem.lower(): p.name for p in _weights(service, "embeddings")},
        edits=bool(service.about(model).get("usual", {}).get("edits")),
        stretch=stretch,
    )


# --- making -----------------------------------------------------------------------------------


async def _made(
    service: Service, who: Who, state: State, wished: dict[str, Any], key: str | None
) -> tuple[Row[Any], list[Row[Any]], Doing]:
    """The job of a wish when it has ended, and its pictures."""
    job = await asyncio.to_thread(service.submit, who, wished, 0, key)
    doing = Doing(job.id, job.pictures, steps=job.steps)
    state.doing.setdefault(who.owner, []).append(doing)
    try:
        service.began(job)
        async for told in service.follow(who, job.id, _FOLLOW_SECONDS):
            if told is not None and "step" in told:
                doing.step, doing.steps = told["step"], told["steps"]
                doing.preview = told.get("preview", doing.preview)
    finally:
        state.doing[who.owner].remove(doing)
        if not state.doing[who.owner]:
            del state.doing[who.owner]
    job = await asyncio.to_thread(service.job, who, job.id)
    made = await asyncio.to_thread(gallery.outputs_by_job, service.engine, [job.id])
    return job, made[job.id], doing


def _info(rows: list[Row[Any]], wished: dict[str, Any], left: list[str]) -> dict[str, Any]:
    """What AUTOMATIC1111 says of the pictures of a request."""
    recipes = [json.loads(row.recipe) for row in rows]
    texts = [webui_text.infotext(recipe) for recipe in recipes]
    options = recipes[0]["options"] if recipes else {}
    first = webui_text.fields(recipes[0]) if recipes else {}
    varies = "vary" in wished
    own = [int(row.seed) for row in rows]
    seeds = [int(first["Seed"])] * len(own) if varies and own else own
    prompts = [recipe["options"].get("prompt", "") for recipe in recipes]
    negatives = [recipe["options"].get("negative", "") for recipe in recipes]
    return {
        "prompt": wished["prompt"],
        "all_prompts": prompts,
        "negative_prompt": wished["negative"] or "",
        "all_negative_prompts": negatives,
        "seed": seeds[0] if seeds else -1,
        "all_seeds": seeds,
        "subseed": own[0] if varies and own else -1,
        "all_subseeds": own if varies else [-1] * len(own),
        "subseed_strength": float(first.get("Variation seed strength", 0)),
        "width": rows[0].width if rows else 0,
        "height": rows[0].height if rows else 0,
        "sampler_name": first.get("Sampler", ""),
        "cfg_scale": float(options.get("guidance", 0)),
        "steps": int(options.get("steps", 0)),
        "batch_size": len(rows),
        "restore_faces": False,
        "face_restoration_model": None,
        "sd_model_name": options.get("model", wished["model"]),
        "sd_model_hash": None,
        "sd_vae_name": None,
        "sd_vae_hash": None,
        "denoising_strength": float(first.get("Denoising strength", 0)),
        "extra_generation_params": {},
        "index_of_first_image": 0,
        "infotexts": texts,
        "styles": [],
        "job_timestamp": datetime.now().strftime("%Y%m%d%H%M%S"),
        "clip_skip": 1,
        "not_expressed": left,
        "outputs": [row.id for row in rows],
    }


async def _answered(
    service: Service,
    who: Who,
    state: State,
    wished: dict[str, Any],
    body: Body,
    sends: bool,
    key: str | None,
) -> Response:
    job, rows, doing = await _made(service, who, state, wished, key)
    if job.state == "failed":
        request = job.fault == "request"
        return _error(422 if request else 500, "RequestError" if request else "Fault", job.error)
    if job.state == "cancelled" and not doing.interrupted:
        return _error(409, "Cancelled", "the job was cancelled")
    files = [await asyncio.to_thread(service.store.get, row.file) for row in rows if sends]
    images = [base64.b64encode(data).decode() for data in files]
    parameters = {name: value for name, value in body.given.items() if name != "mask"}
    if "init_images" in parameters:
        parameters["init_images"] = None
    info = json.dumps(_info(rows, wished, body.left))
    return asking.in_json({"images": images, "parameters": parameters, "info": info})


def _begun(
    service: Service, who: Who, state: State, given_: Mapping[str, Any]
) -> tuple[Body, str, bool]:
    """The fields of a request, its model, and whether its pictures are sent."""
    service.need(who, "make")
    service.need(who, "read")
    body = Body(given_)
    wanted = webui_asked.settings(body.get("override_settings") or {}, body.left)
    model = state.models.get(who.owner, MODEL) if wanted is None else _model(service, wanted)
    return body, model, body.flag("send_images", True)


Key = Annotated[str | None, Header(max_length=256)]


@router.post("/txt2img")
async def txt2img(
    body: Given64, who: Asks, service: Knows, state: Remembers, idempotency_key: Key = None
) -> Response:
    """Pictures from words."""
    asked, model, sends = _begun(service, who, state, body)
    here = _here(service, who, model, body)
    wished = {"model": model, **webui_asked.from_words(asked, here)}
    return await _answered(service, who, state, wished, asked, sends, idempotency_key)


def _picture(service: Service, who: Who, said: object) -> Given:
    """The one picture of a request.

    Raises:
        WishError, UploadError: there is none, or several.
    """
    if not isinstance(said, list) or len(said) != 1 or not isinstance(said[0], str):
        raise WishError("init_images must be a list of one picture in base64", "init_images")
    return given.enter(service, who, given.decoded(said[0], "the picture"))


def _wished(
    service: Service, who: Who, asked: Body, model: str, body: Mapping[str, Any]
) -> dict[str, Any]:
    picture = _picture(service, who, asked.get("init_images"))
    said = asked.get("mask")
    if not isinstance(said, str | None):
        raise WishError("mask must be a picture in base64", "mask")
    data = None if said is None else given.decoded(said, "the mask")

    def masking(of: Given, how: Masking) -> Given:
        assert data is not None
        made = given.white_is_new(data, of.size, how)
        return given.enter(service, who, made, "mask")

    here = _here(service, who, model, body)
    mask = None if data is None else masking
    return {"model": model, **webui_asked.from_picture(asked, here, picture, mask)}


@router.post("/img2img")
async def img2img(
    body: Given64, who: Asks, service: Knows, state: Remembers, idempotency_key: Key = None
) -> Response:
    """Pictures from one, all of it or what a mask has in white."""
    asked, model, sends = _begun(service, who, state, body)
    wished = await asyncio.to_thread(_wished, service, who, asked, model, body)
    return await _answered(service, who, state, wished, asked, sends, idempotency_key)


@router.get("/progress")
async def progress(who: Asks, state: Remembers, skip_current_image: bool = False) -> dict[str, Any]:
    """How far the oldest request is that this token has made here."""
    doing = next(iter(state.doing.get(who.owner, [])), None)
    said = {
        "skipped": False,
        "interrupted": False if doing is None else doing.interrupted,
        "stopping_generation": False,
        "job": "" if doing is None else doing.job,
        "job_count": 0 if doing is None else doing.count,
        "job_timestamp": "0",
        "job_no": 0,
        "sampling_step": 0,
        "sampling_steps": 0,
    }
    none = {"progress": 0.0, "eta_relative": 0.0, "state": said, "current_image": None}
    if doing is None or not doing.steps:
        return {**none, "textinfo": None}
    each = max(doing.steps // doing.count, 1)
    number = max(doing.step - 1, 0) // each  # after its last step a picture has yet to be kept
    said |= {"job_no": min(number, doing.count - 1), "sampling_steps": each}
    said["sampling_step"] = doing.step - said["job_no"] * each
    share = doing.step / doing.steps
    left = (time.monotonic() - doing.began) * (1 - share) / share if share else 0.0
    shown = None
    if doing.preview is not None and not skip_current_image:
        data = base64.b64decode(doing.preview)
        png = await asyncio.to_thread(given.as_kind, data, "PNG")
        shown = base64.b64encode(png).decode()
    far = {"progress": share, "eta_relative": left, "state": said, "current_image": shown}
    return {**far, "textinfo": None}


@router.post("/interrupt")
async def interrupt(who: Asks, service: Serves, state: Remembers) -> dict[str, Any]:
    """End what this token has asked for here: each answers with the pictures that are complete."""
    for doing in [*state.doing.get(who.owner, [])]:
        doing.interrupted = True
        service.ended(await asyncio.to_thread(service.cancel, who, doing.job))
    return {}


# --- looking ----------------------------------------------------------------------------------


@router.get("/samplers")
def samplers(who: Asks, service: Knows) -> list[dict[str, Any]]:
    """The samplers, by AUTOMATIC1111's names where it has them."""
    found = []
    for name in _about(service).get("samplers", []):
        label = WEBUI_SAMPLERS.get(name, name)
        also = [other for other, ours in SAMPLERS.items() if ours == name]
        aliases = [other for other in dict.fromkeys([name, *also]) if other != label]
        found.append({"name": label, "aliases": aliases, "options": {}})
    return found


@router.get("/schedulers")
def schedulers(who: Asks, service: Knows) -> list[dict[str, Any]]:
    """The spacings; Automatic is the model's own."""
    rows = [("automatic", "Automatic")]
    spacings = _about(service).get("spacings", [])
    rows += [(name, WEBUI_SPACINGS.get(name, name)) for name in spacings]
    more = {"aliases": None, "default_rho": -1.0, "need_inner_model": False}
    return [{"name": name, "label": label, **more} for name, label in rows]


@router.get("/sd-models")
def sd_models(who: Asks, service: Knows) -> list[dict[str, Any]]:
    """The models; never where they are."""
    more = {"hash": None, "sha256": None, "config": None}
    names = [*_names(service), *service.aliases]
    return [{"title": n, "model_name": Path(n).stem, "filename": n, **more} for n in names]


@router.get("/loras")
def loras(who: Asks, service: Serves) -> list[dict[str, Any]]:
    """The adapters that `<lora:name:1>` finds."""
    found = _weights(service, "loras")
    return [{"name": p.stem, "alias": p.stem, "path": p.name, "metadata": {}} for p in found]


@router.get("/embeddings")
def embeddings(who: Asks, service: Serves) -> dict[str, Any]:
    """The words of embeddings; whether one fits a model is seen when it is used."""
    none = ("step", "sd_checkpoint", "sd_checkpoint_name", "shape", "vectors")
    found = {p.stem: dict.fromkeys(none) for p in _weights(service, "embeddings")}
    return {"loaded": found, "skipped": {}}


@router.get("/upscalers")
def upscalers(who: Asks) -> list[dict[str, Any]]:
    more = {"model_name": None, "model_path": None, "model_url": None, "scale": 4}
    return [{"name": name, **more} for name in ("None", webui_asked.LANCZOS)]


@router.get("/latent-upscale-modes")
def latent_upscale_modes(who: Asks) -> list[dict[str, str]]:
    return [{"name": webui_asked.LATENT}]


@router.get("/sd-vae")
@router.get("/hypernetworks")
@router.get("/face-restorers")
@router.get("/prompt-styles")
@router.get("/script-info")
def nothing(who: Asks) -> list[Any]:
    """There are none here."""
    return []


@router.get("/scripts")
def scripts(who: Asks) -> dict[str, list[Any]]:
    """There are none here."""
    return {"txt2img": [], "img2img": []}


@router.post("/refresh-checkpoints")
def refresh(who: Asks) -> None:
    """Nothing: models that come and go are seen by themselves, within seconds."""


@router.get("/memory")
def memory(who: Asks) -> dict[str, Any]:
    """The memory of this machine, in bytes."""
    try:
        page = os.sysconf("SC_PAGE_SIZE")
        total, free = (page * os.sysconf(f"SC_{kind}_PAGES") for kind in ("PHYS", "AVPHYS"))
    except (AttributeError, ValueError, OSError):  # not on every system
        return {"ram": {"error": "unavailable"}, "cuda": {"error": "unavailable"}}
    ram = {"free": free, "used": total - free, "total": total}
    return {"ram": ram, "cuda": {"error": "unavailable"}}


@router.get("/options")
def options(who: Asks, state: Remembers) -> dict[str, Any]:
    """The settings: the model is the token's own."""
    return {
        "sd_model_checkpoint": state.models.get(who.owner, MODEL),
        "sd_checkpoint_hash": None,
        "sd_vae": "Automatic",
        "CLIP_stop_at_last_layers": 1,
        "samples_format": "png",
        "enable_pnginfo": True,
    }


@router.post("/options")
def choose(body: Given64, who: Asks, service: Knows, state: Remembers) -> None:
    """Choose the model that this token's next requests take, until the server is stopped."""
    service.need(who, "make")
    wanted = webui_asked.settings(body, [])
    if wanted is not None:
        state.models[who.owner] = _model(service, wanted)


# --- texts in pictures ------------------------------------------------------------------------


@router.post("/png-info")
async def png_info(body: Given64, who: Asks) -> dict[str, Any]:
    """How a picture was made: of one that was made here the recipe too, in `items`."""
    return await asyncio.to_thread(partial(webui_text.said, body.get("image")))
