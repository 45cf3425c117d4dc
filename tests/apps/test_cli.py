"""The command line, end to end: a tiny model file with random weights, real files, real errors."""

from __future__ import annotations

import io
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from mezzotint.apps import cli
from mezzotint.apps.output import free, slug
from mezzotint.apps.preview import Watch, half_blocks
from mezzotint.engine.generate import generate
from mezzotint.engine.request import Request
from mezzotint.families.catalogue import load
from mezzotint.modalities.image import to_image, to_tensor
from mezzotint.provenance.keys import PUBLIC


def drawing(path: Path, width: int, height: int) -> Path:
    values = np.random.default_rng(5).integers(0, 256, (height, width, 4))
    Image.fromarray(values.astype(np.uint8)).save(path)
    return path


# --- generate ---------------------------------------------------------------------------------


def test_four_pictures_and_a_sheet(
    here: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wish = ["generate", "red fox", "-n", "4", "--seed", "7", "-o", "out/", "--model", str(model)]
    assert cli.main(wish) == 0
    printed, told = capsys.readouterr()
    names = [f"red-fox_{seed}.png" for seed in (7, 8, 9, 10)] + ["red-fox_7-10_sheet.png"]
    assert printed.split() == [str(Path("out") / name) for name in names]
    assert sorted(path.name for path in Path("out").iterdir()) == sorted(names)
    assert "seeds 7 to 10" in told
    expected = generate(load(str(model)), Request("red fox", (9,), mark=PUBLIC))[0]
    with Image.open("out/red-fox_9.png") as image:
        assert np.array_equal(image, to_image(expected))
        said = json.loads(image.text["parameters"])  # type: ignore[attr-defined]
    assert said["prompt"] == "red fox" and said["seed"] == 9 and said["steps"] == 3
    assert said["size"] == "8x8" and said["guidance"] == 1.5 and said["model"] == "tiny"


def test_nothing_is_overwritten_and_quiet_is_quiet(
    here: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    wish = ["generate", "fox", "--seed", "1", "-o", "a.webp", "--model", str(model), "--quiet"]
    assert [cli.main(wish) for _ in range(3)] == [0, 0, 0]
    printed, told = capsys.readouterr()
    assert printed.split() == ["a.webp", "a-2.webp", "a-3.webp"]
    assert told == ""
    assert Image.open("a.webp").tobytes() == Image.open("a-3.webp").tobytes()


def test_a_random_seed_is_told(here: Path, model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["generate", "", "--model", str(model), "--size", "12x8"]) == 0
    printed, told = capsys.readouterr()
    match = re.search(r"seed (\d+)", told)
    assert match is not None
    assert printed.strip() == f"picture_{match[1]}.png"
    with Image.open(printed.strip()) as image:
        assert image.size == (12, 8)


def test_sizes_by_aspect(here: Path, model: Path) -> None:
    """A model that names no sizes takes about its own area, in multiples of its own."""
    drawing(here / "in.png", 12, 8)
    wish = ["generate", "fox", "--seed", "3", "--quiet", "--model", str(model), "--size"]
    for size, more, made in (
        ("square", [], (8, 8)),
        ("4:1", [], (16, 4)),
        ("tall", ["--image", "in.png"], (6, 11)),
    ):
        assert cli.main([*wish, size, "-o", f"{size[0]}.png", *more]) == 0
        with Image.open(f"{size[0]}.png") as image:
            assert image.size == made


def test_every_option_reaches_the_request(
    here: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    common = ["generate", "fox", "--seed", "3", "--quiet", "--model", str(model)]
    options = [
        [], ["--negative", "red fox"], ["--guidance", "4"], ["--steps", "5"],
        ["--sampler", "dpmpp_2s_ancestral"], ["--spacing", "karras"],
        ["--guidance", "4", "--rescale", "0.7"], ["--guidance", "4", "--apg"],
        ["--guidance", "4", "--cfg-zero-star"], ["--guidance", "4", "--interval", "0.1,0.5"],
        ["--perturb", "0"], ["--perturb", "0", "--perturb-scale", "2"], ["--skip", "0"],
        ["--skip", "0", "--skip-scale", "0.5"],
    ]  # fmt: skip
    for number, option in enumerate(options):
        assert cli.main([*common, "-o", f"{number}.png", *option]) == 0
    pixels = {Image.open(f"{number}.png").tobytes() for number in range(len(options))}
    assert len(pixels) == len(options)
    assert cli.main([*common, "-o", "again.png", "--threads", str(torch.get_num_threads())]) == 0
    assert Image.open("again.png").tobytes() == Image.open("0.png").tobytes()


def test_image_to_image_stays_near_at_low_strength(here: Path, model: Path) -> None:
    drawing(here / "in.png", 32, 16)
    wish = ["generate", "fox", "--seed", "3", "--quiet", "--model", str(model), "--steps", "50"]
    for name, strength in (("low", "0.02"), ("high", "1")):
        more = ["--image", "in.png", "--strength", strength, "-o", f"{name}.png"]
        assert cli.main([*wish, *more]) == 0
    low, high = (Image.open(f"{name}.png") for name in ("low", "high"))
    assert low.size == high.size == (8, 8)  # fitted to the model's size
    assert low.tobytes() != high.tobytes()
    assert cli.main([*wish, "--image", "in.png", "-o", "usual.png"]) == 0
    with Image.open("usual.png") as image:  # what was not said is told too
        assert json.loads(image.text["parameters"])["strength"] == 0.6  # type: ignore[attr-defined]


def test_inpainting_keeps_what_is_black_in_the_mask(here: Path, model: Path) -> None:
    image = Image.open(drawing(here / "in.png", 12, 8))
    mask = np.zeros((8, 12), dtype=np.uint8)
    mask[:, 6:] = 255
    Image.fromarray(mask).save("mask.png")
    wish = ["generate", "fox", "--seed", "3", "--quiet", "--model", str(model)]
    assert cli.main([*wish, "--image", "in.png", "--mask", "mask.png", "-o", "out.png"]) == 0
    before, after = (to_tensor(i, "rgba") for i in (image, Image.open("out.png")))
    assert torch.equal(before[:, :, :6], after[:, :, :6])
    assert not torch.equal(before[:, :, 6:], after[:, :, 6:])


def test_outpainting_keeps_the_picture_inside(here: Path, model: Path) -> None:
    image = Image.open(drawing(here / "in.png", 8, 8))
    wish = ["generate", "fox", "--seed", "3", "--quiet", "--model", str(model)]
    assert cli.main([*wish, "--image", "in.png", "--expand", "left=4,top=8", "-o", "a.png"]) == 0
    assert cli.main([*wish, "--image", "in.png", "--expand", "4", "-o", "b.png"]) == 0
    sided, around = Image.open("a.png"), Image.open("b.png")
    assert sided.size == (12, 16) and around.size == (16, 16)
    inside = to_tensor(image, "rgba")
    assert torch.equal(to_tensor(sided, "rgba")[:, 8:, 4:], inside)
    assert torch.equal(to_tensor(around, "rgba")[:, 4:12, 4:12], inside)


def test_outpainting_to_an_aspect(here: Path, model: Path) -> None:
    image = Image.open(drawing(here / "in.png", 8, 8))
    wish = ["generate", "fox", "--seed", "3", "--quiet", "--model", str(model)]
    assert cli.main([*wish, "--image", "in.png", "--expand", "3:1", "-o", "a.png"]) == 0
    with Image.open("a.png") as wide:
        assert wide.size == (24, 8)
        assert torch.equal(to_tensor(wide, "rgba")[:, :, 8:16], to_tensor(image, "rgba"))


def test_the_masked_area_alone(here: Path, model: Path) -> None:
    """It is worked on at the model's size, and all around it is what it was."""
    image = Image.open(drawing(here / "in.png", 64, 48))
    mask = np.zeros((48, 64), dtype=np.uint8)
    mask[10:20, 30:44] = 255
    Image.fromarray(mask).save("mask.png")
    wish = ["generate", "fox", "--seed", "3", "--quiet", "--model", str(model)]
    wish += ["--image", "in.png", "--mask", "mask.png"]
    for name, more in (("a", ["--only-masked", "4"]), ("b", ["--only-masked", "0"]), ("c", [])):
        assert cli.main([*wish, *more, "-o", f"{name}.png"]) == 0
    made = [to_tensor(Image.open(f"{name}.png"), "rgba") for name in "abc"]
    before, known = to_tensor(image, "rgba"), torch.from_numpy(mask == 0)
    for after in made:
        assert torch.equal(after[:, known], before[:, known])
        assert not torch.equal(after, before)
    assert not torch.equal(made[0], made[1]) and not torch.equal(made[0], made[2])


def test_a_second_pass_enlarges(here: Path, model: Path) -> None:
    wish = ["generate", "fox", "--seed", "3", "--quiet", "--model", str(model)]
    wish += ["--steps", "8", "--size", "12x8", "--enlarge", "2"]
    for name, more in (
        ("a", []),
        ("b", ["--enlarge-strength", "0.9"]),
        ("c", ["--enlarge-latent"]),
    ):
        assert cli.main([*wish, *more, "-o", f"{name}.png"]) == 0
        with Image.open(f"{name}.png") as made:
            assert made.size == (24, 16)
    assert len({Path(f"{name}.png").read_bytes() for name in "abc"}) == 3


def test_variations(here: Path, model: Path) -> None:
    """By none it is the seed's own picture; each seed then varies it in its own way."""
    wish = ["generate", "{fox|red fox}", "--quiet", "--model", str(model), "-n", "2"]
    assert cli.main([*wish, "--seed", "7", "-o", "own"]) == 0
    for how in ("0", "subtle", "strong", "0.1"):
        assert cli.main([*wish, "--seed", "20", "--vary", f"7:{how}", "-o", f"{how}/"]) == 0
    pixels = {
        (how, seed): Image.open(next(Path(how).glob(f"*_{seed}.png"))).tobytes()
        for how, seed in (
            ("own", 7),
            *((how, s) for how in ("0", "subtle", "strong", "0.1") for s in (20, 21)),
        )
    }
    assert pixels["0", 20] == pixels["0", 21] == pixels["own", 7]
    assert pixels["0.1", 20] == pixels["subtle", 20]
    assert len(set(pixels.values())) == 5


def test_jpeg_and_names() -> None:
    assert slug("A Red Fox, flat-style!") == "a-red-fox-flat-style"
    assert slug("красная лиса") == "красная-лиса"
    assert slug("../../etc/passwd") == "etc-passwd"
    assert slug("") == slug("…") == "picture"
    assert len(slug("word " * 40)) <= 48


def test_free_names(tmp_path: Path) -> None:
    assert free(tmp_path / "a.png").name == "a.png"
    (tmp_path / "a.png").touch()
    (tmp_path / "a-2.png").touch()
    assert free(tmp_path / "a.png").name == "a-3.png"


# --- requests that cannot be carried out ------------------------------------------------------

BAD = [
    ("generate fox --sampler eulr", "unknown sampler 'eulr'.*euler"),
    ("generate fox --spacing karas", "'karas'.*karras"),
    ("generate fox --size 0", "impossible size 0x0"),
    ("generate fox --size 100000", "impossible size 100000x100000"),
    ("generate fox --size=-8", "impossible size -8x-8"),
    ("generate fox --size big", "'big' is no size: give N or WxH.*16:9.*landscape"),
    ("generate fox --size 9:1", "9:1 is beyond 4:1: give an aspect from 1:4 to 4:1"),
    ("generate fox --device tpu", "no device 'tpu' here: choose one of cpu"),
    ("generate fox --steps 0", "whole number of 1 or more"),
    ("generate fox --seed x", "whole number from 0 to 2.64"),
    ("generate fox --seed 18446744073709551616", "whole number from 0 to 2.64"),
    (f"generate fox --seed {'9' * 5000}", "whole number from 0 to 2.64"),
    ("generate fox --size 0 --image in.png", "impossible size 0x0"),
    ("generate fox --size=-8 --image in.png", "impossible size -8x-8"),
    ("generate fox --size 0 --region 0,0,1,1=fox", "impossible size 0x0"),
    ("generate fox --guidance 1e300", "guidance must be a number of 0…1,000,000"),
    ("generate fox --rescale 5", "rescale must lie in 0 to 1, not 5"),
    ("generate fox --rescale=-1", "rescale must lie in 0 to 1, not -1"),
    ("generate fox --guidance 1 --negative x", "guidance is off .1., and with it negative prompt"),
    ("generate fox --image in.png --mask black.png", "the mask is black everywhere"),
    ("generate fox --image float.tif", "float.tif: floating-point pictures have no fixed range"),
    ("generate fox --lora a.safetensors:nan", "a.safetensors:nan: no such file|takes no adapters"),
    ("generate fox -n 0", "whole number of 1 or more"),
    ("generate fox --guidance nan", "'nan' is no number"),
    ("generate fox --guidance=-1", "guidance must be"),
    ("generate fox --interval 0.5,0.2", "LOW < HIGH"),
    ("generate fox --skip 1,x", "'1,x': give numbers from 0"),
    ("generate fox --skip 99", r"skip \[99\] is out of range: there are 1, from 0"),
    ("generate fox --perturb-scale 1", "--perturb-scale needs --perturb"),
    ("generate fox --skip 99 --skip-scale 0", "the scale of skip must be a number above 0"),
    ("generate wolf", "'wolf' is none of them; nearest: fox"),
    ("generate fox -o file/out/", "cannot write to file/out"),
    ("generate fox -o file/a.png", "cannot write to file"),
    ("generate fox -o a.gif", "cannot write .gif files"),
    ("generate fox --model nowhere", "no model 'nowhere'"),
    ("generate fox --model zero", r"zero: is empty \(0 bytes\)"),
    ("generate fox --model truncated", "truncated: is cut short"),
    ("generate fox --model file", "not safetensors|too few"),
    ("generate fox --image broken.png", "broken.png: is damaged"),
    ("generate fox --image zero", "zero: the file is empty"),
    ("generate fox --image nowhere.png", "nowhere.png: no such file"),
    ("generate fox --image in.png --strength 0", "--strength must lie above 0 and up to 1"),
    ("generate fox --image in.png --strength 1.5", "--strength must lie above 0 and up to 1"),
    ("generate fox --image in.png --mask small.png", "mask small.png is 4x4 .*12x8"),
    ("generate fox --image in.png --mask nowhere.png", "nowhere.png: no such file"),
    ("generate fox --mask in.png", "--mask needs --image"),
    ("generate fox --expand 4", "--expand needs --image"),
    ("generate fox --strength 0.5", "--strength needs --image"),
    ("generate fox --reference in.png", "tiny is told of no reference: leave --reference out"),
    ("generate fox --image in.png --only-masked 4", "--only-masked needs --mask: name what"),
    ("generate fox --image in.png --mask in.png --only-masked x", "'x': give pixels, a whole"),
    ("generate fox --enlarge 1", "enlarge by more than 1 and up to 8, not 1"),
    ("generate fox --enlarge-latent", "need --enlarge: say how far"),
    ("generate fox --enlarge 2 --enlarge-strength 2", r"strength must lie in \(0, 1\], not 2"),
    ("generate fox --vary 7", "'7': give a seed and how far from it, as 7:subtle"),
    ("generate fox --vary 7:2", "'7:2': give a seed and how far from it"),
    ("generate fox --vary x:subtle", "'x:subtle': give a seed"),
    ("generate fox --tile x", "tiny is no convolutional network, .*: it makes no tiles"),
    ("generate fox --image in.png --expand 3:2", "has the aspect 3:2 already: nothing to expand"),
    ("generate fox --refiner-from 0.5", "--refiner-from needs --refiner: name the model"),
    ("generate fox --refiner nowhere", "no model 'nowhere'"),
    ("generate fox --image-guidance 2", "tiny has no guidance by a picture: leave it out"),
    ("generate fox --image in.png --expand 4 --mask in.png", "do not go together"),
    ("generate fox --image in.png --expand 4 --size 8", "--size does not apply"),
    ("generate fox --image in.png --expand 0", "expand by 0 or more"),
    ("generate fox --image in.png --expand up=4", "left=N"),
    ("generate a red fox", "'red fox': put a prompt of several words in quotes"),
    ("generate fox --stpes 3", "unknown option --stpes: did you mean --steps"),
    ("generate fox --step 3", "unknown option --step: did you mean --steps"),
    ("generate", "required: prompt"),
    ("genrate fox", "unknown command 'genrate': did you mean generate"),
    ("inspect nowhere", "nowhere: no such file"),
    ("inspect zero", "zero: is empty"),
    ("train nowhere.toml --out run", "nowhere.toml: no such file"),
    ("train bad.toml --out run", "bad.toml: not readable as TOML"),
    ("train bad.toml", "required: --out"),
]


@pytest.mark.parametrize(("command", "reason"), BAD, ids=[command for command, _ in BAD])
def test_errors_are_one_line(
    command: str, reason: str, here: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "file").write_text("text")
    (here / "zero").touch()
    (here / "bad.toml").write_text("a = = 3")
    (here / "truncated").write_bytes(model.read_bytes()[:-100])
    drawing(here / "in.png", 12, 8)
    drawing(here / "small.png", 4, 4)
    Image.new("L", (12, 8)).save("black.png")
    Image.new("F", (12, 8)).save("float.tif")
    (here / "broken.png").write_bytes((here / "in.png").read_bytes()[:100])
    before = set(here.iterdir())
    wish = command.split()
    if wish[0] == "generate" and "--model" not in wish:
        wish += ["--model", str(model)]
    assert cli.main(wish) == 2
    printed, told = capsys.readouterr()
    assert printed == ""
    assert told.startswith("mezzotint: ")
    assert re.search(reason, told), told
    assert told.count("\n") == 1
    assert set(here.iterdir()) == before


def test_the_output_is_checked_before_any_work(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "file").touch()
    assert cli.main(["generate", "fox", "-o", "file/x/", "--model", "nowhere"]) == 2
    assert "cannot write to" in capsys.readouterr().err


# --- the other commands -----------------------------------------------------------------------


def test_inspect(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["inspect", str(model)]) == 0
    printed = capsys.readouterr().out
    assert "tiny" in printed and "safetensors" in printed


def test_samplers_lists_every_one(capsys: pytest.CaptureFixture[str]) -> None:
    from mezzotint.diffusion.samplers import SAMPLERS
    from mezzotint.diffusion.spacings import SPACINGS

    assert cli.main(["samplers"]) == 0
    lines = capsys.readouterr().out.splitlines()
    told = {line.split()[0]: line.split(maxsplit=1)[1:] for line in lines if line}
    assert set(told) == {*SAMPLERS, *SPACINGS, "sampler", "spacing"}
    assert all(told[name] for name in (*SAMPLERS, *SPACINGS))


def test_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.main(["doctor"])
    printed = capsys.readouterr().out
    assert code == ("MISSING" in printed)
    for row in ("mezzotint", "python", "torch", "threads", "bfloat16", "model icons", "sha256"):
        assert row in printed


TRAIN = """
name = "tiny"
[data]
source = "pictures"
size = 8
channels = "grey"
[network]
kind = "dit"
patch = 4
width = 24
depth = 1
heads = 2
[model]
prediction = "x0"
schedule = "flow"
steps = 2
[train]
pictures = 32
batch = 8
learning_rate = 1e-3
precision = "fp32"
sample_pictures = 16
sample_prompts = ["", ""]
"""


def test_train_then_generate(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "pictures").mkdir()
    for number in range(6):
        drawing(here / "pictures" / f"{number}.png", 8 + number, 8)
    (here / "pictures" / "broken.png").write_bytes(b"no picture")
    (here / "run.toml").write_text(TRAIN)
    assert cli.main(["train", "run.toml", "--out", "run"]) == 2
    assert "1 bad file (broken.png: is no picture" in capsys.readouterr().err
    assert cli.main(["train", "run.toml", "--out", "run", "--skip-bad"]) == 0
    printed, told = capsys.readouterr()
    assert printed.split() == [str(Path("run") / "model.safetensors")]
    assert "loss" in told and "images/s" in told
    assert len(list((here / "run" / "samples").iterdir())) == 2
    assert cli.main(["generate", "", "--model", "run/model.safetensors", "--quiet"]) == 0
    with Image.open(capsys.readouterr().out.strip()) as image:
        assert (image.mode, image.size) == ("L", (8, 8))


# --- as a program of its own ------------------------------------------------------------------


def program(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "mezzotint.apps.cli", *arguments]


def test_help_needs_no_torch_and_shows_every_command() -> None:
    code = (
        "import sys; from mezzotint.apps import cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit as end: assert end.code == 0\n"
        "heavy = {'torch', 'numpy', 'PIL', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    for command in ("generate", "train", "inspect", "samplers", "doctor"):
        assert f"\n    {command}" in run.stdout


def test_help_is_quick() -> None:
    """Below 0.3 s of processor time beside a bare interpreter; the report measures it whole."""
    code = "import sys, time; t = time.process_time(); import mezzotint.apps.cli as c; c._parsers()"
    code += "; sys.exit(time.process_time() - t > 0.25)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture
def heeded() -> Iterator[None]:
    """Lets programs that are started heed an interrupt, which a shell's background job ignores."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("heeded")
def test_interrupting_leaves_no_half_written_file(here: Path, model: Path) -> None:
    wish = program("generate", "fox", "-n", "1000", "-o", "out/", "--model", str(model))
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        wish, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline().strip().endswith(".png")
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        told = process.stderr.read()
        rest = process.stdout.read()
    assert process.returncode == 130
    assert told.splitlines()[-1] == "interrupted"
    files = list(Path("out").iterdir())
    assert len(rest.splitlines()) < 999
    for file in files:
        assert file.suffix == ".png"
        Image.open(file).load()


def test_an_interrupted_run_stops_at_a_checkpoint_and_goes_on(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "pictures").mkdir()
    drawing(here / "pictures" / "a.png", 8, 8)
    plain = TRAIN.replace("sample_", "# sample_")
    (here / "run.toml").write_text(plain.replace("pictures = 32", "pictures = 8_000_000"))
    wish = program("train", "run.toml", "--out", "run")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    with subprocess.Popen(
        wish, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stdout is not None and process.stderr is not None
        while "loss" not in (line := process.stderr.readline()):
            assert line, "the run ended by itself"
        process.send_signal(signal.SIGINT)
        told, printed = process.stderr.read(), process.stdout.read()
    assert process.returncode == 130
    assert "stopping at a checkpoint" in told and "the same command goes on" in told
    assert printed == ""
    (checkpoint,) = (here / "run" / "checkpoints").glob("step-*")
    done = int(re.findall(r"\d+", checkpoint.name)[0])
    (here / "run.toml").write_text(plain.replace("pictures = 32", f"pictures = {8 * done + 8}"))
    assert cli.main(["train", "run.toml", "--out", "run"]) == 0
    assert capsys.readouterr().out.strip() == str(Path("run") / "model.safetensors")


# --- the preview ------------------------------------------------------------------------------


def test_half_blocks_show_two_pixels_each() -> None:
    values = np.zeros((4, 4, 3), dtype=np.uint8)
    values[0::2] = (255, 0, 0)
    values[1::2] = (0, 0, 255)
    text = half_blocks(Image.fromarray(values), width=4)
    assert text.plain == "▀▀▀▀\n▀▀▀▀\n"
    style = text.spans[0].style
    assert str(style) == "#ff0000 on #0000ff"


@pytest.mark.parametrize("colours", ["truecolor", ""])
def test_the_terminal_shows_the_picture_where_it_can(
    colours: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLORTERM", colours)
    monkeypatch.delenv("NO_COLOR", raising=False)
    drawn: list[int] = []

    def picture() -> Image.Image:
        drawn.append(1)
        return Image.new("RGBA", (8, 8))

    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=80)
    with Watch(console, quiet=False, preview=True) as watch:
        for step in range(1, 101):
            watch.step("seed 7", step, 100, picture)
    assert "100/100 steps" in screen.getvalue()
    assert ("▀" in screen.getvalue()) == bool(colours)
    assert len(drawn) == (2 if colours else 0)  # the first and the last of a hundred quick steps


@pytest.mark.parametrize(("terminal", "quiet"), [(False, False), (True, True)])
def test_nothing_is_shown_without_a_terminal_or_when_quiet(terminal: bool, quiet: bool) -> None:
    screen = io.StringIO()
    with Watch(Console(file=screen, force_terminal=terminal), quiet, preview=True) as watch:
        watch.step("seed 7", 1, 1, lambda: pytest.fail("no one sees it"))
    assert screen.getvalue() == ""
