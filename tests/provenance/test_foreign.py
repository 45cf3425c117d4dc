"""Recipes of other programs: texts in their documented forms, made up here, and broken ones."""

from __future__ import annotations

import json
import random
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, PngImagePlugin

from mezzotint.apps import cli
from mezzotint.apps.repeat import _words
from mezzotint.diffusion import samplers, spacings
from mezzotint.engine.prompts import choose
from mezzotint.engine.prompts import read as read_prompt
from mezzotint.modalities.image import read_text
from mezzotint.provenance.called import SAMPLERS, SPACINGS
from mezzotint.provenance.foreign import Foreign, foreign
from mezzotint.provenance.foreign.invoke import prompt
from mezzotint.provenance.foreign.names import NOISE
from mezzotint.provenance.recipe import RecipeError

WEBUI = """a (red:1.2) fox, <lora:ink:0.8>, {literal}
second line
Negative prompt: blurry, [bad]
worse
Steps: 20, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 1234567890, Size: 512x768, \
Model hash: 6ce0161689, Model: v1-5-pruned-emaonly, Denoising strength: 0.55, Clip skip: 2, \
RNG: CPU, Hires upscale: 2, Hires steps: 10, Hires upscaler: Latent (nearest), \
Lora hashes: "ink: aabbccddeeff, other: 112233445566", TI hashes: "easy: 0011", Version: v1.6.0"""
COMFY: dict[str, Any] = {
    "3": {
        "class_type": "KSampler",
        "inputs": {
            "seed": 7,
            "steps": 25,
            "cfg": 6.5,
            "sampler_name": "dpmpp_2m_sde_gpu",
            "scheduler": "karras",
            "denoise": 1.0,
            "model": ["10", 0],
            "positive": ["6", 0],
            "negative": ["7", 0],
            "latent_image": ["5", 0],
        },
    },
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "xl\\base.safetensors"}},
    "5": {
        "class_type": "EmptyLatentImage",
        "inputs": {"width": 640, "height": 512, "batch_size": 1},
    },
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "a [fox] {x}", "clip": ["10", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": ["12", 0], "clip": ["10", 1]}},
    "8": {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["11", 0]}},
    "9": {"class_type": "SaveImage", "inputs": {"filename_prefix": "x", "images": ["8", 0]}},
    "10": {
        "class_type": "LoraLoader",
        "inputs": {
            "lora_name": "ink.safetensors",
            "strength_model": 0.8,
            "strength_clip": 0.5,
            "model": ["4", 0],
            "clip": ["4", 1],
        },
    },
    "11": {"class_type": "VAELoader", "inputs": {"vae_name": "vae.safetensors"}},
    "12": {"class_type": "PrimitiveString", "inputs": {"value": "blurry"}},
}


def comfy(graph: dict[str, Any]) -> Foreign:
    return foreign({"prompt": json.dumps(graph)})


def changed(**nodes: Any) -> dict[str, Any]:
    return {**json.loads(json.dumps(COMFY)), **{key.strip("n"): v for key, v in nodes.items()}}


def lines(found: Foreign) -> str:
    return "\n".join(found.left)


def understood(found: Foreign) -> None:
    """Our command line takes the options."""
    args = cli.parse(["generate", *_words(found.options)])
    assert args.prompt == found.options["prompt"]
    for line in found.left:
        assert line.isprintable() and len(line) < 400


def test_the_tables_name_what_there_is() -> None:
    for name in SAMPLERS.values():
        samplers.find(name)
    for name in SPACINGS.values():
        spacings.find(name)


# --- AUTOMATIC1111 and its kin ----------------------------------------------------------------


def test_automatic1111() -> None:
    found = foreign({"parameters": WEBUI})
    assert found.program == "AUTOMATIC1111's web UI v1.6.0"
    assert found.options == {
        "prompt": "a (red:1.2) fox, <lora:ink:0.8>, \\{literal\\}\nsecond line",
        "negative": "blurry, [bad]\nworse",
        "steps": "20",
        "sampler": "dpmpp_2m",
        "spacing": "karras",
        "guidance": "7",
        "seed": "1234567890",
        "size": "512x768",
        "model": "v1-5-pruned-emaonly",
        "enlarge": "2",
        "enlarge-strength": "0.55",
        "enlarge-latent": True,
    }
    assert [tuple(sought) for sought in found.sought] == [
        ("model", "v1-5-pruned-emaonly", "6ce0161689"),
        ("lora", "ink", "aabbccddeeff"),
        ("lora", "other", "112233445566"),
        ("embedding", "easy", "0011"),
    ]
    for word in ("Clip skip: 2", "drawn by CPU", "Hires steps: 10", "SHA-256", NOISE):
        assert word in lines(found)
    understood(found)


@pytest.mark.parametrize(
    ("fields", "options", "left"),
    [
        ("Sampler: Heun, Schedule type: Simple", {"sampler": "heun", "spacing": "trailing"}, ""),
        ("Sampler: Euler", {"sampler": "euler", "spacing": "linspace"}, ""),
        ("Sampler: DDIM", {"sampler": "ddim", "spacing": "leading"}, ""),
        ("Sampler: Restart", {}, "sampler: Restart is not one of ours"),
        ("Sampler: Euler, Schedule type: Turbo", {"sampler": "euler"}, "spacing: Turbo"),
        ("CFG scale: 1, Distilled CFG Scale: 3.5, Version: f2.0.1", {"guidance": "3.5"}, ""),
        ("Seed: -1", {}, "seed: -1 is no value"),
        ("Seed: 99999999999999999999", {}, "seed: 99999999999999999999 is no value"),
        ("Denoising strength: 0.7, Mask blur: 4", {}, "give it with --mask"),
        ("Variation seed: 5, Variation seed strength: 0.2", {}, "of seed 5 by 0.2"),
        ("Tiling: True", {"tile": "both"}, ""),
        ('X: "a, \\"b\\": c", Size: 64x32', {"size": "64x32"}, 'X: a, "b": c'),
        ("Size: 64", {}, "size: 64 by"),
        ("Model: ../../etc/passwd", {"model": "passwd"}, "no hash there"),
        ("Model: a=b", {}, "model: a=b is no file's name"),
        ("App: SD.Next, Version: 1a2b", {}, ""),
    ],
)  # fmt: skip
def test_fields(fields: str, options: dict[str, str], left: str) -> None:
    found = foreign({"parameters": f"fox\nSteps: 4, {fields}"})
    assert found.options == {"prompt": "fox", "steps": "4", **options}
    assert left in lines(found)
    understood(found)


def test_programs_and_prompts() -> None:
    assert foreign({"parameters": "Steps: 4, Version: f2.0.1-x"}).program == "Forge f2.0.1-x"
    assert foreign({"parameters": "Steps: 4, App: SD.Next, Version: 7"}).program == "SD.Next 7"
    found = foreign({"parameters": "a <hypernet:x:1> AND b __c__\nSteps: 4, Seed: 1"})
    assert found.options["prompt"] == "" and "wildcard" in lines(found)
    assert "<hypernet:…>" in lines(found) and "AND" in lines(found)
    with pytest.raises(RecipeError, match="no line of `Steps"):
        foreign({"parameters": "a fox"})
    with pytest.raises(RecipeError, match="characters: more than a picture has"):
        foreign({"parameters": "x" * 200_000})
    with pytest.raises(RecipeError, match="carries no recipe that is known"):
        foreign({"Title": "x"})


# --- ComfyUI ----------------------------------------------------------------------------------


def test_a_graph() -> None:
    found = comfy(COMFY)
    assert found.program == "ComfyUI"
    assert found.options == {
        "prompt": "a \\[fox\\] \\{x\\}",
        "negative": "blurry",
        "seed": "7",
        "steps": "25",
        "guidance": "6.5",
        "sampler": "dpmpp_2m_sde",
        "spacing": "karras",
        "size": "640x512",
        "model": "base.safetensors",
        "lora": ["ink.safetensors:0.8:te=0.5"],
        "part": ["vae.safetensors"],
    }
    assert found.left == (NOISE,)
    understood(found)
    chosen = read_prompt(choose(str(found.options["prompt"]), 0, lambda name: [name]))
    assert [span.text for span in chosen.at(0, 1)[0]] == ["a [fox] {x}"]  # all are letters there


def test_a_graph_as_it_was_drawn() -> None:
    values = {
        "3": [7, "fixed", 25, 6.5, "dpmpp_2m_sde_gpu", "karras", 1.0],
        "9": ["x"],
        "4": ["xl\\base.safetensors"],
        "5": [640, 512, 1],
        "6": ["a [fox] {x}"],
        "7": ["old"],
        "10": ["ink.safetensors", 0.8, 0.5],
        "11": ["vae.safetensors"],
        "12": ["blurry"],
    }
    nodes: list[dict[str, Any]] = []
    links: list[list[Any]] = []
    for number, node in COMFY.items():
        inputs: list[dict[str, Any]] = []
        for name, value in node["inputs"].items():
            if isinstance(value, list):
                inputs.append({"name": name, "link": len(links)})
                links.append([len(links), int(value[0]), value[1], int(number), 0, "X"])
        kind = node["class_type"].replace("PrimitiveString", "PrimitiveNode")
        nodes.append(
            {"id": int(number), "type": kind, "inputs": inputs}
            | {"mode": 0, "widgets_values": values.get(number, [])}
        )
    found = foreign({"workflow": json.dumps({"nodes": nodes, "links": links})})
    assert found == comfy(COMFY)
    nodes[-3]["mode"] = 4
    assert "LoraLoader: was switched off" in lines(
        foreign({"workflow": json.dumps({"nodes": nodes, "links": links})})
    )


def test_samplers_made_of_parts_and_flux() -> None:
    graph = changed(
        n3={
            "class_type": "SamplerCustomAdvanced",
            "inputs": {
                "noise": ["20", 0],
                "guider": ["21", 0],
                "sampler": ["22", 0],
                "sigmas": ["23", 0],
                "latent_image": ["5", 0],
            },
        },
        n20={"class_type": "RandomNoise", "inputs": {"noise_seed": 42}},
        n21={
            "class_type": "BasicGuider",
            "inputs": {"model": ["24", 0], "conditioning": ["26", 0]},
        },
        n22={"class_type": "KSamplerSelect", "inputs": {"sampler_name": "euler"}},
        n23={
            "class_type": "BasicScheduler",
            "inputs": {"scheduler": "simple", "steps": 4, "denoise": 1, "model": ["24", 0]},
        },
        n24={
            "class_type": "ModelSamplingFlux",
            "inputs": {"max_shift": 1.15, "base_shift": 0.5, "model": ["25", 0]},
        },
        n25={"class_type": "UNETLoader", "inputs": {"unet_name": "flux1-dev.safetensors"}},
        n26={"class_type": "FluxGuidance", "inputs": {"guidance": 3.5, "conditioning": ["6", 0]}},
        n6={"class_type": "CLIPTextEncode", "inputs": {"text": "fox", "clip": ["27", 0]}},
        n27={
            "class_type": "DualCLIPLoader",
            "inputs": {
                "clip_name1": "t5.safetensors",
                "clip_name2": "l.safetensors",
                "type": "flux",
            },
        },
    )
    found = comfy(graph)
    assert found.options == {
        "prompt": "fox",
        "seed": "42",
        "steps": "4",
        "sampler": "euler",
        "size": "640x512",
        "spacing": "trailing",
        "guidance": "3.5",
        "model": "flux1-dev.safetensors",
        "part": ["t5.safetensors", "l.safetensors", "vae.safetensors"],
    }
    assert "ModelSamplingFlux: what it does to the model is not known here" in found.left
    understood(found)


def test_a_picture_a_second_pass_and_a_control_network() -> None:
    first = COMFY["3"]["inputs"]
    image = changed(
        n3={
            "class_type": "KSampler",
            "inputs": {**first, "denoise": 0.6, "latent_image": ["30", 0]},
        },
        n30={"class_type": "VAEEncode", "inputs": {"pixels": ["31", 0], "vae": ["11", 0]}},
        n31={"class_type": "LoadImage", "inputs": {"image": "in/photo.png"}},
    )
    found = comfy(image)
    assert found.options["image"] == "photo.png" and found.options["strength"] == "0.6"
    understood(found)
    second = {**first, "denoise": 0.5, "latent_image": ["41", 0], "seed": 8, "steps": 10}
    twice = changed(
        n8={"class_type": "VAEDecode", "inputs": {"samples": ["40", 0], "vae": ["11", 0]}},
        n40={"class_type": "KSampler", "inputs": second},
        n41={
            "class_type": "LatentUpscaleBy",
            "inputs": {"upscale_method": "bislerp", "scale_by": 1.5, "samples": ["3", 0]},
        },
    )
    found = comfy(twice)
    assert found.options["enlarge"] == "1.5" and found.options["enlarge-strength"] == "0.5"
    assert found.options["seed"] == "7" and found.options["enlarge-latent"] is True
    understood(found)
    control = changed(
        n3={"class_type": "KSampler", "inputs": {**first, "positive": ["50", 0]}},
        n50={
            "class_type": "ControlNetApplyAdvanced",
            "inputs": {
                "strength": 0.7,
                "start_percent": 0.0,
                "end_percent": 0.8,
                "image": ["52", 0],
                "positive": ["6", 0],
                "negative": ["7", 0],
                "control_net": ["51", 0],
            },
        },
        n51={"class_type": "ControlNetLoader", "inputs": {"control_net_name": "canny.pth"}},
        n52={"class_type": "LoadImage", "inputs": {"image": "edges.png"}},
    )
    found = comfy(control)
    assert found.options["control"] == ["canny.pth=edges.png,strength=0.7,to=0.8"]
    understood(found)


def test_graphs_that_go_round_or_nowhere() -> None:
    first = COMFY["3"]["inputs"]
    for links in ({"model": ["3", 0]}, {"positive": ["3", 0]}, {"latent_image": ["3", 0]}):
        understood(comfy(changed(n3={"class_type": "KSampler", "inputs": {**first, **links}})))
    values = {"seed": ["3", 0], "steps": ["12", 0], "cfg": "x", "sampler_name": 3, "scheduler": []}
    found = comfy(changed(n3={"class_type": "KSampler", "inputs": {**first, **values}}))
    assert "steps: blurry is no value" in lines(found) and "guidance: x is" in lines(found)
    assert "sampler: 3 is not" in lines(found)
    understood(found)
    assert "Dreamer: what it does to the model" in lines(
        comfy(
            changed(
                n10={"class_type": "Dreamer", "inputs": {"model": ["4", 0], "clip": ["4", 1]}},
            )
        )
    )
    for graph in ({}, {"1": 2}, {"1": {"class_type": "KSampler"}}, {"nodes": []}):
        with pytest.raises(RecipeError, match="has no sampler that is known"):
            comfy(graph)
    chain = {
        str(n): {"class_type": "KSampler", "inputs": {"latent_image": [str(n + 1), 0]}}
        for n in range(3000)
    }
    understood(comfy(chain))


# --- InvokeAI ---------------------------------------------------------------------------------


def test_invokeai() -> None:
    table = {
        "app_version": "5.6.0",
        "generation_mode": "sdxl_txt2img",
        "width": 1024,
        "height": 768,
        "positive_prompt": "a (fox)1.3 (x)",
        "negative_prompt": "blur++",
        "seed": 3,
        "steps": 30,
        "cfg_scale": 5.5,
        "cfg_rescale_multiplier": 0.0,
        "scheduler": "dpmpp_2m_k",
        "rand_device": "cpu",
        "seamless_x": True,
        "clip_skip": 1,
        "controlnets": [{"a": 1}],
        "model": {"key": "k", "hash": "blake3:ab", "name": "base", "base": "sdxl", "type": "main"},
        "loras": [{"model": {"name": "ink", "hash": "blake3:cd"}, "weight": 0.75}],
    }
    found = foreign({"invokeai_metadata": json.dumps(table), "invokeai_graph": "{}"})
    assert found.program == "InvokeAI 5.6.0"
    assert found.options == {
        "prompt": "a (fox:1.3) \\(x\\)",
        "negative": "(blur:1.21)",
        "seed": "3",
        "steps": "30",
        "guidance": "5.5",
        "sampler": "dpmpp_2m",
        "spacing": "karras",
        "size": "1024x768",
        "tile": "x",
        "model": "base",
        "lora": ["ink:0.75"],
    }
    assert [sought.digest for sought in found.sought] == ["blake3:ab", "blake3:cd"]
    assert "controlnets: a list of 1: not known here" in lines(found)
    assert "clip_skip: 1" in lines(found)
    understood(found)
    older = {**table, "model": {"model_name": "old", "base_model": "sd-1"}, "loras": None}
    assert foreign({"invokeai_metadata": json.dumps(older)}).options["model"] == "old"


def test_invokeai_of_old() -> None:
    image = {
        "prompt": [{"prompt": "a fox [blurry]", "weight": 1.0}],
        "steps": 50,
        "cfg_scale": 7.5,
        "height": 512,
        "width": 448,
        "seed": 9,
        "type": "txt2img",
        "sampler": "k_euler_a",
        "variations": [],
        "postprocessing": None,
        "seamless": False,
    }
    table = {"model_weights": "sd-1.5", "model_hash": "abc", "app_version": "2.3.5", "image": image}
    expected = {
        "prompt": "a fox",
        "negative": "blurry",
        "steps": "50",
        "seed": "9",
        "guidance": "7.5",
        "sampler": "euler_ancestral",
        "size": "448x512",
    }
    found = foreign({"sd-metadata": json.dumps(table), "Dream": "x"})
    assert (found.options, found.program) == (expected, "InvokeAI 2.3.5")
    assert found.sought[0].digest == "abc"
    understood(found)
    dream = '"a fox [blurry]" -s 50 -S9 --width=448 -H 512 -C 7.5 -A k_euler_a --unknown'
    found = foreign({"Dream": dream})
    assert found.options == expected and "--unknown: not known here" in found.left
    understood(found)
    with pytest.raises(RecipeError, match="a quote is open"):
        foreign({"Dream": '"a fox'})


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("a fox", "a fox"),
        ("(a fox)++ [x]", "(a fox:1.21) \\[x\\]"),
        ("blue- eyed--", "blue- (eyed:0.81)"),
        ("half-open", "half-open"),
        ("C++", "(C:1.21)"),
        ("(a (b)1.2)", "\\(a (b:1.2)\\)"),
    ],
)
def test_weights_of_compel(theirs: str, ours: str) -> None:
    assert prompt(theirs) == ours


# --- hostile ----------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["prompt", "workflow", "invokeai_metadata", "sd-metadata"])
@pytest.mark.parametrize(
    "text",
    ["", "[]", "1", "{", '{"a":' * 2000, '{"a": 1, "a": 2}', '{"a": NaN', "\ud800", "[" * 10**6],
)
def test_no_json(key: str, text: str) -> None:
    with pytest.raises(RecipeError, match="cannot be read"):
        foreign({key: text})


def test_changed_texts_are_read_or_refused() -> None:
    """What is taken is a command line that ours understands, whatever stood there."""
    dice = random.Random(5)
    texts = {
        "parameters": WEBUI,
        "prompt": json.dumps(COMFY),
        "Dream": '"a fox [blurry]" -s 50 -S 9 -W 448 -H 512 -C 7.5 -A k_euler_a',
    }
    words = [
        "\0",
        "-1",
        "1e400",
        "[]",
        "{}",
        '"',
        "Steps: 1,",
        "__",
        "=",
        ",",
        "\n",
        "(",
        "--",
        "/",
    ]
    read = 0
    for number in range(900):
        key, text = list(texts.items())[number % 3]
        for _ in range(dice.randrange(1, 4)):
            at = dice.randrange(len(text))
            end = at + dice.choice((0, 0, 1, 3, 30))
            text = text[:at] + dice.choice(words) * dice.choice((1, 1, 50)) + text[end:]
        began = time.process_time()
        try:
            understood(foreign({key: text}))
            read += 1
        except RecipeError as error:
            assert "\n" not in str(error)
        assert time.process_time() - began < 5
    assert read > 300


def test_from_a_file(tmp_path: Path) -> None:
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("parameters", WEBUI)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png", pnginfo=chunks)
    assert foreign(read_text(tmp_path / "a.png")) == foreign({"parameters": WEBUI})
