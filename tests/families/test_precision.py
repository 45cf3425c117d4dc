"""Precision: what is rounded, what is not, and how far the picture moves."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mezzotint.engine.generate import generate
from mezzotint.engine.request import Guidance, Request
from mezzotint.families import catalogue, flow, ldm
from mezzotint.families.precision import KINDS, fastest, kind_of, working
from mezzotint.networks.ldm_autoencoder import WIDE
from pipelines import FLOWS, flux, small, small_flow, stable_diffusion, stable_diffusion_3

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["sd1", "sd2", "sdxl", *FLOWS])
def test_bfloat16_is_near_float32(name: str, tmp_path: Path) -> None:
    """The network's output within 2 %; what leaves it, and the code, are float32."""
    if name in FLOWS:
        pipeline = flux(name) if name.startswith("flux") else stable_diffusion_3(name)
        pipeline.save_pretrained(tmp_path / "a")
        family, make = small_flow(name), flow.load
    else:
        stable_diffusion(name).save_pretrained(tmp_path / "a")
        family, make = small(name), ldm.load
    wide, half = (make(family, tmp_path / "a", kind) for kind in (torch.float32, torch.bfloat16))  # type: ignore[arg-type]
    assert working(wide.network) == torch.float32 and working(half.network) == torch.bfloat16
    assert working(half.parts["text"]) == torch.bfloat16
    assert working(half.parts["autoencoder"]) == torch.bfloat16
    torch.manual_seed(0)
    x = torch.randn(2, *wide.codec.shape((64, 64)))
    told = wide.conditioner(["a red fox", "blue"])
    if wide.framing is not None:
        assert told.vector is not None
        told = told._replace(
            vector=torch.cat([told.vector, wide.framing((64, 64)).expand(2, -1)], 1)
        )
    if wide.distilled:
        assert told.vector is not None
        told = told._replace(vector=torch.cat([told.vector, torch.full((2, 1), 3.7)], 1))
    with torch.inference_mode():
        time = torch.full((2,), 500.0)
        expected, found = wide.call(x, time, told), half.call(x, time, told)
    assert found.dtype == torch.float32
    assert float((found - expected).norm() / expected.norm()) < 0.02
    code = torch.randn(1, *wide.codec.shape((64, 64)))
    with torch.inference_mode():
        decoded, rough = wide.codec.decode(code), half.codec.decode(code)
        encoded, coarse = wide.codec.encode(decoded), half.codec.encode(decoded)
    # Norms over a channel or two make much of little; at the released sizes it is below 0.5 %.
    for expected, found in ((decoded, rough), (encoded, coarse)):
        assert found.dtype == torch.float32
        assert float((found - expected).norm() / expected.norm()) < 0.05
    request = Request("a red fox", (1, 2), size=(64, 64), steps=2, guidance=Guidance(3.0))
    both = generate(half, request)
    assert both[0].dtype == torch.float32
    alone = generate(half, Request("a red fox", (2,), size=(64, 64), steps=2, guidance=Guidance(3)))
    assert torch.equal(both[1], alone[0])


def test_precisions_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    assert kind_of("auto", CPU) == fastest(CPU) and fastest(CPU) in KINDS.values()
    assert kind_of("float16", CPU) == torch.float16
    with pytest.raises(ValueError, match="no precision 'int8': choose one of auto, float32"):
        kind_of("int8", CPU)
    with pytest.raises(ValueError, match="own models, which compute in float32"):
        catalogue.load("icons", "cpu", precision="bfloat16")


@pytest.mark.parametrize(
    ("has", "kind"),
    [
        ({"avx2"}, torch.float32),
        ({"avx512_f", "avx512_vnni"}, torch.float32),
        ({"avx512_f", "avx512_bf16"}, torch.bfloat16),
        ({"amx_bf16"}, torch.bfloat16),
        ({"neon"}, torch.float32),
        ({"neon", "bf16"}, torch.bfloat16),
    ],
)
def test_the_machine_is_asked(
    has: set[str], kind: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And not timed: the choice is the same on a busy machine."""
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(has, True))
    monkeypatch.setattr("sys.platform", "linux")
    assert fastest(CPU) == kind


def test_an_autoencoder_is_wide_where_it_must_be(tmp_path: Path) -> None:
    """Next to pictures and codes, and all of it where float16 would overflow."""
    stable_diffusion("sdxl").save_pretrained(tmp_path / "a")
    for kind, body in ((torch.bfloat16, torch.bfloat16), (torch.float16, torch.float32)):
        state = ldm.load(small("sdxl"), tmp_path / "a", kind).parts["autoencoder"].state_dict()
        wide = {name for name, tensor in state.items() if tensor.dtype == torch.float32}
        assert state["decoder.stem.weight"].dtype == body
        assert {name for name in state if name.startswith(WIDE)} <= wide
        assert len(WIDE) == len({name.rsplit(".", 1)[0] for name in state if name.startswith(WIDE)})
