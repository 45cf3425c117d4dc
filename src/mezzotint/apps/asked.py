"""What a command line asks for: its options checked, and made a request of the engine."""

from __future__ import annotations

import argparse
import secrets
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import Tensor

from mezzotint.apps.edits import Edit, edited, opened, referred, sides_of
from mezzotint.apps.errors import UsageError
from mezzotint.apps.image_prompts import image_prompts, seen
from mezzotint.apps.named import Adapters, Embeddings, decided
from mezzotint.diffusion import samplers, spacings
from mezzotint.engine.request import (
    MAX_FACTOR,
    Enlarge,
    Guidance,
    Refiner,
    Request,
    Vary,
    check_size,
)
from mezzotint.families.catalogue import Limit, load, sees
from mezzotint.families.memory import parse
from mezzotint.families.model import Model
from mezzotint.families.precision import working
from mezzotint.families.sizes import Aspect
from mezzotint.modalities import image as pictures
from mezzotint.provenance import keys

SEEDS = 2**32
"""Random seeds are drawn below this: short enough to type again."""
ENLARGES_CODE = 0.55
"""Strength of a second pass over an enlarged code: what is blurred in it has to be drawn anew."""
REFINES_FROM = 0.8
"""Where a refiner begins: SDXL's was trained on the last fifth (Podell et al. 2023, §2.5)."""

_TILED: dict[str | None, frozenset[int]] = {
    None: frozenset(),
    "both": frozenset({0, 1}),
    "y": frozenset({0}),
    "x": frozenset({1}),
}


def check_options(args: argparse.Namespace) -> None:
    """Raise UsageError for options that do not go together, before anything is loaded."""
    if isinstance(args.size, tuple):
        check_size(args.size, 1)
    for name in ("mask", "expand", "strength"):
        if getattr(args, name) is not None and args.image is None:
            raise UsageError(f"--{name} needs --image: name the picture that it applies to")
    if args.mask is not None and args.expand is not None:
        raise UsageError("--mask and --expand do not go together: expand first, then mask")
    if args.expand is not None and args.size is not None:
        raise UsageError("--size does not apply with --expand: the picture and its sides set it")
    if args.strength is not None and not 0 < args.strength <= 1:
        raise UsageError(f"--strength must lie above 0 and up to 1, not {args.strength}")
    for name in ("perturb", "skip"):
        if getattr(args, f"{name}_scale") is not None and not getattr(args, name):
            raise UsageError(f"--{name}-scale needs --{name}: name what is weakened")
    if args.only_masked is not None and args.mask is None:
        raise UsageError("--only-masked needs --mask: name what is to be drawn anew")
    if args.enlarge is None and (args.enlarge_strength is not None or args.enlarge_latent):
        raise UsageError("--enlarge-strength and --enlarge-latent need --enlarge: say how far")
    if args.refiner_from is not None and args.refiner is None:
        raise UsageError("--refiner-from needs --refiner: name the model that goes on from there")
    for given in args.control:
        if given.picture is None and args.mask is None and args.expand is None:
            raise UsageError(
                f"--control {given.file} without a picture is told what is painted over: give "
                "--image and --mask, or what it follows, as FILE=PICTURE"
            )
    if args.lora_blocks and not args.lora:
        raise UsageError("--lora-blocks needs --lora: name the adapter that it is for")
    if args.image_prompt and args.ip_adapter is None and not sees(args.model):
        raise UsageError(
            "--image-prompt needs --ip-adapter: name the file that makes prompts of it"
        )
    if (args.ip_adapter or args.image_encoder) is not None and not args.image_prompt:
        raise UsageError(
            "--ip-adapter and --image-encoder need --image-prompt: name the picture that they are "
            "for"
        )
    if args.sampler is not None:
        samplers.find(args.sampler)
    if args.spacing is not None:
        spacings.find(args.spacing)


def note(args: argparse.Namespace, text: str) -> None:
    if not args.quiet:
        print(text, file=sys.stderr)


def _edit(args: argparse.Namespace, model: Model) -> tuple[Edit, Tensor | None]:
    """What --image, --strength, --mask and --expand ask for; and the --reference."""
    say = partial(note, args)
    edit = Edit(args.size)
    if args.image is not None:
        edit = edited(
            model,
            args.size,
            opened(args.image),
            say,
            mask=None if args.mask is None else opened(args.mask),
            sides=args.expand,
            strength=args.strength,
            around=args.only_masked,
        )
    if args.reference is None:
        return edit, None
    return referred(model, edit, opened(args.reference), say)


def _vary(args: argparse.Namespace) -> Vary | None:
    vary: Vary | None = None
    for seed, amount in args.vary or ():
        vary = Vary(seed, amount, vary)
    return vary


def _enlarge(args: argparse.Namespace) -> Enlarge | None:
    if args.enlarge is None:
        return None
    usual = ENLARGES_CODE if args.enlarge_latent else Enlarge(args.enlarge).strength
    strength = usual if args.enlarge_strength is None else args.enlarge_strength
    return Enlarge(args.enlarge, strength, args.enlarge_latent)


def mark_key(args: argparse.Namespace) -> keys.MarkKey | None:
    """The key of the watermarks, of a recipe that is followed its own; None: there are to be none.

    Raises:
        KeyFileError: the recipe's is not here, or a file is no key.
    """
    if args.watermark == "none":
        return None
    if args.recipe is not None and args.recipe.key is not None:
        return keys.of_id(args.recipe.key, args.mark_key)
    return keys.chosen(args.mark_key)


def _refiner(args: argparse.Namespace) -> Refiner | None:
    if args.refiner is None:
        return None
    begin = REFINES_FROM if args.refiner_from is None else args.refiner_from
    return Refiner(load(args.refiner, args.device, None, args.precision), begin)


def request_of(args: argparse.Namespace, model: Model) -> Request:
    """What is asked for, but for its seed and what the seed decides."""
    if args.size is not None:
        check_size(args.size, model.codec.multiple)
    edit, reference = _edit(args, model)
    whole = edit.whole(model)
    guidance = Guidance(
        scale=args.guidance,
        interval=args.interval,
        rescale=args.rescale,
        apg=args.apg,
        cfg_zero_star=args.cfg_zero_star,
        perturb=args.perturb,
        perturb_scale=1.0 if args.perturb_scale is None else args.perturb_scale,
        skip=args.skip,
        skip_scale=1.0 if args.skip_scale is None else args.skip_scale,
        image=args.image_guidance,
    )
    return Request(
        prompt=args.prompt,
        seeds=(0,),
        negative=args.negative,
        size=edit.size,
        steps=args.steps,
        guidance=guidance,
        sampler=args.sampler,
        spacing=args.spacing,
        start=edit.start,
        known=edit.known,
        reference=reference,
        refiner=_refiner(args),
        vary=_vary(args),
        tiled=_TILED[args.tile],
        enlarge=_enlarge(args),
        controls=tuple(wanted.of(model, whole) for wanted in args.control),
        image_prompts=image_prompts(model, args.ip_adapter, args.image_encoder, args.image_prompt)
        if args.ip_adapter
        else (),
        seen=seen(model, args.image_prompt) if args.image_prompt and not args.ip_adapter else (),
        regions=tuple(wanted.at(whole) for wanted in args.region),
        mark=mark_key(args) if args.watermark in ("both", "noise") else None,
    )


def decided_for(
    args: argparse.Namespace,
    request: Request,
    seed: int,
    adapters: Adapters,
    embeddings: Embeddings,
) -> Request:
    """The request of a seed, with the choices of its prompts made and its adapters there."""
    chooses = seed if request.vary is None else request.vary.root
    prompt = decided(args.prompt, chooses, args.wildcards)
    negative = decided(args.negative, chooses, args.wildcards)
    regions = tuple(
        region._replace(prompt=decided(region.prompt, chooses, args.wildcards))
        for region in request.regions
    )
    return replace(
        request,
        seeds=(seed,),
        prompt=prompt,
        negative=negative,
        adapters=adapters.of(prompt),
        embeddings=embeddings.of(prompt, negative, *(region.prompt for region in regions)),
        regions=regions,
    )


def limit_of(args: argparse.Namespace) -> Limit:
    """What --memory allows, for the largest picture that is worked on."""
    size: tuple[int, int] | Aspect | None = args.size
    if args.image is not None and size is None and args.only_masked is None:
        image = pictures.open_image(args.image)
        if args.mask is not None:
            size = (image.height, image.width)
        elif args.expand is not None:  # whatever the model's multiple, 64 is one of it
            left, top, right, bottom = sides_of(args.expand, image, 64)
            size = (top + image.height + bottom, left + image.width + right)
    factor = 1.0 if args.enlarge is None else min(max(args.enlarge, 1.0), MAX_FACTOR)
    return Limit(parse(args.memory), size, factor)


def seeds_of(args: argparse.Namespace) -> tuple[int, ...]:
    first = secrets.randbelow(SEEDS) if args.seed is None else args.seed
    return tuple(range(first, first + args.count))


def parameters(
    args: argparse.Namespace, model: Model, request: Request, picture: Tensor
) -> dict[str, object]:
    """What a picture's file says was made, with the model's defaults filled in."""
    defaults = model.defaults
    said = {
        "model": model.name,
        "parts": [path.name if part is None else f"{part}={path.name}" for path, part in args.part]
        or None,
        "prompt": request.prompt,
        "template": args.prompt if args.prompt != request.prompt else None,
        "negative": request.negative or None,
        "regions": [
            f"{where}={region.prompt}"
            for where, region in zip(args.region, request.regions, strict=True)
        ]
        or None,
        "adapters": [str(worn) for worn in request.adapters] or None,
        "embeddings": [embedding.name for embedding in request.embeddings] or None,
        "precision": str(working(model.network)).removeprefix("torch."),
        "partial": args.allow_partial or None,
        "seed": request.seeds[0],
        "vary": None if request.vary is None else str(request.vary),
        "tile": args.tile,
        "opaque": args.opaque or None,
        "only_masked": args.only_masked,
        "enlarge": None if request.enlarge is None else request.enlarge._asdict(),
        "size": f"{picture.shape[2]}x{picture.shape[1]}",
        "steps": args.steps or defaults.steps,
        "sampler": args.sampler or defaults.sampler,
        "spacing": args.spacing or defaults.spacing,
        "guidance": defaults.guidance if args.guidance is None else args.guidance,
        "interval": args.interval or defaults.interval,
        "rescale": args.rescale or None,
        "apg": args.apg or None,
        "cfg_zero_star": args.cfg_zero_star or None,
        "perturb": sorted(args.perturb) or None,
        "perturb_scale": args.perturb_scale,
        "skip": sorted(args.skip) or None,
        "skip_scale": args.skip_scale,
        "image": None if args.image is None else Path(args.image).name,
        "strength": None if request.start is None else request.start.strength,
        "mask": None if args.mask is None else Path(args.mask).name,
        "expand": args.expand,
        "reference": None if args.reference is None else Path(args.reference).name,
        "image_guidance": args.image_guidance,
        "controls": [wanted.said() for wanted in args.control] or None,
        "image_prompts": [*map(str, request.image_prompts), *map(str, request.seen)] or None,
        "ip_adapter": None if args.ip_adapter is None else args.ip_adapter.name,
        "image_encoder": None if args.image_encoder is None else args.image_encoder.name,
        "refiner": None if request.refiner is None else request.refiner.model.name,
        "refiner_from": None if request.refiner is None else request.refiner.begin,
    }
    return {name: value for name, value in said.items() if value is not None}
