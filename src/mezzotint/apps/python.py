"""The Python front door: a model that makes pictures in one call."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from PIL.Image import Image
from torch import Tensor

from mezzotint.adapters.strengths import Rule
from mezzotint.apps.controls import wanted as control
from mezzotint.apps.edits import Edit, Sides, Source, edited, opened, referred
from mezzotint.apps.image_prompts import image_prompts as from_pictures
from mezzotint.apps.named import Adapters, Embeddings, Given, decided
from mezzotint.apps.regions import wanted
from mezzotint.engine.generate import Listener, generate
from mezzotint.engine.request import Guidance, ImagePrompt, Request, RequestError, check_size
from mezzotint.families.catalogue import Limit, load
from mezzotint.families.memory import parse, release
from mezzotint.families.model import Model
from mezzotint.families.separate import Given as Part
from mezzotint.families.sizes import aspect_of
from mezzotint.modalities.image import to_image

File = str | os.PathLike[str]
Parts = File | Sequence[File] | Mapping[str, File]
"""Files with parts of a model, perhaps by the part's name ("vae", "clip_l", "t5", "taesd", …)."""


class Maker:
    """A loaded model."""

    def __init__(self, model: Model) -> None:
        self._model: Model | None = model

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
        limit = None if memory is None else Limit(parse(memory))
        if isinstance(parts, Mapping):
            given = [Part(Path(path), name) for name, path in parts.items()]
        else:
            paths = [parts] if isinstance(parts, str | os.PathLike) else parts
            given = [Part(Path(path)) for path in paths]
        return cls(load(name_or_path, device, family, precision, limit, given))

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
        listener: Listener | None = None,
    ) -> Image:
        """One picture; the same arguments give the same bytes.

        Args:
            loras: adapters' files with their strengths.
            lora_blocks: other strengths of some blocks (:mod:`mezzotint.adapters.strengths`).
            embeddings: files of textual inversion by the word that means each.
            image_prompts: pictures with their strengths, which ``ip_adapter`` makes prompts of, the
                file of an IP-Adapter or of Redux, or Redux' folder.
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

        Raises:
            RequestError: the request is impossible for this model.
            CheckpointError: an adapter or a control network does not fit this model.
        """
        rules = tuple(Rule(*row) for row in (lora_blocks or {}).items())
        given = [Given(Path(name), strength, rules) for name, strength in (loras or {}).items()]
        prompt = decided(prompt, seed, Path("wildcards"))
        negative = decided(negative, seed, Path("wildcards"))
        learnt = [(Path(path), word) for word, path in (embeddings or {}).items()]
        if isinstance(size, str):
            size = self.model.size_of(aspect_of(size))
        edit, told = self._edit(size, image, strength, mask, expand, reference)
        whole = edit.whole(self.model)
        check_size(whole, self.model.codec.multiple)
        parts = [wanted(text).at(whole) for text in regions]
        parts = [
            part._replace(prompt=decided(part.prompt, seed, Path("wildcards"))) for part in parts
        ]
        words = Embeddings(self.model, learnt, Path("embeddings"))
        shown: tuple[ImagePrompt, ...] = ()
        if image_prompts:
            if ip_adapter is None:
                raise RequestError("image prompts need the file that makes prompts: ip_adapter=")
            encoder = None if image_encoder is None else Path(image_encoder)
            shown = from_pictures(self.model, Path(ip_adapter), encoder, image_prompts)
        elif (ip_adapter or image_encoder) is not None:
            raise RequestError("ip_adapter and image_encoder are for pictures: image_prompts=")
        request = Request(
            prompt=prompt,
            seeds=(seed,),
            negative=negative,
            adapters=Adapters(self.model, given, Path("loras"), partial=False).of(prompt),
            embeddings=words.of(prompt, negative, *(part.prompt for part in parts)),
            image_prompts=shown,
            regions=tuple(parts),
            controls=tuple(control(text).of(self.model, whole) for text in controls),
            start=edit.start,
            known=edit.known,
            reference=told,
            size=edit.size,
            steps=steps,
            guidance=Guidance(scale=guidance, image=image_guidance),
            sampler=sampler,
            spacing=spacing,
        )
        return to_image(generate(self.model, request, listener)[0])

    def _edit(
        self,
        size: tuple[int, int] | None,
        image: Source | None,
        strength: float | None,
        mask: Source | None,
        expand: Sides | None,
        reference: Source | None,
    ) -> tuple[Edit, Tensor | None]:
        if image is None and not (strength is mask is expand is None):
            raise RequestError("strength, mask and expand are for a picture: image=")
        if expand is not None and not (mask is size is None):
            raise RequestError("expand sets the size and what is new: leave mask and size out")
        edit, quiet = Edit(size), lambda _: None
        if image is not None:
            masked = None if mask is None else opened(mask, "mask")
            shown = opened(image, "image")
            edit = edited(
                self.model, size, shown, quiet, mask=masked, sides=expand, strength=strength
            )
        if reference is None:
            return edit, None
        return referred(self.model, edit, opened(reference, "reference"), quiet)
