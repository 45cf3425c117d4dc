"""The text ``parameters`` of AUTOMATIC1111's web UI, Forge, SD.Next and others that write it.

    a prompt, perhaps of several lines
    Negative prompt: what to keep away from
    Steps: 20, Sampler: Euler a, CFG scale: 7, Seed: 1, Size: 512x512, Lora hashes: "a: 1f…, b: 2e…"

Values with commas or colons are JSON texts.  The short hash of a model is the first 10 hex digits
of its SHA-256.
"""

from __future__ import annotations

import json
import re

from mezzotint.provenance.foreign.names import Draft, Foreign, Sought, file_name, literal, told
from mezzotint.provenance.recipe import RecipeError

_FIELD = re.compile(r'([A-Za-z][\w \-/.]{0,60}+):\s*+("(?:\\.|[^\\"])*+"|[^,]*+)(?:,|$)')
_NEGATIVE = "Negative prompt:"
_MOST_FIELDS = 300
_HIRES = {"Hires upscale": "enlarge", "Denoising strength": "enlarge-strength"}
_SILENT = frozenset(
    {
        *("Version", "Steps", "Sampler", "Schedule type", "CFG scale", "Seed", "Size", "Model"),
        *("Model hash", "Denoising strength", "Lora hashes", "TI hashes", "TI", "Hashes"),
        *("Hires upscale", "Hires upscaler", "VAE", "VAE hash", "User", "App", "Operations"),
        *("CFG rescale", "Tiling", "Variation seed", "Variation seed strength", "Parser"),
        *("Module 1", "Module 2", "Module 3", "Distilled CFG Scale", "Pipeline", "Backend"),
        *("Mask blur", "Backend diffusers", "Time", "Created Date", "Hires schedule type"),
    }
)
_WHY = {
    "RNG": "seed: its noise was drawn by {}",
    "Clip skip": "Clip skip: {}: the text encoder's last layers are always used here",
    "ENSD": "ENSD: {}: shifts seeds in a way that is not known here",
    "Eta": "Eta: {}: a sampler's noise cannot be set here",
}


def is_it(text: str) -> bool:
    """Whether a text is such a one: there is a line of fields in it."""
    return re.search(r"(?:^|\n)Steps: \d+,", text) is not None


def _split(text: str) -> tuple[str, str, dict[str, str]]:
    """The prompt, the negative one, and the fields of the last line."""
    lines = text.replace("\r\n", "\n").strip().split("\n")
    starts = [n for n, line in enumerate(lines) if re.match(r"Steps: \d+,", line)]
    if not starts:
        raise RecipeError("its parameters have no line of `Steps: …`: type them")
    head, tail = lines[: starts[-1]], "\n".join(lines[starts[-1] :])
    prompts: dict[bool, list[str]] = {False: [], True: []}
    negative = False
    for line in head:
        if not negative and line.startswith(_NEGATIVE):
            negative, line = True, line[len(_NEGATIVE) :].lstrip()
        prompts[negative].append(line)
    fields: dict[str, str] = {}
    for count, match in enumerate(_FIELD.finditer(tail)):
        if count == _MOST_FIELDS:
            break
        fields.setdefault(match[1].strip(), _value(match[2].strip()))
    return "\n".join(prompts[False]).strip(), "\n".join(prompts[True]).strip(), fields


def _value(raw: str) -> str:
    if raw[:1] != '"':
        return raw
    try:
        return str(json.loads(raw))
    except ValueError:
        return raw.strip('"')


def _program(fields: dict[str, str]) -> str:
    version = fields.get("Version", "")
    if fields.get("App", "").lower().startswith("sd.next"):
        return told(f"SD.Next {version}".strip())
    if version.startswith(("f0", "f1", "f2")):
        return told(f"Forge {version}")
    return told(f"AUTOMATIC1111's web UI {version}".strip())


def _prompt(draft: Draft, option: str, text: str) -> None:
    """Its prompts are written as ours, but for braces; what it has beyond is left out."""
    for match in set(re.findall(r"<(?!lora:)(\w+):[^<>]*>", text)):
        draft.leave(f"{option}: <{match}:…> is not known here: it is left out")
    text = re.sub(r"<(?!lora:)\w+:[^<>]*>", "", text)
    if re.search(r"\bAND\b", text):
        draft.leave(f"{option}: AND, which joins several prompts, is a word like any other here")
    draft.text(option, literal(text, "{}").strip())


def _model(draft: Draft, fields: dict[str, str]) -> None:
    name, digest = fields.get("Model", ""), fields.get("Model hash", "").lower()
    if name:
        draft.file("model", name)
    if re.fullmatch(r"[0-9a-f]{8,64}", digest):
        draft.sought.append(Sought("model", told(name), digest))
        kind = "an old hash of a part of it" if len(digest) == 8 else "the SHA-256 of the file"
        draft.leave(f"model: {told(name) or 'it'} has {digest} ({kind}): say where with --model")
    elif name:
        draft.leave(f"model: {told(name)} has no hash there: say where it is with --model")
    if (vae := fields.get("VAE")) and vae not in ("None", "Automatic", "Default"):
        draft.file("part", vae)
        if re.fullmatch(r"[0-9a-f]{8,64}", digest := fields.get("VAE hash", "").lower()):
            draft.sought.append(Sought("part", told(vae), digest))
    for number in (1, 2, 3):
        if module := fields.get(f"Module {number}"):
            draft.leave(f"Module {number}: {told(module)}: give its file with --part")


def _adapters(draft: Draft, fields: dict[str, str]) -> None:
    for field, option in (("Lora hashes", "lora"), ("TI hashes", "embedding")):
        for part in fields.get(field, "").split(",")[:64]:
            name, colon, digest = (piece.strip() for piece in part.partition(":"))
            if not colon or file_name(name) is None:
                continue
            draft.sought.append(Sought(option, name, told(digest)))
            if option == "embedding":
                draft.leave(f"embedding: {told(name)} is a word of a file: give it, --embedding")
    if (words := fields.get("TI")) is not None:
        draft.leave(f"embedding: {told(words)} are words of files: give them with --embedding")


def _edits(draft: Draft, fields: dict[str, str]) -> None:
    strength, enlarged = fields.get("Denoising strength"), "Hires upscale" in fields
    if enlarged:
        for field, option in _HIRES.items():
            if field in fields:
                draft.number(option, fields[field], 0, 1 if option.endswith("strength") else 16)
        upscaler = fields.get("Hires upscaler", "")
        if upscaler.startswith("Latent"):
            draft.options["enlarge-latent"] = True
        elif upscaler not in ("", "None", "Lanczos"):
            draft.leave(f"Hires upscaler: {told(upscaler)}: enlarged by Lanczos here")
    elif strength is not None:
        draft.leave(
            f"image: it was made of a picture, at strength {told(strength)}, which it does not "
            "carry: give it with --image"
        )
    if "Mask blur" in fields:
        draft.leave("mask: it was made within a mask, which it does not carry: give it with --mask")


def read(text: str) -> Foreign:
    """A text of AUTOMATIC1111's kind as a command.

    Raises:
        RecipeError: there is no line of fields in it.
    """
    prompt, negative, fields = _split(text)
    draft = Draft(_program(fields))
    _prompt(draft, "prompt", prompt)
    _prompt(draft, "negative", negative)
    draft.whole("steps", fields.get("Steps"), 1, 10_000)
    if "Sampler" in fields:
        draft.sampler(fields["Sampler"])
    if "Schedule type" in fields:
        draft.spacing(fields["Schedule type"])
    elif "sampler" in draft.options:
        usual = {"ddim": "leading", "unipc": "leading"}.get(str(draft.options["sampler"]))
        draft.options.setdefault("spacing", usual or "linspace")
    distilled = fields.get("Distilled CFG Scale")  # a model's own guidance: the other is off
    if scale := (distilled if fields.get("CFG scale") in ("1", "1.0", None) else None):
        draft.number("guidance", scale, 0, 1000)
    elif "CFG scale" in fields:
        draft.number("guidance", fields["CFG scale"], 0, 1000)
    if "CFG rescale" in fields:
        draft.number("rescale", fields["CFG rescale"], 0, 1)
    if "Seed" in fields:
        draft.whole("seed", fields["Seed"], 0, 2**64 - 1)
    if "Size" in fields:
        draft.size(*fields["Size"].partition("x")[::2])
    if fields.get("Tiling") == "True":
        draft.options["tile"] = "both"
    if "Variation seed" in fields:
        seed, amount = (told(fields.get(f"Variation seed{end}", "")) for end in ("", " strength"))
        draft.leave(f"variation: of seed {seed} by {amount}: other noise, so --vary is left out")
    _model(draft, fields)
    _adapters(draft, fields)
    _edits(draft, fields)
    for name, value in fields.items():
        if name not in _SILENT:
            usual = f"{told(name)}: {{}}: not known here"
            draft.leave(_WHY.get(name, usual).format(told(value)))
    return draft.done()
