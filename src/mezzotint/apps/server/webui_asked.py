"""What a request of AUTOMATIC1111's API asks for, as a wish of ours (wish.py).

Every field is either expressed, or refused with the reason, or harmless: then it is ignored, and
listed in the answer.  What is not given is the model's own where it is of the model (steps,
guidance, size, sampler), else AUTOMATIC1111's.
"""

from __future__ import annotations

import math
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from mezzotint.apps.errors import suggestion
from mezzotint.apps.server import wish
from mezzotint.apps.server.given import Given, Masking
from mezzotint.apps.server.wish import WishError
from mezzotint.provenance.called import SAMPLERS, SPACINGS, WEBUI_SAMPLERS, WEBUI_SPACINGS

LATENT, LANCZOS = "Latent", "Lanczos"
_BLUR, _DENOISING = 4.0, 0.75  # AUTOMATIC1111's, of what is made of a picture
_STRETCH, _CUT = 0, 1  # resize_mode
_ORIGINAL, _NOISE = 1, 2  # inpainting_fill

_NEUTRAL: dict[str, tuple[tuple[object, ...], str]] = {
    "styles": (([],), "there are no styles: write them into the prompt"),
    "restore_faces": ((False,), "there is no model here that restores faces"),
    "script_name": (("", "None"), "scripts do not run here"),
    "script_args": (([], {}), "scripts do not run here"),
    "alwayson_scripts": (({}, []), "extensions do not run here: see control of POST /v1/jobs"),
    "seed_resize_from_h": ((0, -1), "the noise has the picture's size"),
    "seed_resize_from_w": ((0, -1), "the noise has the picture's size"),
    "s_churn": ((0,), "a sampler's noise cannot be set"),
    "s_tmin": ((0,), "a sampler's noise cannot be set"),
    "s_noise": ((1,), "a sampler's noise cannot be set"),
    "s_min_uncond": ((0,), "no step leaves guidance out: see interval of POST /v1/jobs"),
    "initial_noise_multiplier": ((1, 0), "the noise cannot be made larger"),
    "firstpass_image": ((), "the first pass is always made here"),
    "firstphase_width": ((0,), "give width and height of the first pass"),
    "firstphase_height": ((0,), "give width and height of the first pass"),
    "hr_second_pass_steps": ((0,), "the second pass has the steps of the first"),
    "hr_checkpoint_name": (("", "Use same checkpoint"), "both passes have one model"),
    "hr_sampler_name": (("", "Use same sampler"), "both passes have one sampler"),
    "hr_scheduler": (("", "Use same scheduler"), "both passes have one scheduler"),
    "hr_prompt": (("",), "both passes have one prompt"),
    "hr_negative_prompt": (("",), "both passes have one prompt"),
    "latent_mask": ((), "give mask"),
    "infotext": (("",), "give the fields themselves"),
}
"""Fields that cannot be expressed: the values that ask for nothing, and why others are refused."""

_HARMLESS: dict[str, tuple[tuple[object, ...], str]] = {
    "s_tmax": ((0,), "without churn it has no part"),
    "do_not_save_samples": ((False,), "the gallery keeps every picture"),
    "do_not_save_grid": ((False, True), ""),
    "save_images": ((False, True), ""),
    "override_settings_restore_afterwards": ((True,), "they are of this request alone"),
    "disable_extra_networks": ((False,), "there were none in the prompt"),
    "include_init_images": ((False,), "pictures that were given are not sent back"),
    "comments": (({},), "they are not kept"),
    "force_task_id": (("",), "jobs have ids of their own"),
    "mask_round": ((True, False), ""),
}
"""Fields that are ignored: the values that say nothing else, and what is told of others."""

_SETTINGS: dict[str, tuple[tuple[object, ...], str]] = {
    "sd_vae": (("Automatic", "None", ""), "a model has its own"),
    "CLIP_stop_at_last_layers": ((0, 1), "the text encoder's last layers are always used"),
    "samples_format": (("png",), "pictures are PNG here"),
    "img2img_color_correction": ((False,), "colours are not corrected"),
    "enable_pnginfo": ((True,), "every picture carries its recipe"),
    "eta_ancestral": ((1,), "a sampler's noise cannot be set"),
    "eta_ddim": ((0,), "a sampler's noise cannot be set"),
}
_HARMLESS_SETTINGS = frozenset(
    {
        *("eta_noise_seed_delta", "randn_source", "sd_checkpoint_hash", "save_images_add_number"),
        *("live_previews_enable", "show_progress_every_n_steps", "grid_save", "samples_save"),
        *("return_grid", "do_not_show_images", "add_model_hash_to_info", "save_images_before_"),
        *("live_previews_image_format", "show_progress_type", "sd_checkpoint_cache"),
    }
)
"""The noise is another one than AUTOMATIC1111's anyway, and what is saved and shown is ours."""


@dataclass
class Body:
    """The fields of a request, which must all be read."""

    given: Mapping[str, Any]
    read: set[str] = field(default_factory=set)
    left: list[str] = field(default_factory=list)

    def get(self, name: str) -> Any:
        self.read.add(name)
        return self.given.get(name)

    def text(self, name: str) -> str:
        value = self.get(name)
        if not isinstance(value, str | None):
            raise WishError(f"{name} must be a text", name)
        return value or ""

    def number(self, name: str, usual: float | None = None) -> float | None:
        value = self.get(name)
        if value is None:
            return usual
        found = math.nan
        if isinstance(value, str | int | float) and not isinstance(value, bool):
            with suppress(ValueError, OverflowError):
                found = float(value)
        if not math.isfinite(found):
            raise WishError(f"{name} must be a number", name)
        return value if isinstance(value, int) else found

    def whole(self, name: str, usual: int | None = None) -> int | None:
        value = self.number(name, usual)
        if value is None:
            return None
        if value != int(value):
            raise WishError(f"{name} must be a whole number", name)
        return int(value)

    def flag(self, name: str, usual: bool = False) -> bool:
        value = self.get(name)
        if value is None:
            return usual
        if value not in (0, 1):
            raise WishError(f"{name} must be true or false", name)
        return bool(value)

    def leave(self, name: str, why: str) -> None:
        """Note a field that is ignored."""
        self.left.append(f"{name}: {why}" if why else name)


@dataclass(frozen=True)
class Here:
    """What there is: samplers and spacings of ours, the words of embeddings by their files, whether
    the model is told a picture that it edits, and how a picture is stretched."""

    samplers: Sequence[str]
    spacings: Sequence[str]
    embeddings: Mapping[str, str]
    edits: bool
    stretch: Callable[[Given, tuple[int, int]], Given]


def _is_neutral(value: object, neutral: tuple[object, ...]) -> bool:
    return value is None or value in neutral


def check(body: Body) -> None:
    """Refuse what cannot be expressed, and note what is ignored.

    Raises:
        WishError: a field is one of the former, or none that is known.
    """
    for name, (neutral, why) in _NEUTRAL.items():
        if not _is_neutral(body.get(name), neutral):
            raise WishError(f"{name}: {why}", name)
    for name, (neutral, why) in _HARMLESS.items():
        if not _is_neutral(body.get(name), neutral):
            body.leave(name, why)
    for name in body.given:
        if name not in body.read:
            near = suggestion(name, sorted(body.read))
            raise WishError(f"no field {name[:40]!r}{near}", name[:40])


def settings(given: object, left: list[str]) -> str | None:
    """The model among settings; the others must ask for nothing else than what is done.

    Raises:
        WishError: one does.
    """
    if not isinstance(given, Mapping):
        raise WishError("settings must be an object", "override_settings")
    model = None
    for name, value in given.items():
        if name == "sd_model_checkpoint":
            model = str(value) if value else None
        elif name in _SETTINGS:
            neutral, why = _SETTINGS[name]
            if not _is_neutral(value, neutral):
                raise WishError(f"{name}: {why}", name)
        elif name in _HARMLESS_SETTINGS:
            left.append(f"{name}: it has no part here")
        else:
            raise WishError(f"no setting {name[:40]!r} here", name[:40])
    return model


def _prompt(body: Body, name: str) -> str:
    """A prompt: written as ours, but for braces that are no choice."""
    text = body.text(name)
    if re.search(r"\bAND\b", text):
        raise WishError(f"{name}: AND joins no prompts here: see region of POST /v1/jobs", name)
    if (other := re.search(r"<(?!lora:|lyco:)(\w+):[^<>]*>", text)) is not None:
        raise WishError(f"{name}: <{other[1]}:…> is not known here: <lora:…> alone", name)
    if body.get("disable_extra_networks") and "<lo" in text:
        raise WishError(f"{name}: take <lora:…> out of it", "disable_extra_networks")
    return text if "|" in text else re.sub(r"(?<!\\)([{}])", r"\\\1", text)


def sampler(name: str, here: Here) -> dict[str, str]:
    """The sampler of a name, and the spacing that may stand behind it.

    Raises:
        WishError: there is none.
    """
    low, found = name.lower().strip(), {}
    for ending in ("karras", "exponential"):
        if low.endswith(f" {ending}"):
            low, found["spacing"] = low.removesuffix(f" {ending}"), ending
    if low in ("", "automatic"):
        return found
    ours = SAMPLERS.get(low, low)
    if ours not in here.samplers:
        known = ", ".join(WEBUI_SAMPLERS.get(each, each) for each in here.samplers)
        raise WishError(f"no sampler {name[:40]!r}: {known}", "sampler_name")
    return {**found, "sampler": ours}


def spacing(name: str, here: Here) -> dict[str, str]:
    """The spacing of a scheduler's name; automatic is the model's own.

    Raises:
        WishError: there is none.
    """
    low = name.lower().strip()
    if low in ("", "automatic"):
        return {}
    ours = low if low in here.spacings else SPACINGS.get(low, low)
    if ours not in here.spacings:
        known = ", ".join(WEBUI_SPACINGS.get(each, each) for each in here.spacings)
        raise WishError(f"no scheduler {name[:40]!r}: {known}", "scheduler")
    return {"spacing": ours}


def _eta(body: Body, chosen: str) -> None:
    """Refuse another noise than the sampler's own; those that have none do not heed it."""
    eta = body.number("eta")
    usual = 0 if chosen == "ddim" else 1 if chosen.endswith("ancestral") else None
    if eta is not None and usual is not None and eta != usual:
        raise WishError(f"eta: of {chosen} it is {usual}: take another sampler", "eta")


def _seeds(body: Body) -> dict[str, Any]:
    seed, other = body.whole("seed", -1), body.whole("subseed", -1)
    strength = body.number("subseed_strength", 0)
    assert seed is not None and other is not None
    if not strength:
        return {} if seed < 0 else {"seed": seed}
    root = secrets.randbelow(wish.SEEDS) if seed < 0 else seed
    found = {"vary": f"{root}:{strength:g}"}
    return found if other < 0 else {**found, "seed": other}


def _edges(body: Body) -> tuple[int, int] | None:
    width, height = body.whole("width"), body.whole("height")
    if width is None and height is None:
        return None
    if width is None or height is None:
        raise WishError("width and height: give both, or neither", "width")
    if not 0 < width < 1 << 16 or not 0 < height < 1 << 16:
        raise WishError("width and height must lie above 0 and below 65536", "width")
    return width, height


def _common(body: Body, here: Here) -> dict[str, Any]:
    """What is asked for with and without a picture."""
    name = body.text("sampler_name") or body.text("sampler_index")
    body.get("sampler_index")
    chosen = {**sampler(name, here), **spacing(body.text("scheduler"), here)}
    _eta(body, chosen.get("sampler", ""))
    prompt, negative = _prompt(body, "prompt"), _prompt(body, "negative_prompt")
    words = re.split(r"[^\w-]+", f"{prompt} {negative}".lower())
    batch, times = body.whole("batch_size", 1), body.whole("n_iter", 1)
    assert batch is not None and times is not None
    refiner = body.text("refiner_checkpoint")
    refiner = "" if refiner == "None" else refiner
    share = body.number("refiner_switch_at")
    return {
        **chosen,
        **_seeds(body),
        "prompt": prompt,
        "negative": negative or None,
        "steps": body.whole("steps"),
        "guidance": body.number("cfg_scale"),
        "count": batch * times,
        "tile": "both" if body.flag("tiling") else None,
        "embedding": [file for word, file in here.embeddings.items() if word in words] or None,
        "refiner": refiner or None,
        "refiner_from": share if refiner else None,
    }


def _enlarged(body: Body, edges: tuple[int, int] | None) -> dict[str, Any]:
    """The second pass."""
    wanted = (body.whole("hr_resize_x", 0) or 0, body.whole("hr_resize_y", 0) or 0)
    scale, upscaler = body.number("hr_scale", 2), body.text("hr_upscaler")
    strength = body.number("denoising_strength")
    if not body.flag("enable_hr"):
        return {}
    if any(wanted):
        if edges is None:
            raise WishError("hr_resize_x needs width and height", "hr_resize_x")
        ratios = {size / edge for size, edge in zip(wanted, edges, strict=True) if size}
        if len(ratios) > 1:
            raise WishError("hr_resize_x and hr_resize_y: another aspect: give one", "hr_resize_x")
        scale = ratios.pop()
    latent = upscaler.startswith(LATENT)
    if not latent and upscaler not in ("", "None", LANCZOS):
        raise WishError(f"no upscaler {upscaler[:40]!r}: {LATENT}, {LANCZOS}", "hr_upscaler")
    if latent and upscaler != LATENT:
        body.leave("hr_upscaler", f"enlarged as {LATENT}")
    found = {"enlarge": scale, "enlarge_strength": strength}
    return {**found, "enlarge_latent": True} if latent else found


def from_words(body: Body, here: Here) -> dict[str, Any]:
    """A wish of `txt2img`.

    Raises:
        WishError: it cannot be fulfilled.
    """
    edges = _edges(body)
    size = None if edges is None else f"{edges[0]}x{edges[1]}"
    found = {**_common(body, here), **_enlarged(body, edges), "size": size}
    check(body)
    return found


def _placed(
    body: Body, here: Here, picture: Given, edges: tuple[int, int] | None, masked: bool
) -> Given:
    """The picture as resize_mode has it in the wanted size."""
    mode = body.whole("resize_mode", 0)
    if edges is None or masked or edges[0] * picture.size[1] == edges[1] * picture.size[0]:
        return picture
    if mode == _STRETCH:
        body.leave("resize_mode", "stretched first: the picture's credentials are not carried on")
        return here.stretch(picture, edges)
    if mode != _CUT:
        raise WishError("resize_mode: 0 stretches and 1 cuts: there are no others", "resize_mode")
    return picture


def from_picture(
    body: Body,
    here: Here,
    picture: Given,
    mask: Callable[[Given, Masking], Given] | None,
) -> dict[str, Any]:
    """A wish of `img2img`; mask: makes one for a picture.

    Raises:
        WishError: it cannot be fulfilled.
    """
    edges = _edges(body)
    strength = body.number("denoising_strength", _DENOISING)
    invert, hard = body.flag("inpainting_mask_invert"), body.flag("mask_round", True)
    how, fill = Masking(invert, _blur(body), hard), body.whole("inpainting_fill", 0)
    only, padding = body.flag("inpaint_full_res", True), body.whole("inpaint_full_res_padding", 0)
    guidance = body.number("image_cfg_scale")
    body.read |= {"init_images", "mask", "hr_scale", "hr_upscaler", "hr_resize_x", "hr_resize_y"}
    if body.flag("enable_hr"):
        raise WishError("enable_hr is of txt2img: give width and height", "enable_hr")
    common = _common(body, here)
    placed = _placed(body, here, picture, edges, mask is not None and only)
    check(body)
    size = picture.aspect if edges is None else f"{edges[0]}x{edges[1]}"
    found = {**common, "size": size, "strength": strength}
    if here.edits:
        if mask is not None:
            raise WishError("this model edits by words: leave the mask out", "mask")
        if "denoising_strength" in body.given and strength != 1:
            body.leave("denoising_strength", "this model is told of the picture")
        return {**found, "strength": None, "reference": placed.id, "image_guidance": guidance}
    if guidance is not None:
        body.leave("image_cfg_scale", "it is of models that are told the picture that they edit")
    found["image"] = placed.id
    if mask is None:
        return found
    found["mask"] = mask(placed, how).id
    if only:
        found["only_masked"] = padding
        found["size"] = None if edges is None else size
    if fill != _ORIGINAL:  # begins with noise there
        found["strength"] = None
        if "denoising_strength" in body.given and strength != 1:
            why = "with inpainting_fill other than 1 what is masked is drawn from noise"
            body.leave("denoising_strength", why)
        if fill != _NOISE:
            body.leave("inpainting_fill", "what is masked is drawn from noise")
    return found


def _blur(body: Body) -> float:
    """The blur of the mask, in pixels."""
    one = body.number("mask_blur")
    pair = {body.number("mask_blur_x", one), body.number("mask_blur_y", one)} - {None}
    if len(pair) > 1:
        raise WishError("mask_blur_x and mask_blur_y: make them equal", "mask_blur_x")
    blur = pair.pop() if pair else _BLUR
    if blur is None or not 0 <= blur <= 256:
        raise WishError("mask_blur must lie between 0 and 256", "mask_blur")
    return blur
