"""Control networks of FLUX.1 and Stable Diffusion 3: the pictures are those of `diffusers`."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers.models.controlnets.controlnet_flux import (
    FluxControlNetModel,
    FluxMultiControlNetModel,
)
from diffusers.models.controlnets.controlnet_sd3 import (
    SD3ControlNetModel,
    SD3MultiControlNetModel,
)
from diffusers.pipelines.controlnet_sd3.pipeline_stable_diffusion_3_controlnet import (
    StableDiffusion3ControlNetPipeline,
)
from diffusers.pipelines.flux.pipeline_flux_controlnet import FluxControlNetPipeline
from PIL import Image
from torch import Tensor, nn

import measured
from mezzotint.apps.cli import main
from mezzotint.checkpoints.files import CheckpointError, save
from mezzotint.checkpoints.files import load as load_file
from mezzotint.checkpoints.inspect import inspect
from mezzotint.checkpoints.keys import Table, to_theirs
from mezzotint.checkpoints.tables import control_flux, control_mmdit
from mezzotint.diffusion.noise import batch
from mezzotint.engine.generate import generate
from mezzotint.engine.request import Control, Guidance, Request
from mezzotint.families import catalogue, controls
from mezzotint.families.controls_flow import spread
from mezzotint.families.flow import load, pack
from mezzotint.modalities.image import to_image
from pipelines import flux, small_flow, stable_diffusion_3
from variants import certain, picture

# `diffusers`' network builds its own embedding by a name that it calls deprecated.
pytestmark = pytest.mark.filterwarnings("ignore:`FluxPosEmbed` is deprecated:FutureWarning")
SIZE = (32, 64)
FOX = "a red fox, flat style"
FLUX: dict[str, dict[str, Any]] = {
    "InstantX": {"num_layers": 1, "num_single_layers": 1, "guidance_embeds": True},
    "Union-Pro": {"num_layers": 2, "num_single_layers": 1, "num_mode": 10, "guidance_embeds": True},
    "Union-Pro-2": {"num_layers": 1, "num_single_layers": 0, "guidance_embeds": True},
    "unguided": {"num_layers": 2, "num_single_layers": 2},
    "XLabs": {
        "num_layers": 1,
        "num_single_layers": 0,
        "guidance_embeds": True,
        "conditioning_embedding_channels": 16,
        "patch_size": 2,
    },
}
SD3: dict[str, tuple[str, dict[str, Any]]] = {
    "InstantX": ("sd3", {"num_layers": 1, "force_zeros_for_pooled_projection": True}),
    "pooled": ("sd3", {"num_layers": 2, "force_zeros_for_pooled_projection": False}),
    "3.5 medium": (
        "sd35-medium",
        {
            "num_layers": 2,
            "qk_norm": "rms_norm",
            "dual_attention_layers": (0, 1),
            "force_zeros_for_pooled_projection": False,
        },
    ),
    "3.5 large": (
        "sd35-large",
        {
            "num_layers": 2,
            "joint_attention_dim": None,
            "use_pos_embed": False,
            "pos_embed_type": None,
            "pos_embed_max_size": None,
            "force_zeros_for_pooled_projection": False,
        },
    ),
}


def random(network: Any, seed: int) -> Any:
    """With numbers where training begins with zeros."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, weight in network.named_parameters():
            if "norm_" in name:
                weight.normal_(1, 0.1)
            else:
                weight.normal_(0, 0.1)
    return network.eval()


def flux_control(name: str, seed: int = 1) -> FluxControlNetModel:
    return random(
        FluxControlNetModel(
            **FLUX[name],
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=24,
            pooled_projection_dim=8,
            axes_dims_rope=[4, 6, 6],
        ),
        seed,
    )


def sd3_control(name: str, seed: int = 1) -> SD3ControlNetModel:
    sizes: dict[str, Any] = {"joint_attention_dim": 24, "pos_embed_max_size": 12}
    return random(
        SD3ControlNetModel(
            **{
                "sample_size": 8,
                "attention_head_dim": 8,
                "num_attention_heads": 2,
                "caption_projection_dim": 16,
                "pooled_projection_dim": 16,
                **sizes,
                **SD3[name][1],
            }
        ),
        seed,
    )


class Made:
    """A base of `diffusers`, stored and loaded, and what its pipeline makes of control networks."""

    def __init__(self, name: str, place: Path) -> None:
        self.base: Any = flux(name) if name.startswith("flux") else stable_diffusion_3(name)
        certain(self.base.vae)
        self.base.save_pretrained(place)
        self.place = place
        self.model = load(small_flow(name), place)

    def stored(self, network: Any, name: str) -> Path:
        network.save_pretrained(self.place / name)
        return self.place / name

    def expected(
        self, used: Any, steps: int, scale: float, image: Tensor | None = None, **told: Any
    ) -> Tensor:
        parts = {
            key: part
            for key, part in self.base.components.items()
            if key not in ("image_encoder", "feature_extractor")
        }
        of_flux = isinstance(used, FluxControlNetModel | FluxMultiControlNetModel)
        kind: Any = FluxControlNetPipeline if of_flux else StableDiffusion3ControlNetPipeline
        made = kind(**parts, controlnet=used)
        made.set_progress_bar_config(disable=True)
        latents = batch([3], "start", 0, (16, SIZE[0] // 8, SIZE[1] // 8))
        image = picture(*SIZE)[None] if image is None else image
        several = isinstance(used, FluxMultiControlNetModel | SD3MultiControlNetModel)
        if of_flux:
            guided = self.base.transformer.config.guidance_embeds
            told["max_sequence_length"] = 512 if guided else 256
        elif scale > 1:
            told["negative_prompt"] = "blue"
        with torch.no_grad():
            return made(
                FOX,
                control_image=[image, -image] if several else image,
                height=SIZE[0],
                width=SIZE[1],
                num_inference_steps=steps,
                guidance_scale=scale,
                latents=pack(latents) if of_flux else latents,
                output_type="pt",
                **told,
            ).images[0]


@pytest.fixture(scope="module")
def bases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Made]:
    names = ("flux-dev", "flux-schnell", "sd3", "sd35-medium", "sd35-large")
    return {name: Made(name, tmp_path_factory.mktemp(name)) for name in names}


def wish(steps: int, scale: float, *used: Control, **more: Any) -> Request:
    guidance = Guidance(scale)
    return Request(FOX, (3,), size=SIZE, steps=steps, guidance=guidance, controls=used, **more)


def assert_same(made: Made, used: Any, request: Request, **told: Any) -> None:
    steps, scale = request.steps, request.guidance.scale
    assert steps is not None and scale is not None
    found = generate(made.model, request)[0]
    measured.close(found / 2 + 0.5, made.expected(used, steps, scale, **told), 1e-3)
    plain = generate(made.model, replace(request, controls=()))[0]
    assert float((found - plain).abs().max()) > 0.01


# --- FLUX.1 -----------------------------------------------------------------------------------


@pytest.mark.parity("ControlNet", "diffusers folder", family="flux-dev")
@pytest.mark.parametrize("name", FLUX)
@pytest.mark.parametrize(("steps", "scale"), [(1, 1.0), (4, 5.0), (20, 5.0)])
def test_flux(bases: dict[str, Made], name: str, steps: int, scale: float) -> None:
    made, theirs = bases["flux-dev"], flux_control(name)
    mode = {"mode": "depth"} if "num_mode" in FLUX[name] else {}
    network = controls.load(made.model, made.stored(theirs, name), **mode)
    told: dict[str, Any] = {"control_mode": 2} if mode else {}
    request = wish(steps, scale, Control(network, picture(*SIZE), 0.7))
    assert_same(made, theirs, request, controlnet_conditioning_scale=0.7, **told)


@pytest.mark.parity("ControlNet", "diffusers folder", family="flux-schnell")
@pytest.mark.parametrize("name", ["InstantX", "unguided"])
def test_beside_a_model_that_is_told_no_scale(bases: dict[str, Made], name: str) -> None:
    made, theirs = bases["flux-schnell"], flux_control(name)
    network = controls.load(made.model, made.stored(theirs, name))
    found = generate(made.model, wish(4, 1.0, Control(network, picture(*SIZE))))[0]
    measured.close(found / 2 + 0.5, made.expected(theirs, 4, 3.5), 1e-3)


@pytest.mark.parity(
    "two ControlNets, each for a part of the way", "diffusers folder", family="flux-dev"
)
def test_two_of_flux(bases: dict[str, Made]) -> None:
    made = bases["flux-dev"]
    theirs = [flux_control("Union-Pro", seed) for seed in (1, 2)]
    loaded = [
        controls.load(made.model, made.stored(each, f"two{n}"), mode=mode)
        for n, (each, mode) in enumerate(zip(theirs, ("0", "gray"), strict=True))
    ]
    ends: dict[str, Any] = {
        "controlnet_conditioning_scale": [0.7, 0.4],
        "control_guidance_start": [0.0, 0.25],
        "control_guidance_end": [0.5, 1.0],
        "control_mode": [0, 5],
    }
    two = (
        Control(loaded[0], picture(*SIZE), 0.7, 0.0, 0.5),
        Control(loaded[1], -picture(*SIZE), 0.4, 0.25, 1.0),
    )
    assert_same(made, FluxMultiControlNetModel(theirs), wish(4, 3.5, *two), **ends)


def test_networks_of_other_depths_add_up(bases: dict[str, Made]) -> None:
    """One that has no single blocks beside one that has."""
    made = bases["flux-dev"]
    two = [
        Control(controls.load(made.model, made.stored(flux_control(n), n)), picture(*SIZE))
        for n in ("Union-Pro-2", "InstantX")
    ]
    both = generate(made.model, wish(2, 3.5, *two))[0]
    assert torch.equal(both, generate(made.model, wish(2, 3.5, *two[::-1]))[0])
    assert not torch.equal(both, generate(made.model, wish(2, 3.5, two[1]))[0])


def test_residuals_of_a_few_blocks() -> None:
    made = [torch.tensor(float(n)) for n in range(5)]
    found = [0 if r is None else int(r) for r in spread(made, 19, repeated=False)]
    assert found == [n // 4 for n in range(19)]  # the interval is rounded up
    assert spread([], 3, repeated=False) == (None, None, None)
    found = [0 if r is None else int(r) for r in spread(made[:2], 5, repeated=True)]
    assert found == [0, 1, 0, 1, 0]


def test_modes(bases: dict[str, Made]) -> None:
    made = bases["flux-dev"]
    union, plain = (made.stored(flux_control(n), n) for n in ("Union-Pro", "InstantX"))

    def of(**told: str) -> Tensor:
        network = controls.load(made.model, union, **told)
        return generate(made.model, wish(1, 3.5, Control(network, picture(*SIZE))))[0]

    assert torch.equal(of(mode="canny"), of(hint="canny"))
    assert torch.equal(of(mode="gray"), of(hint="luminance"))
    assert torch.equal(of(mode="5"), of(mode="gray", hint="canny"))
    assert not torch.equal(of(mode="canny"), of(mode="9"))
    for told, message in (
        ({}, r"its mode is not said: give mode=, one of 0 \(canny\), 1 \(tile\), 2 \(depth\)"),
        ({"hint": "edges"}, "its mode is not said"),
        ({"mode": "10"}, "there is no mode '10': give mode=, one of"),
    ):
        with pytest.raises(CheckpointError, match=message):
            controls.load(made.model, union, **told)
    with pytest.raises(CheckpointError, match="knows one kind: leave mode= out"):
        controls.load(made.model, plain, mode="canny")


# --- Stable Diffusion 3 -----------------------------------------------------------------------


def sd3_mode(name: str) -> str | None:
    return "depth" if name == "3.5 large" else None


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(n, marks=pytest.mark.parity("ControlNet", "diffusers folder", family=f))
        for n, (f, _) in SD3.items()
    ],
)
@pytest.mark.parametrize(("steps", "scale"), [(1, 1.0), (4, 5.0), (20, 5.0)])
def test_sd3(bases: dict[str, Made], name: str, steps: int, scale: float) -> None:
    made, theirs = bases[SD3[name][0]], sd3_control(name)
    network = controls.load(made.model, made.stored(theirs, name), sd3_mode(name))
    request = wish(steps, scale, Control(network, picture(*SIZE), 0.7))
    request = replace(request, negative="blue" if scale > 1 else "")
    assert_same(made, theirs, request, controlnet_conditioning_scale=0.7)


@pytest.mark.parity("two ControlNets, each for a part of the way", "diffusers folder", family="sd3")
def test_two_of_sd3(bases: dict[str, Made]) -> None:
    made = bases["sd3"]
    theirs = [sd3_control("pooled", seed) for seed in (1, 2)]
    loaded = [controls.load(made.model, made.stored(c, f"two{n}")) for n, c in enumerate(theirs)]
    ends: dict[str, Any] = {
        "controlnet_conditioning_scale": [0.7, 0.4],
        "control_guidance_start": [0.0, 0.25],
        "control_guidance_end": [0.5, 1.0],
    }
    two = (
        Control(loaded[0], picture(*SIZE), 0.7, 0.0, 0.5),
        Control(loaded[1], -picture(*SIZE), 0.4, 0.25, 1.0),
    )
    request = wish(4, 5.0, *two, negative="blue")
    assert_same(made, SD3MultiControlNetModel(theirs), request, **ends)


@pytest.mark.parity("ControlNet, edges of 3.5 large", "diffusers folder", family="sd35-large")
def test_edges_of_large_are_told_as_it_was_trained(bases: dict[str, Made]) -> None:
    """`diffusers`' pipeline is handed what its own processor makes of them."""
    made, theirs = bases["sd35-large"], sd3_control("3.5 large")
    network = controls.load(made.model, made.stored(theirs, "canny"), hint="canny")
    image = (picture(*SIZE) / 2 + 0.5) * 255 * 0.5 + 0.5
    found = generate(made.model, wish(2, 1.0, Control(network, picture(*SIZE))))[0]
    measured.close(found / 2 + 0.5, made.expected(theirs, 2, 1.0, image=image[None]), 1e-3)
    plain = controls.load(made.model, made.place / "canny", mode="depth")
    assert not torch.equal(
        found, generate(made.model, wish(2, 1.0, Control(plain, picture(*SIZE))))[0]
    )


# --- layouts ----------------------------------------------------------------------------------


def lone(made: Made, folder: Path, mode: str | None, table: Table, **more: Tensor) -> Any:
    """The network of a folder in one file of another layout."""
    network = controls.load(made.model, folder, mode).network
    assert isinstance(network, nn.Module)
    state = network.state_dict()
    for name in ("stem.weight", "stem.bias", "positions"):
        if table is control_mmdit.ORIGINAL:
            state.pop(name)
    path = made.place / f"{folder.name}.safetensors"
    save(path, {**to_theirs(state, table), **more}, {})
    return path


@pytest.mark.parity("ControlNet", "single file", family="flux-dev")
def test_xlabs_layout_is_the_same_network(bases: dict[str, Made]) -> None:
    made = bases["flux-dev"]
    folder = made.stored(flux_control("XLabs"), "XLabs")
    path = lone(made, folder, None, control_flux.ORIGINAL)
    assert inspect(path).kind == "ControlNet for FLUX"
    pictures = [
        generate(made.model, wish(2, 3.5, Control(controls.load(made.model, p), picture(*SIZE))))[0]
        for p in (folder, folder / "diffusion_pytorch_model.safetensors", path)
    ]
    measured.same(pictures[0], pictures[1])
    measured.same(pictures[0], pictures[2])


@pytest.mark.parity("ControlNet", "single file", family="sd35-large")
def test_stabilitys_layout_is_the_same_network(bases: dict[str, Made]) -> None:
    made = bases["sd35-large"]
    folder = made.stored(sd3_control("3.5 large"), "large")
    kind = {"control_type": torch.tensor([2.0])}
    path = lone(made, folder, "depth", control_mmdit.ORIGINAL, **kind)
    assert inspect(path).kind == "ControlNet for SD3.5 large"
    loaded = controls.load(made.model, folder, "depth"), controls.load(made.model, path)
    found = [generate(made.model, wish(2, 3.5, Control(c, picture(*SIZE))))[0] for c in loaded]
    measured.same(*found)
    for told in ({"mode": "canny"}, {"hint": "canny"}):
        with pytest.raises(CheckpointError, match="follows depth, not canny: give it that"):
            controls.load(made.model, path, **told)
    path = lone(made, folder, "depth", control_mmdit.ORIGINAL, control_type=torch.tensor([9.0]))
    with pytest.raises(CheckpointError, match="its control_type is none of 0, 1 and 2"):
        controls.load(made.model, path)
    with pytest.raises(CheckpointError, match="its mode is not said: give mode=, one of 0 .blur."):
        controls.load(made.model, folder)


def test_what_a_file_says_by_itself(bases: dict[str, Made], tmp_path: Path) -> None:
    """Without a folder's configuration it is taken as `diffusers` takes one that is silent."""
    made = bases["sd3"]
    folder = made.stored(sd3_control("InstantX"), "alone")
    bare = tmp_path / "bare.safetensors"
    bare.write_bytes((folder / "diffusion_pytorch_model.safetensors").read_bytes())
    (tmp_path / "config.json").write_text(json.dumps({"force_zeros_for_pooled_projection": False}))
    found = [
        generate(made.model, wish(1, 1.0, Control(controls.load(made.model, p), picture(*SIZE))))[0]
        for p in (folder, bare)
    ]
    assert torch.equal(*found)  # the configuration beside is of the files that folders have
    config = json.loads((folder / "config.json").read_text())
    config["force_zeros_for_pooled_projection"] = "no"
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(CheckpointError, match="_pooled_projection is 'no': true or false"):
        controls.load(made.model, folder)


def test_what_does_not_fit_says_so(bases: dict[str, Made], tmp_path: Path) -> None:
    dev, sd3 = bases["flux-dev"], bases["sd3"]
    folder = dev.stored(flux_control("InstantX"), "wrong")
    with pytest.raises(
        CheckpointError, match=r"ControlNet for FLUX \(diffusers\) does not fit sd3"
    ):
        controls.load(sd3.model, folder)
    state, _ = load_file(folder / "diffusion_pytorch_model.safetensors")
    state = dict(state)
    state["controlnet_x_embed.weight"] = state.pop("controlnet_x_embedder.bias")
    save(tmp_path / "a.safetensors", state, {})
    with pytest.raises(CheckpointError, match="unknown key 'controlnet_x_embed.weight'"):
        controls.load(dev.model, tmp_path / "a.safetensors")
    wide = random(
        SD3ControlNetModel.from_config(sd3_control("pooled").config, extra_conditioning_channels=2),
        1,
    )
    with pytest.raises(
        CheckpointError, match="told 18 channels of a picture: known are 16, and 17"
    ):
        controls.load(sd3.model, sd3.stored(wide, "wide"))
    adapter = {"body.0.block1.weight": torch.zeros(1), "body.0.block2.weight": torch.zeros(1)}
    save(tmp_path / "c.safetensors", adapter, {})
    with pytest.raises(CheckpointError, match="is T2I-Adapter, not a control network .ControlNet"):
        controls.load(sd3.model, tmp_path / "c.safetensors")
    save(tmp_path / "b.safetensors", {"x": torch.zeros(1)}, {})
    with pytest.raises(CheckpointError, match="is nothing that is known, not a control network"):
        controls.load(sd3.model, tmp_path / "b.safetensors")


def test_from_the_command_line(
    bases: dict[str, Made],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The name of a hint says the mode of a network that knows several."""
    made = bases["flux-dev"]
    union = made.stored(flux_control("Union-Pro"), "union")
    monkeypatch.setattr(catalogue, "FAMILIES", (small_flow("flux-dev"),))
    to_image(picture(*SIZE)).save(tmp_path / "map.png")
    told = ["generate", FOX, "--model", str(made.place), "--size", f"{SIZE[1]}x{SIZE[0]}"]
    told += ["--steps", "1", "--seed", "1", "--no-preview", "--precision", "float32"]
    given = f"{union}={tmp_path / 'map.png'}"
    found: list[bytes] = []
    for number, more in enumerate((",mode=2", ",mode=depth", ",mode=pose", ",pose")):
        place = str(tmp_path / f"{number}.png")
        assert main([*told, "-o", place, "--control", given + more]) == 0
        with Image.open(place) as image:
            found.append(image.tobytes())
            assert more.rpartition("=")[2].strip(",") in image.info["parameters"]
    assert found[0] == found[1] != found[2] == found[3]
    capsys.readouterr()
    for wrong, message in (("", "its mode is not said"), (",mode=dept", "no mode 'dept'")):
        assert main([*told, "--control", given + wrong]) == 2
        assert message in capsys.readouterr().err
