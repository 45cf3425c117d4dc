"""What a file says of how its model is to be used: its prediction, its noise's end, few steps.

The weights cannot tell these.  Files say them by empty tensors ("v_pred", "ztsnr", as SDXL models
with v prediction have them), by ModelSpec's metadata, by the trainer's own (kohya's "ss_…"), and
ours by the scheduler of the folder that they were made from.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from mezzotint.checkpoints.files import CheckpointError
from mezzotint.checkpoints.limits import parse, shown
from mezzotint.checkpoints.source import Listing, read

SCHEDULER = "diffusers.scheduler_config"
"""The metadata field in which a file keeps the ``scheduler_config.json`` it was made with."""
PREDICTION = "modelspec.prediction_type"
V_PRED, ZERO_SNR = "v_pred", "ztsnr"
"""Empty tensors: the model predicts v; its noise schedule ends in pure noise."""
EDM_MEAN, EDM_STD = "edm_mean", "edm_std"
"""Tensors: each channel of the code is normed by these; the model predicts in EDM's terms."""
SIGMA_MAX, SIGMA_MIN = "edm_vpred.sigma_max", "edm_vpred.sigma_min"
"""Tensors of one number: the ends of the noise of a model that predicts EDM's negative."""
EDM: dict[str, dict[str, Any]] = {
    "edm": {
        "_class_name": "EDMDPMSolverMultistepScheduler",
        "prediction_type": "epsilon",
        "sigma_data": 0.5,
        "sigma_min": 0.002,
        "sigma_max": 80.0,
        "sigma_schedule": "karras",
    },
    "edm_v": {
        "_class_name": "EDMEulerScheduler",
        "prediction_type": "v_prediction",
        "sigma_data": 1.0,
        "sigma_min": 0.002,
        "sigma_max": 120.0,
        "sigma_schedule": "exponential",
    },
}
"""Predictions in EDM's terms, as a ``scheduler_config.json`` of `diffusers` has them."""
NAMES = {"eps": "epsilon", "v": "v_prediction", "x0": "sample", "flow": "flow_prediction"}
"""A prediction as `diffusers` calls it in a ``scheduler_config.json``."""

_SPELLINGS = {
    "epsilon": "eps",
    "eps": "eps",
    "noise": "eps",
    "v": "v",
    "v_prediction": "v",
    "vprediction": "v",
    "velocity": "v",
    "sample": "x0",
    "x0": "x0",
    "edm": "edm",
    "edm_v": "edm_v",
    "flow": "flow",
    "flow_matching": "flow",
    "rectified_flow": "flow",
}
_ARCHITECTURES = {"stable-diffusion-v2-512": "eps", "stable-diffusion-v2-768-v": "v"}
_TENSORS = {V_PRED: "v", EDM_MEAN: "edm", SIGMA_MAX: "edm_v"}
TAGS = "modelspec.tags"
_TITLES = ("modelspec.title", TAGS, "ss_output_name", "ss_sd_model_name")
_CONDITIONED = (  # the guidance scale is an input of these: Luo et al. 2023, "LCM", §4.3
    "model.diffusion_model.time_embed.cond_proj.weight",
    "time_embed.cond_proj.weight",
    "time_embedding.cond_proj.weight",
)
_FEW_STEPS = (
    ("turbo", re.compile("turbo")),
    ("lightning", re.compile("lightning")),
    ("LCM", re.compile("(?<![a-z])lcm(?![a-z])")),
    ("Hyper-SD", re.compile("hyper[-_ ]?sd")),
    ("DMD", re.compile("(?<![a-z])dmd(?![a-z])")),
)
_OTHERS = (  # whose tensors are those of another
    ("Kontext", re.compile("kontext")),
    ("Playground v2.5", re.compile("playground[-_ ]?v?2[.]5")),
    ("CosXL", re.compile("cosxl")),
)


class Claim(NamedTuple):
    """What a file says: a prediction ("eps", "v", "x0", "flow", "edm", "edm_v") or a variant; and
    what in it says so."""

    what: str
    source: str


def predictions(found: Listing) -> list[Claim]:
    """All that a file says of what its network predicts; they may contradict each other.

    Raises:
        CheckpointError: a field is malformed.
    """
    claims = [
        Claim(what, f"it has {name}") for name, what in _TENSORS.items() if name in found.tensors
    ]
    if (said := found.metadata.get(PREDICTION)) is not None:
        key = said.strip().lower().replace("-", "_").replace(" ", "_")
        claims.append(Claim(_SPELLINGS.get(key, said), f"{PREDICTION} is {shown(said)}"))
    if (said := found.metadata.get("ss_v_parameterization", "").lower()) in ("true", "false"):
        what = "v" if said == "true" else "eps"
        claims.append(Claim(what, f"ss_v_parameterization is {said}"))
    architecture = found.metadata.get("modelspec.architecture", "")
    if (what := _ARCHITECTURES.get(architecture)) is not None:
        claims.append(Claim(what, f"modelspec.architecture is {shown(architecture)}"))
    kept = _kept(found)
    exploding = str(kept.get("_class_name", "")).startswith("EDM")
    names = {what: row["prediction_type"] for what, row in EDM.items()} if exploding else NAMES
    for what, name in names.items():
        if kept.get("prediction_type") == name:
            claims.append(Claim(what, f"{SCHEDULER} says {name}"))
    return claims


def zero_snr(found: Listing) -> str | None:
    """What says that the noise schedule ends in pure noise (Lin et al. 2024), if anything does."""
    if ZERO_SNR in found.tensors:
        return f"it has {ZERO_SNR}"
    if found.metadata.get("ss_zero_terminal_snr", "").lower() == "true":
        return "ss_zero_terminal_snr is true"
    if _kept(found).get("rescale_betas_zero_snr") is True:
        return f"{SCHEDULER} says rescale_betas_zero_snr"
    return None


def few_steps(found: Listing) -> list[Claim]:
    """Variants that were distilled to a few steps, as the weights or the title say it."""
    claims = [Claim("LCM", f"it has {name}") for name in _CONDITIONED if name in found.tensors]
    for key in _TITLES:
        text = found.metadata.get(key, "")
        for variant, pattern in _FEW_STEPS:
            if pattern.search(text.lower()) and all(variant != claim.what for claim in claims):
                claims.append(Claim(variant, f"{key} is {shown(text)}"))
    return claims


def variants(found: Listing) -> frozenset[str]:
    """What a file says of itself that its tensors may not: a variant of few steps, or Kontext."""
    return named(found.metadata) | {claim.what for claim in few_steps(found)}


def named(metadata: Mapping[str, str]) -> frozenset[str]:
    """The variants that titles and tags name."""
    titles = " ".join(metadata.get(key, "") for key in _TITLES).lower()
    few = (name for name, pattern in _FEW_STEPS if pattern.search(titles))
    return frozenset((*few, *others(metadata)))


def others(metadata: Mapping[str, str]) -> list[str]:
    """Those of them that have the tensors of another model and are of as many steps."""
    titles = " ".join(metadata.get(key, "") for key in _TITLES).lower()
    return [name for name, pattern in _OTHERS if pattern.search(titles)]


def scheduler(found: Listing) -> dict[str, Any]:
    """What a single file says, as a ``scheduler_config.json`` would; empty where it says nothing.

    Raises:
        CheckpointError: what it says is contradictory or malformed.
    """
    said = dict(_kept(found))
    claims = predictions(found)
    for claim in claims[1:]:
        if claim.what != claims[0].what:
            raise CheckpointError(
                f"{found.path}: contradicts itself on what it predicts: {claims[0].source}, but "
                f"{claim.source}: ask its author which is right, and remove the other"
            )
    if claims and claims[0].what in EDM:
        said = {**EDM[claims[0].what], **_sigmas(found), **said}
    elif claims:
        said["prediction_type"] = NAMES.get(claims[0].what, claims[0].what)
    if zero_snr(found) is not None:
        said["rescale_betas_zero_snr"] = True
    return said


def _sigmas(found: Listing) -> dict[str, float]:
    """The ends of the noise, which a file gives as numbers."""
    named = {"sigma_max": SIGMA_MAX, "sigma_min": SIGMA_MIN}
    there = {key: name for key, name in named.items() if name in found.tensors}
    if not there:
        return {}
    if odd := [name for name in there.values() if found.tensors[name].count != 1]:
        raise CheckpointError(f"{found.path}: its {odd[0]} is not one number")
    state = read(found.path)
    numbers = {key: state[name] for key, name in there.items()}
    return {key: float(n) for key, n in numbers.items() if isinstance(n, Tensor)}


def _kept(found: Listing) -> Mapping[str, Any]:
    if (text := found.metadata.get(SCHEDULER)) is None:
        return {}
    try:
        return parse(text)
    except ValueError:
        raise CheckpointError(
            f"{found.path}: its {SCHEDULER} metadata is not a JSON object"
        ) from None
