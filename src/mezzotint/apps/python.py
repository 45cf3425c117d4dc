"""The Python front door: a model that makes pictures in one call."""

from __future__ import annotations

from dataclasses import dataclass

from PIL.Image import Image

from mezzotint.engine.generate import Listener, generate
from mezzotint.engine.request import Guidance, Request
from mezzotint.families.catalogue import load
from mezzotint.families.model import Model
from mezzotint.modalities.image import to_image


@dataclass(frozen=True)
class Maker:
    """A loaded model.  ``model`` is what the functions of the engine take."""

    model: Model

    @classmethod
    def load(cls, name_or_path: str, device: str | None = None, family: str | None = None) -> Maker:
        """Raises CheckpointError when there is no such model or its file is damaged."""
        return cls(load(name_or_path, device, family))

    def generate(
        self,
        prompt: str,
        *,
        seed: int = 0,
        negative: str = "",
        size: tuple[int, int] | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        sampler: str | None = None,
        spacing: str | None = None,
        listener: Listener | None = None,
    ) -> Image:
        """One picture; the same arguments give the same bytes.

        Args:
            size: ``(height, width)``; None values take the model's defaults.
        Raises:
            RequestError: the request is impossible for this model.
        """
        request = Request(
            prompt=prompt,
            seeds=(seed,),
            negative=negative,
            size=size,
            steps=steps,
            guidance=Guidance(scale=guidance),
            sampler=sampler,
            spacing=spacing,
        )
        return to_image(generate(self.model, request, listener)[0])
