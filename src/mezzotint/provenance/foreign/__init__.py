"""Pictures of other programs as commands of ours, as far as they can be expressed.

Nothing in them is run or fetched: they are texts that are read.  The same seed gives another
picture here, because every program draws its noise in its own way; what else is lost is said, one
line each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from mezzotint.provenance.foreign import comfy, invoke, webui
from mezzotint.provenance.foreign.names import Foreign, Sought
from mezzotint.provenance.recipe import RecipeError

__all__ = ["Foreign", "Sought", "foreign"]

_READERS: tuple[tuple[str, int, Callable[[str], Foreign]], ...] = (
    ("invokeai_metadata", 1 << 20, invoke.read),
    ("sd-metadata", 1 << 20, invoke.read_sd),
    ("Dream", 1 << 17, invoke.read_dream),
    ("prompt", 8 << 20, comfy.read),
    ("workflow", 8 << 20, lambda text: comfy.read(text, "workflow")),
    ("parameters", 1 << 17, webui.read),
)
"""The key of a text, how many characters it may have, and who reads it; the first that is there."""


def foreign(text_entries: Mapping[str, str]) -> Foreign:
    """The texts of a picture that another program made, as a command.

    Args:
        text_entries: by their keys, as `modalities.image.read_text` gives them.

    Raises:
        RecipeError: none of them is known, or it cannot be read.
    """
    plain = {key.lower(): text for key, text in text_entries.items()}
    parameters = plain.get("parameters", "")
    first = (
        [row for row in _READERS if row[0] == "parameters"]
        if webui.is_it(parameters[: 1 << 17])
        else []
    )
    for key, most, read in (*first, *_READERS):
        text = plain.get(key.lower())
        if text is None:
            continue
        if len(text) > most:
            raise RecipeError(f"its {key} has {len(text)} characters: more than a picture has")
        return read(text)
    raise RecipeError(
        "carries no recipe that is known (of mezzotint, AUTOMATIC1111 and its kind, ComfyUI, "
        "InvokeAI), or was saved anew without it"
    )
