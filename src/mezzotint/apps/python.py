"""The Python front door: a model that makes pictures in one call."""

from __future__ import annotations

import argparse
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL.Image import Image

from mezzotint.apps.cli import parse
from mezzotint.apps.edits import Held, Sides, Source
from mezzotint.apps.errors import UsageError
from mezzotint.apps.making import making
from mezzotint.apps.output import prepare
from mezzotint.apps.regions import plain
from mezzotint.apps.repeat import Used
from mezzotint.apps.sealing import signing, write
from mezzotint.apps.values import SIDES
from mezzotint.engine.generate import Listener
from mezzotint.engine.request import RequestError
from mezzotint.families.catalogue import Limit, load, locate
from mezzotint.families.catalogue import device as device_of
from mezzotint.families.memory import parse as parse_memory
from mezzotint.families.memory import release
from mezzotint.families.model import Model
from mezzotint.families.separate import Given as Part
from mezzotint.families.sizes import written
from mezzotint.modalities.image import writable_format
from mezzotint.provenance.energy import Energy
from mezzotint.provenance.grid import chosen
from mezzotint.provenance.meter import Meter, Shares
from mezzotint.provenance.recipe import fingerprint, text_of

File = str | os.PathLike[str]
Parts = File | Sequence[File] | Mapping[str, File]
"""Files with parts of a model, perhaps by the part's name ("vae", "clip_l", "t5", "taesd", …)."""


class Maker:
    """A loaded model."""

    def __init__(
        self,
        model: Model,
        options: Mapping[str, object],
        known: Mapping[Path, str],
        meter: Meter,
    ) -> None:
        """options: of the command line, with which it was loaded; known: fingerprints of its
        files; meter: from before it was loaded: what that took is the first picture's."""
        self._model: Model | None = model
        self._options, self._known = options, known
        self._meter, self._loading = meter, meter.take()

    @property
    def model(self) -> Model:
        """What the functions of the engine take.

        Raises:
            RequestError: it was unloaded.
        """
        if self._model is None:
            raise RequestError("this model was unloaded: load it again")
        return self._model

    def unload(self) -> None:
        """Forget the model, and give its memory back to the system."""
        self._model = None
        release()

    @classmethod
    def load(
        cls,
        name_or_path: str,
        device: str | None = None,
        family: str | None = None,
        precision: str = "auto",
        memory: str | None = None,
        parts: Parts = (),
    ) -> Maker:
        """Raises CheckpointError when there is no such model or its file is damaged."""
        limit = None if memory is None else Limit(parse_memory(memory))
        if isinstance(parts, Mapping):
            given = [Part(Path(path), name) for name, path in parts.items()]
        else:
            paths = [parts] if isinstance(parts, str | os.PathLike) else parts
            given = [Part(Path(path)) for path in paths]
        told = [path if part is None else f"{part}={path}" for path, part in given]
        options = {"model": name_or_path, "family": family, "precision": precision, "part": told}
        meter = Meter().watch(device_of(device))
        model = load(name_or_path, device, family, precision, limit, given)
        files = (locate(name_or_path), *(part.path for part in given))
        return cls(model, options, {path: fingerprint(path) for path in files}, meter)

    def generate(
        self,
        prompt: str,
        *,
        seed: int = 0,
        negative: str = "",
        loras: Mapping[str, float] | None = None,
        lora_blocks: Mapping[str, float] | None = None,
        embeddings: Mapping[str, File] | None = None,
        image_prompts: Sequence[tuple[File | Image, float]] = (),
        ip_adapter: File | None = None,
        image_encoder: File | None = None,
        image: Source | None = None,
        strength: float | None = None,
        mask: Source | None = None,
        expand: Sides | None = None,
        reference: Source | None = None,
        regions: Sequence[str] = (),
        controls: Sequence[str] = (),
        size: tuple[int, int] | str | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        image_guidance: float | None = None,
        sampler: str | None = None,
        spacing: str | None = None,
        commercial: bool = False,
        output: File | None = None,
        listener: Listener | None = None,
    ) -> Image:
        """One picture; the same arguments give the same bytes.

        Args:
            loras: adapters' files with their strengths.
            lora_blocks: other strengths of some blocks (:mod:`mezzotint.adapters.strengths`).
            embeddings: files of textual inversion by the word that means each.
            image_prompts: pictures with their strengths, which ``ip_adapter`` makes prompts of, the
                file of an IP-Adapter or of Redux, or Redux' folder; of ``icons`` up to five, and
                no adapter.
            image_encoder: the file or folder of the encoder that it was trained with; None: the
                folder ``image_encoder`` in its folder or beside it.
            image: where the way begins, or what ``mask`` and ``expand`` are for: a file or a
                picture.
            strength: share of the way that is walked; None: 0.6, and all of it with a mask.
            mask: a picture of the same size, white where something new is to be made.
            expand: what is drawn around it, at the left, top, right and bottom, or the aspect that
                it gets, width to height.
            reference: what a model of edits by words, or one that follows edges or depth, is told.
            regions: prompts for parts of the picture, each as ``--region`` takes it:
                ``"0,0,0.5,1=a fox"`` or ``"mask.png=a fox"``.
            controls: control networks and what they follow, each as ``--control`` takes it:
                ``"canny.safetensors=photo.jpg,canny,strength=0.8"``.
            size: ``(height, width)``, or an aspect such as ``"16:9"`` or ``"portrait"``; None
                values take the model's defaults.
            image_guidance: how strongly ``reference`` steers a model that is guided by one.
            commercial: make it only if the licences of all that goes in allow commercial use.
            output: a file that it is written to, over what is there, with all that it carries
                (docs/provenance.md): signed, with its recipe, which Pillow's ``save`` leaves out.

        Raises:
            RequestError: the request is impossible for this model.
            CheckpointError: an adapter or a control network does not fit this model.
            LicenceError: commercial use is not allowed, or nobody states whether it is.
        """
        self._meter.take()  # what was done since the last picture is not this one's
        if image is None and not (strength is mask is expand is None):
            raise RequestError("strength, mask and expand are for a picture: image=")
        if expand is not None and not (mask is size is None):
            raise RequestError("expand sets the size and what is new: leave mask and size out")
        if image_prompts and ip_adapter is None and self.model.sight is None:
            raise RequestError("image prompts need the file that makes prompts: ip_adapter=")
        if not image_prompts and (ip_adapter or image_encoder) is not None:
            raise RequestError("ip_adapter and image_encoder are for pictures: image_prompts=")
        blocks = [f"{pattern}={plain(s)}" for pattern, s in (lora_blocks or {}).items()]
        options: dict[str, object] = {
            **self._options,
            "seed": seed,
            "negative": negative,
            "lora": [f"{path}:{plain(s)}" for path, s in (loras or {}).items()],
            "lora-blocks": ",".join(blocks) or None,
            "embedding": [f"{path}={word}" for word, path in (embeddings or {}).items()],
            "ip-adapter": ip_adapter,
            "image-encoder": image_encoder,
            "strength": strength,
            "expand": None if expand is None else _sides(expand),
            "region": list(regions),
            "control": list(controls),
            "size": size if size is None or isinstance(size, str) else written(size),
            "steps": steps,
            "guidance": guidance,
            "image-guidance": image_guidance,
            "sampler": sampler,
            "spacing": spacing,
        }
        switches = ["--commercial"] if commercial else []
        args = _parsed([*_words(options), *switches, "--", prompt])
        args.quiet, args.preview = True, False
        pictures: dict[str, Any] = {"image": image, "mask": mask, "reference": reference}
        if image_prompts:
            pictures["image-prompt"] = [(_held(shown), s) for shown, s in image_prompts]
        for name, given in pictures.items():
            if given is not None:
                setattr(args, name.replace("-", "_"), _held(given))
                args.typed[name] = True
        place = how = None
        if output is not None:  # what hinders writing is said before the work
            there = Path(output)
            writable_format(there)
            place, how = prepare(str(there), prompt, 1).folder / there.name, signing(args)
        shares, self._loading = Shares(self._meter, 1, chosen(), self._loading), Energy()
        used = Used(args, self._known)
        made = next(iter(making(args, self.model, (seed,), used, listener, shares)))
        made.image.info.update(text_of(made.document))
        if place is not None:
            write(made, place, how)
        return made.image


def _parsed(words: Sequence[str]) -> argparse.Namespace:
    try:
        return parse(["generate", *words])
    except UsageError as error:
        told = str(error).removesuffix(" (see mezzotint generate --help)")
        raise RequestError(told.removeprefix("argument ")) from None


def _held(given: Any) -> Any:
    """A picture in memory by a name; a file, and other values, as they are."""
    if isinstance(given, Image):
        return Held.of(given)
    return os.fspath(given) if isinstance(given, os.PathLike) else given


def _sides(sides: Sides) -> str:
    if len(sides) == 2:
        return f"{sides[0]}:{sides[1]}"
    return ",".join(f"{name}={n}" for name, n in zip(SIDES, sides, strict=True))


def _words(options: Mapping[str, object]) -> list[str]:
    """Options as a command line; None is left out, and a list is one for each of its values."""
    return [
        f"--{name}={value}"
        for name, values in options.items()
        for value in (values if isinstance(values, list) else [values])
        if value is not None
    ]
