"""InvokeAI: ``invokeai_metadata`` (from 3.0), ``sd-metadata`` (from 2.0), ``Dream`` (before).

The first is a table of what was set; the second has one under ``image``; the third is the command
as it was typed, ``"a prompt" -s 50 -S 1 -W 512 -H 512 -C 7.5 -A k_lms``.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping

from mezzotint.provenance.foreign.names import (
    Draft,
    Foreign,
    Sought,
    file_name,
    inner,
    literal,
    table,
    told,
)
from mezzotint.provenance.recipe import RecipeError

_KNOWN = frozenset(
    {
        *("app_version", "generation_mode", "positive_prompt", "negative_prompt", "width"),
        *("height", "seed", "rand_device", "cfg_scale", "cfg_rescale_multiplier", "steps"),
        *("scheduler", "seamless_x", "seamless_y", "model", "loras", "vae", "strength"),
        *("init_image", "guidance", "positive_style_prompt", "negative_style_prompt"),
        *("clip_skip", "hrf_enabled", "type"),
    }
)
_WEIGHTED = re.compile(
    r"(?<!\\)\(([^()]{1,2000})\)(\d(?:\.\d{1,6})?|[+-]{1,8})"
    r"|(?<![\w'])([\w']{1,80})([+-]{1,8})(?!\w)"
)
_LONGEST = 64 << 10


def prompt(text: str) -> str:
    """A prompt in the notation of Compel: ``(fox)1.3``, ``(fox)++``, ``fox--`` get their weights
    as ours, other brackets are letters."""
    if len(text) > _LONGEST:  # it will be refused
        return text
    pieces: list[str] = []
    end = 0
    for match in _WEIGHTED.finditer(text):
        words, said = match[1] or match[3], match[2] or match[4]
        if match[3] and (len(said) < 2 and said == "-"):  # a hyphen
            continue
        each = 1.1 if said[0] == "+" else 0.9
        weight = float(said) if said[0].isdigit() else round(each ** len(said), 4)
        pieces += [
            literal(text[end : match.start()], "()[]{}<"),
            f"({literal(words, '[]{}<')}:{weight:g})",
        ]
        end = match.end()
    return "".join([*pieces, literal(text[end:], "()[]{}<")])


def _scheduler(draft: Draft, value: object) -> None:
    name = value if isinstance(value, str) else ""
    karras = name.endswith("_k") and not name.startswith("k_")
    draft.sampler({"dpmpp_2s": "dpmpp_2s_ancestral"}.get(n := name.removesuffix("_k"), n) or value)
    draft.options["spacing"] = "karras" if karras else "leading"


def _model(draft: Draft, option: str, value: object, more: str = "") -> None:
    """A model as 3.0 to 5.x name it: by a name that is no file's, and perhaps a hash."""
    found = value if isinstance(value, dict) else {}
    name = found.get("name", found.get("model_name"))
    digest = found.get("hash")
    plain = file_name(name)
    if plain is None:
        draft.leave(f"{option}: {told(name)} is no file's name: give it with --{option}")
        return
    if option in ("model", "lora"):
        draft.file(option, plain, more)
    if isinstance(digest, str):
        draft.sought.append(Sought(option, plain, told(digest)))
    draft.leave(f"{option}: {told(plain)} is its name there, and may not be its file's")


def read(text: str) -> Foreign:
    """``invokeai_metadata`` as a command.

    Raises:
        RecipeError: it cannot be read.
    """
    found = table(text, "invokeai_metadata")
    draft = Draft(told(f"InvokeAI {found.get('app_version', '')}".strip()))
    for key, option in (("positive_prompt", "prompt"), ("negative_prompt", "negative")):
        if isinstance(said := found.get(key), str):
            draft.text(option, prompt(said))
    if found.get("positive_style_prompt") not in (None, "", found.get("positive_prompt")):
        draft.leave("prompt: a second one, for the style, cannot be given here")
    draft.size(found.get("width"), found.get("height"))
    for option, key, low, high in (("seed", "seed", 0, 2**64 - 1), ("steps", "steps", 1, 10_000)):
        if key in found:
            draft.whole(option, found[key], low, high)
    flux = str(found.get("generation_mode", "")).startswith("flux")
    scale = found.get("guidance") if flux and "guidance" in found else found.get("cfg_scale")
    if scale is not None:
        draft.number("guidance", scale, 0, 1000)
    if found.get("cfg_rescale_multiplier"):
        draft.number("rescale", found["cfg_rescale_multiplier"], 0, 1)
    if "scheduler" in found:
        _scheduler(draft, found["scheduler"])
    _parts(draft, found)
    for key in found.keys() - _KNOWN:
        if found[key] not in (None, [], "", False):
            draft.leave(f"{told(key)}: {told(found[key])}: not known here")
    return draft.done()


def _parts(draft: Draft, found: Mapping[str, object]) -> None:
    tiled = [axis for axis in "xy" if found.get(f"seamless_{axis}") is True]
    if tiled:
        draft.options["tile"] = "both" if len(tiled) == 2 else tiled[0]
    if "model" in found:
        _model(draft, "model", found["model"])
    if isinstance(found.get("vae"), dict):
        _model(draft, "part", found["vae"])
    loras = found.get("loras")
    for lora in loras[:64] if isinstance(loras, list) else ():
        if isinstance(lora, dict):
            weight = lora.get("weight", 1)
            good = isinstance(weight, int | float) and abs(weight) < 100
            value = lora.get("model", lora.get("lora"))
            _model(draft, "lora", value, f":{weight:g}" if good else "")
    if found.get("clip_skip"):
        draft.leave(f"clip_skip: {told(found['clip_skip'])}: all layers are used here")
    if found.get("hrf_enabled"):
        draft.leave("hrf_enabled: how far it was enlarged is not said: see --enlarge")
    mode = str(found.get("generation_mode", "txt2img"))
    if not mode.endswith("txt2img"):
        draft.leave(f"image: of {told(mode)} the picture is not in the file: give it with --image")
        if found.get("strength") is not None:
            draft.leave(f"strength: {told(found['strength'])}: give it with the picture")


# --- older versions ---------------------------------------------------------------------------


def _older(draft: Draft, text: str) -> None:
    """Before 3.0 what stands in square brackets is the negative prompt."""
    negative = " ".join(re.findall(r"(?<!\\)\[([^\[\]]*)\]", text))
    draft.text("prompt", prompt(re.sub(r"(?<!\\)\[[^\[\]]*\]", "", text).strip()))
    draft.text("negative", prompt(negative.strip()))


def read_sd(text: str) -> Foreign:
    """``sd-metadata`` as a command.

    Raises:
        RecipeError: it cannot be read.
    """
    found = table(text, "sd-metadata")
    image = inner(found, "image")
    draft = Draft(told(f"InvokeAI {found.get('app_version', '')}".strip()))
    said = image.get("prompt")
    if isinstance(said, list):
        parts = [part.get("prompt") for part in said[:64] if isinstance(part, dict)]
        if len(parts) > 1:
            draft.leave("prompt: of several with weights the first is taken")
        said = parts[0] if parts else ""
    _older(draft, said if isinstance(said, str) else "")
    draft.size(image.get("width"), image.get("height"))
    draft.whole("steps", image.get("steps"), 1, 10_000)
    draft.whole("seed", image.get("seed"), 0, 2**64 - 1)
    draft.number("guidance", image.get("cfg_scale"), 0, 1000)
    draft.sampler(image.get("sampler"))
    draft.options["tile"] = "both"
    if image.get("seamless") is not True:
        del draft.options["tile"]
    name, digest = found.get("model_weights"), found.get("model_hash")
    if isinstance(digest, str) and file_name(name) is not None:
        draft.sought.append(Sought("model", str(file_name(name)), told(digest)))
    draft.leave(f"model: {told(name)} is its name there: say where it is with --model")
    if image.get("type", "txt2img") != "txt2img":
        draft.leave(f"image: of {told(image['type'])} the picture is not in the file: see --image")
    for key in ("variations", "postprocessing", "threshold", "perlin", "hires_fix"):
        if image.get(key):
            draft.leave(f"{key}: {told(image[key])}: not known here")
    return draft.done()


_FLAGS = {"-s": "steps", "-S": "seed", "-C": "guidance", "-W": "width", "-H": "height"}
_WORDS = {"--steps": "-s", "--seed": "-S", "--cfg_scale": "-C", "--width": "-W", "--height": "-H"}
_WORDS |= {"--sampler": "-A", "--init_img": "-I", "--strength": "-f", "--seamless": "--seamless"}


def read_dream(text: str) -> Foreign:
    """``Dream`` as a command.

    Raises:
        RecipeError: it cannot be read.
    """
    try:
        words = shlex.split(text[: 64 << 10])
    except ValueError:
        raise RecipeError("its Dream cannot be read: a quote is open") from None
    draft = Draft("InvokeAI")
    said: list[str] = []
    values: dict[str, str] = {}
    rest = [piece for word in words[:5000] for piece in _apart(word)]
    at = 0
    while at < len(rest):
        flag = _WORDS.get(rest[at], rest[at])
        if flag in _FLAGS or flag in ("-A", "-I", "-f"):
            values[flag] = rest[at + 1] if at + 1 < len(rest) else ""
            at += 2
            continue
        if re.fullmatch(r"--?[A-Za-z]\w*", flag):
            draft.leave(f"{told(flag)}: not known here")
        else:
            said.append(flag)
        at += 1
    _older(draft, " ".join(said))
    draft.size(values.get("-W"), values.get("-H"))
    for flag, option, high in (("-s", "steps", 10_000), ("-S", "seed", 2**64 - 1)):
        if flag in values:
            draft.whole(option, values[flag], 0, high)
    if "-C" in values:
        draft.number("guidance", values["-C"], 0, 1000)
    if "-A" in values:
        draft.sampler(values["-A"])
    if "-I" in values:
        draft.leave(f"image: {told(values['-I'])} is not in the file: give it with --image")
    draft.leave("model: it is not said there: give it with --model")
    return draft.done()


def _apart(word: str) -> list[str]:
    """``-s50`` and ``--steps=50`` as two words."""
    if match := re.fullmatch(r"(-[sSCWHAf])([\w.]+)", word):
        return [match[1], match[2]]
    if match := re.fullmatch(r"(--\w+)=(.*)", word, re.DOTALL):
        return [match[1], match[2]]
    return [word]
