"""One prompt a region, equal to the pipelines of `diffusers` around a denoiser whose predictions
for several prompts are blended."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from test_flow import pack
from torch import Tensor

import measured
from mezzotint.diffusion.noise import batch
from mezzotint.engine.generate import generate
from mezzotint.engine.regions import box
from mezzotint.engine.request import Guidance, Region, Request
from mezzotint.families import flow, ldm
from pipelines import flux, small, small_flow, stable_diffusion, stable_diffusion_3

SIZE = (64, 96)
PROMPT, FOX, OWL = "a forest, flat style", "a red fox", "two owls at night"


def blended(pipeline: Any, masks: list[tuple[Any, Tensor]], rest: Tensor, avoided: Tensor) -> None:
    """The pipeline's denoiser predicts for each region what its prompt says, for the last of the
    batch (which is told the prompt): ``rest`` of its own and the mask of each region's."""
    name = "unet" if hasattr(pipeline, "unet") else "transformer"
    network = getattr(pipeline, name)
    plain = network.forward

    def last(given: Tensor, other: Tensor) -> Tensor:
        return torch.cat([given[:-1], other.to(given)])

    def forward(*args: Any, **told: Any) -> Any:
        (out,) = plain(*args, **told)
        if told["encoder_hidden_states"].shape == avoided.shape and torch.equal(
            told["encoder_hidden_states"], avoided
        ):
            return (out,)  # the negative prompt, by itself
        made = rest * out[-1:]
        for (context, pooled), mask in masks:
            other = {**told, "encoder_hidden_states": last(told["encoder_hidden_states"], context)}
            if told.get("added_cond_kwargs"):
                added = told["added_cond_kwargs"]
                other["added_cond_kwargs"] = {
                    **added,
                    "text_embeds": last(added["text_embeds"], pooled),
                }
            elif pooled is not None:
                other["pooled_projections"] = last(told["pooled_projections"], pooled)
            made = made + mask * plain(*args, **other)[0][-1:]
        return (torch.cat([out[:-1], made]),)

    network.forward = forward


@pytest.mark.parity("one prompt a region", "diffusers folder")
@pytest.mark.parametrize("scale", [1.0, 4.0])
@pytest.mark.parametrize("name", ["sd1", "sd2", "sdxl", "sd3", "flux-dev", "flux-schnell"])
@torch.inference_mode()
def test_one_prompt_a_region(name: str, scale: float, tmp_path: Path) -> None:
    latent, steps = (16, 8, 12), 4
    told: dict[str, Any] = {"guidance_scale": scale}
    options: dict[str, Any] = {}
    avoided = torch.zeros(0)  # where both are one batch, it is the first of it
    if name.startswith("flux"):
        theirs: Any = flux(name)
        length = 512 if name == "flux-dev" else 256
        told = {"guidance_scale": scale, "max_sequence_length": length}
        if name == "flux-schnell":
            told |= {"true_cfg_scale": scale, "negative_prompt": ""}
        avoided = theirs.encode_prompt("", "", max_sequence_length=length)[0]
        said = [
            theirs.encode_prompt(text, text, max_sequence_length=length)[:2] for text in (FOX, OWL)
        ]
    elif name == "sd3":
        theirs = cast(Any, stable_diffusion_3(name))
        said = [theirs.encode_prompt(text, text, text)[0:3:2] for text in (FOX, OWL)]
    else:
        theirs, latent = cast(Any, stable_diffusion(name)), (4, 8, 12)
        options = {"sampler": "ddim", "spacing": "trailing"}
        told["negative_prompt"] = "blue"
        given: Any = theirs.encode_prompt
        if name == "sdxl":
            said = [given(text, do_classifier_free_guidance=False)[0:3:2] for text in (FOX, OWL)]
        else:
            said = [(given(text, "cpu", 1, False)[0], None) for text in (FOX, OWL)]
    theirs.save_pretrained(tmp_path / "a")
    theirs.set_progress_bar_config(disable=True)
    load, family = (flow.load, small_flow) if latent[0] == 16 else (ldm.load, small)
    ours = load(family(name), tmp_path / "a")  # type: ignore[operator]

    fox = torch.zeros(1, 1, 8, 12)
    fox[..., :4] = 1  # the left third
    owl = torch.zeros(1, 1, 8, 12)
    owl[..., 2:4, 2:8] = 0.5  # strength, the second quarter of the rows
    total = (fox + owl).clamp(min=1)
    masks = [fox / total, owl / total]
    rest = 1 - masks[0] - masks[1]
    start = batch([3], "start", 0, latent)
    if name.startswith("flux"):
        start = pack(start)
        # two by two elements of a latent are a token; the masks are even there
        masks = [mask[..., ::2, ::2].reshape(1, -1, 1) for mask in masks]
        rest = rest[..., ::2, ::2].reshape(1, -1, 1)
    blended(theirs, list(zip(said, masks, strict=True)), rest, avoided)
    expected = theirs(
        PROMPT,
        height=SIZE[0],
        width=SIZE[1],
        num_inference_steps=steps,
        latents=start,
        output_type="pt",
        **told,
    ).images[0]
    regions = (
        Region(FOX, box(SIZE, 0, 0, 1 / 3, 1)),
        Region(OWL, box(SIZE, 1 / 6, 0.25, 2 / 3, 0.5), 0.5),
    )
    request = Request(
        PROMPT,
        (3,),
        negative=told.get("negative_prompt", "") if scale > 1 else "",
        size=SIZE,
        steps=steps,
        guidance=Guidance(scale),
        regions=regions,
        **options,
    )
    found = generate(ours, request)[0]
    measured.close(found / 2 + 0.5, expected, 1e-3)
    without = generate(ours, replace(request, regions=()))[0]
    assert float((without - found).abs().max()) > 2e-3
