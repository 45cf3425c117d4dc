"""Control beside all else: LoRA, packed weights, a memory budget, a start picture, a mask."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import test_controls_flow as of_flow
import test_t2i_adapters as of_unet
import torch
from diffusers.pipelines.flux.pipeline_flux_controlnet_image_to_image import (
    FluxControlNetImg2ImgPipeline,
)
from torch import Tensor

import measured
from mezzotint.adapters.lora import attached
from mezzotint.adapters.seamless import seamless
from mezzotint.checkpoints.files import save
from mezzotint.checkpoints.keys import to_theirs
from mezzotint.checkpoints.streamed import Streamed
from mezzotint.engine.attach import open_adapter
from mezzotint.engine.generate import generate
from mezzotint.engine.passes import tiling
from mezzotint.engine.request import (
    Attached,
    Control,
    Guidance,
    Known,
    Refiner,
    Request,
    RequestError,
    Start,
)
from mezzotint.families import controls, flow, ldm
from mezzotint.families.model import Model
from pipelines import small_flow
from variants import picture, small_flow_variant

pytestmark = pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning")
NAMES = ("flux-dev", "sd35-large", "sd1")


class Made:
    """A model kept in memory, the same one read as it is used, and a control network of it."""

    def __init__(self, name: str, place: Path) -> None:
        self.name, self.mode = name, None
        room = dict.fromkeys(("network", "text", "text2", "t5", "autoencoder"), 0)
        self.load: Callable[..., Model]
        if name == "sd1":
            made: Any = of_unet.Made(name, place)
            self.control = made.stored(of_unet.adapter("full"), "control")
            self.load = partial(ldm.load, of_unet.base_of(name)[1], place)
        else:
            made = of_flow.Made(name, place)
            network: Any = of_flow.flux_control("InstantX")
            if name != "flux-dev":
                self.mode, network = "blur", of_flow.sd3_control("3.5 large")
            self.control = made.stored(network, "control")
            self.load = partial(flow.load, small_flow(name), place)
        self.read, self.kept = self.load(room=room), self.load()
        self.base = made.base

    def told(self, model: Model, strength: float = 0.8) -> tuple[Control, ...]:
        network = controls.load(model, self.control, self.mode)
        return (Control(network, picture(64, 96), strength),)

    def lora(self, model: Model, path: Path) -> tuple[Attached, ...]:
        """On all matrices of the attention of the denoiser."""
        torch.manual_seed(1)
        state: dict[str, Tensor] = {}
        table = model.network.state_dict()
        assert self.name == "flux-dev"
        for name, weight in to_theirs(
            table, small_flow(self.name).folder.tables["network"]
        ).items():
            if ".attn.to_" in name and name.endswith(".weight"):
                key = f"transformer.{name.removesuffix('.weight')}"
                state[f"{key}.lora_A.weight"] = torch.randn(2, weight.shape[1]) * 0.2
                state[f"{key}.lora_B.weight"] = torch.randn(len(weight), 2) * 0.2
        save(path, state, {})
        return (Attached("a", open_adapter(model, path).fitted, 0.8),)


@pytest.fixture(scope="module", params=NAMES)
def made(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(request.param, tmp_path_factory.mktemp(request.param))


def wish(**more: Any) -> Request:
    return Request("a red fox", (3,), size=(64, 96), steps=4, guidance=Guidance(3.0), **more)


def test_no_bit_depends_on_what_stays_in_memory(made: Made) -> None:
    assert any(isinstance(layer, Streamed) for layer in made.read.network.modules())
    kept, read = (
        generate(model, wish(controls=made.told(model)))[0] for model in (made.kept, made.read)
    )
    assert torch.equal(kept, read)


def test_image_to_image_and_inpainting(made: Made) -> None:
    """It acts there too, at strength 0 not a bit, and the known colours stay exact."""
    mask = torch.zeros(1, 64, 96)
    mask[:, 16:48, 24:] = 1
    known = Known(picture(64, 96, 1), mask)
    narrow = replace(known, around=16)
    for more in ({"start": Start(picture(64, 96, 1), 0.5)}, {"known": known}, {"known": narrow}):
        plain, none, found = (
            generate(made.kept, wish(controls=used, **more))[0]
            for used in ((), made.told(made.kept, 0.0), made.told(made.kept))
        )
        assert torch.equal(plain, none)
        assert float((plain - found).abs().max()) > 1e-3
        if "known" in more:
            assert torch.equal(found * (1 - mask), known.media * (1 - mask))


def test_one_that_never_acts_is_an_error(made: Made) -> None:
    """Of four steps none lies within; nor where the steps that it acts in are a refiner's."""
    (control,) = made.told(made.kept)
    between = wish(controls=(control._replace(begin=0.3, end=0.45),))
    with pytest.raises(RequestError, match=r"acts from 0.3 to 0.45 .* none of the 4 steps lies"):
        generate(made.kept, between)
    late = wish(controls=(control._replace(begin=0.75),), refiner=Refiner(made.kept, 0.5))
    with pytest.raises(RequestError, match=r"acts from 0.75 to 1 .* none of the [123] steps lies"):
        generate(made.kept, late)


def test_tiles_with_a_control_have_no_seam(made: Made) -> None:
    """What a control network adds for a shifted picture is shifted too."""
    if made.name != "sd1":
        return
    (control,) = made.told(made.kept)
    request, seen = wish(controls=(control,), tiled=frozenset({0, 1})), []
    with torch.inference_mode(), seamless(tiling(made.kept, request), request.tiled):
        for shift in (0, 32):
            seen.append(control.network.hint(control.picture.roll((shift, shift), (1, 2))))
    for plain, moved in zip(*seen, strict=True):
        step = 32 * plain.shape[2] // 64
        torch.testing.assert_close(plain.roll((step, step), (2, 3)), moved, atol=1e-5, rtol=1e-4)


def test_a_seed_never_knows_its_batch(made: Made) -> None:
    request = wish(controls=made.told(made.kept))
    several = generate(made.kept, replace(request, seeds=(1, 2)))
    for seed, found in zip((1, 2), several, strict=True):
        assert torch.equal(generate(made.kept, replace(request, seeds=(seed,)))[0], found)


def test_a_lora_changes_the_model_and_not_its_control(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    """The picture is that of a model whose weights have the LoRA in them."""
    made = Made("flux-dev", tmp_path_factory.mktemp("lora"))
    worn = made.lora(made.kept, made.control.parent / "a.safetensors")
    request = wish(controls=made.told(made.kept))
    plain = generate(made.kept, request)[0]
    both = replace(request, adapters=worn, prompt="a red fox <lora:a:0.8>")
    found = generate(made.kept, both)[0]
    assert not torch.equal(found, plain)
    assert torch.equal(generate(made.kept, request)[0], plain)
    with attached(made.kept.parts, [(worn[0].fitted, 0.8)]):
        state = {k: v.clone() for k, v in made.kept.network.state_dict().items()}
    made.kept.network.load_state_dict(state)
    measured.close(generate(made.kept, request)[0], found, 1e-5)


def test_in_bfloat16_it_is_nearly_the_same(made: Made) -> None:
    model = made.load(kind=torch.bfloat16)
    wanted, plain = (
        generate(made.kept, wish(controls=used))[0] for used in (made.told(made.kept), ())
    )
    found = generate(model, wish(controls=made.told(model)))[0]
    assert float((found - wanted).abs().mean()) < 0.5 * float((plain - wanted).abs().mean())


@pytest.mark.parametrize("name", ["flux-kontext", "flux-fill"])
def test_beside_further_pictures(name: str, tmp_path: Path) -> None:
    """A control network is told what is made alone: no reference, and no channels joined to it."""
    model = flow.build(small_flow_variant(name))
    of_flow.flux_control("InstantX").save_pretrained(tmp_path)
    network = controls.load(model, tmp_path)
    mask = torch.zeros(1, 64, 96)
    mask[:, 16:48, 24:] = 1
    more: dict[str, Any] = {"known": Known(picture(64, 96, 1), mask)}
    if name == "flux-kontext":
        more = {"reference": picture(32, 64, 1)}
    plain, none, found = (
        generate(model, wish(controls=used, **more))[0]
        for used in (
            (),
            (Control(network, picture(64, 96), 0.0),),
            (Control(network, picture(64, 96)),),
        )
    )
    assert torch.equal(plain, none) and not torch.equal(plain, found)


@pytest.mark.parity("ControlNet, image to image", "diffusers folder", family="flux-dev")
def test_image_to_image_of_flux(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Made("flux-dev", tmp_path_factory.mktemp("start"))
    parts = {
        name: part
        for name, part in made.base.components.items()
        if name not in ("image_encoder", "feature_extractor")
    }
    theirs: Any = FluxControlNetImg2ImgPipeline(
        **parts, controlnet=of_flow.flux_control("InstantX")
    )
    theirs.set_progress_bar_config(disable=True)
    monkeypatch.setattr(
        "diffusers.pipelines.flux.pipeline_flux_controlnet_image_to_image.randn_tensor",
        lambda shape, **_: of_flow.batch([3], "start", 0, shape[1:]),
    )
    wanted = theirs(
        "a red fox",
        image=picture(64, 96, 1)[None] / 2 + 0.5,
        control_image=picture(64, 96)[None],
        controlnet_conditioning_scale=0.8,
        strength=0.5,
        height=64,
        width=96,
        num_inference_steps=4,
        guidance_scale=3.0,
        output_type="pt",
    ).images[0]
    request = wish(controls=made.told(made.kept), start=Start(picture(64, 96, 1), 0.5))
    measured.close(generate(made.kept, request)[0] / 2 + 0.5, wanted, 1e-3)
