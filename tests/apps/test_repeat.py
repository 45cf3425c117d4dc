"""A picture or a sheet made again from what it carries: the same bits, variations, enlarged."""

from __future__ import annotations

import json
import shutil
import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from mezzotint.apps import cli
from mezzotint.apps.repeat import LOCAL, NAMED, name_of
from mezzotint.modalities.image import TextError, read_text, write
from mezzotint.provenance.recipe import CHUNK, FORMAT, fingerprint

USER = "somebody-private"


@pytest.fixture
def owned(here: Path, model: Path) -> Path:
    """A model, a picture and a mask in a folder whose name is nobody's business."""
    home = here / USER
    home.mkdir()
    shutil.copy(model, home / "tiny.safetensors")
    values = np.random.default_rng(5).integers(0, 256, (8, 12, 4), dtype=np.uint8)
    Image.fromarray(values).save(home / "in.png")
    mask = np.zeros((8, 12), dtype=np.uint8)
    mask[2:6, 4:9] = 255
    Image.fromarray(mask).save(home / "mask.png")
    return home


def make(*options: str, model: bool = True) -> None:
    own = ["--model", f"{USER}/tiny.safetensors"] if model else []
    assert cli.main(["generate", *own, "--quiet", *options]) == 0


def again(source: str, out: str, *options: str) -> bytes:
    make("--from", source, "-o", out, *options)
    return pixels(out)


def pixels(path: str | Path) -> bytes:
    with Image.open(path) as image:
        return image.tobytes() + str(image.size).encode()


def carried(path: str) -> tuple[Any, ...]:
    """What makes a picture, and the pixels that it says it has."""
    told = json.loads(read_text(path)[CHUNK])
    return told["options"], told["files"], told["pixels"]


SHEET = "out/fox_7-10_sheet.png"


@pytest.fixture
def sheet(owned: Path) -> str:
    make("fox", "-n", "4", "--seed", "7", "-o", "out/")
    return SHEET


# --- the same bits ----------------------------------------------------------------------------


def test_one_of_a_sheet_once_more(sheet: str) -> None:
    for pick, seed in enumerate((7, 8, 9, 10), start=1):
        assert again(sheet, f"{pick}.png", "--pick", str(pick)) == pixels(f"out/fox_{seed}.png")
    assert carried("3.png") == carried("out/fox_9.png")
    assert again("out/fox_9.png", "single.png") == again("3.png", "twice.png") == pixels("3.png")
    make("--from", sheet, "--pick", "2", "-n", "2", "--steps", "5", "-o", "more/")
    make("fox", "--seed", "8", "-n", "2", "--steps", "5", "-o", "typed/")
    for seed in (8, 9):
        assert pixels(f"more/fox_{seed}.png") == pixels(f"typed/fox_{seed}.png")
    make("fox", "--seed", "9", "--negative", "red fox", "--size", "12x8", "-o", "other.png")
    changed = again(sheet, "changed.png", "--pick", "3", "--negative=red fox", "--size", "12x8")
    assert changed == pixels("other.png") != pixels("3.png")


def test_one_of_a_sheet_enlarged(sheet: str) -> None:
    make("fox", "--seed", "9", "--enlarge", "2", "-o", "typed.png")
    assert again(sheet, "picked.png", "--pick", "3", "--enlarge", "2") == pixels("typed.png")
    with Image.open("picked.png") as image:
        assert image.size == (16, 16)
    assert again("picked.png", "twice.png") == pixels("typed.png")
    make("fox", "--seed", "9", "--enlarge", "2", "--enlarge-latent", "-o", "coded.png")
    assert again("picked.png", "c.png", "--enlarge-latent") == pixels("coded.png")


def test_variations_of_one_of_a_sheet_and_of_those(sheet: str) -> None:
    wish = ("--seed", "20", "-n", "4")
    make("--from", sheet, "--pick", "3", "--vary", "subtle", *wish, "-o", "v/")
    make("fox", "--vary", "9:0.1", *wish, "-o", "typed/")
    made = [pixels(f"v/fox_{seed}.png") for seed in range(20, 24)]
    assert made == [pixels(f"typed/fox_{seed}.png") for seed in range(20, 24)]
    assert len({*made, pixels("out/fox_9.png")}) == 5
    varied = "v/fox_20-23_sheet.png"
    assert again(varied, "same.png", "--pick", "2") == made[1]
    assert again(varied, "none.png", "--pick", "2", "--vary", "0", "--seed", "5") == made[1]
    make("fox", "--vary", "9:subtle,21:strong", "--seed", "5", "-o", "twice.png")
    far = again(varied, "far.png", "--pick", "2", "--vary", "strong", "--seed", "5")
    assert far == pixels("twice.png") and far not in made
    assert again("far.png", "once-more.png") == far
    whole = again(varied, "whole.png", "--pick", "2", "--vary", "1", "--seed", "5")
    assert whole != far
    make("--from", sheet, "--pick", "3", "--vary", "strong", "-o", "random/")
    assert pixels(next(Path("random").iterdir())) not in (pixels("out/fox_9.png"), far)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".jpg"])
def test_every_format_carries_it(owned: Path, suffix: str) -> None:
    make("fox", "--seed", "3", "--steps", "2", "-n", "2", "-o", f"a{suffix}")
    assert again(f"a_4{suffix}", "b.png") == again(f"a_3-4_sheet{suffix}", "c.png", "--pick", "2")
    make("fox", "--seed", "4", "--steps", "2", "-o", "d.png")
    assert pixels("b.png") == pixels("d.png")


def test_opaque_is_on_white(owned: Path) -> None:
    for options, name in (((), "a.png"), (("--opaque",), "b.png")):
        make("fox", "--seed", "3", "--steps", "2", *options, "-o", name)
    clear, opaque = Image.open("a.png"), Image.open("b.png")
    assert (clear.mode, opaque.mode) == ("RGBA", "RGB")
    white = Image.alpha_composite(Image.new("RGBA", clear.size, "white"), clear)
    assert opaque.tobytes() == white.convert("RGB").tobytes()


def test_a_jpeg_takes_a_long_recipe(owned: Path) -> None:
    words = ["generate", "fox", "--model", f"{USER}/tiny.safetensors", "--steps", "1", "-n", "4"]
    long = f"0.1{'0' * 20_000},1"
    assert cli.main([*words, "--interval", long, "--seed", "1", "-o", "a.jpg"]) == 0
    shown = [read("a_1-4_sheet.jpg")["pictures"][3], read("a_4.jpg")]
    assert shown[0]["seed"] == shown[1]["seed"] == 4
    with pytest.raises(TextError, match="a.jpg: the text is too long for a JPEG"):
        write(Image.new("RGB", (4, 4)), "a.jpg", {CHUNK: "x" * 65_533})
    write(Image.new("RGB", (4, 4)), "b.jpg", {CHUNK: "x" * 65_450})


def test_choices_are_kept_and_their_files_not_needed(owned: Path) -> None:
    Path("wildcards").mkdir()
    Path("wildcards/beast.txt").write_text("fox\nred fox\n", "utf-8")
    make("{fox|red fox}", "--negative", "__beast__", "-n", "4", "--seed", "7", "-o", "out/")
    Path("wildcards/beast.txt").unlink()
    sheet = next(Path("out").glob("*_sheet.png"))
    said = [read(path)["prompt"] for path in sorted(Path("out").glob("*_?.png"))]
    assert set(said) == {"fox", "red fox"}
    for pick, seed in enumerate((7, 8, 9, 10), start=1):
        made = pixels(next(Path("out").glob(f"*_{seed}.png")))
        assert again(str(sheet), f"{pick}.png", "--pick", str(pick)) == made


OPTIONS = [
    "--size 12x8 --negative=red_fox",
    "--size 3:2 --sampler euler_ancestral --spacing karras --steps 4",
    "--guidance 4 --rescale 0.7 --interval 0.1,0.5",
    "--guidance 4 --apg --perturb 0 --perturb-scale 2 --skip 0",
    "--guidance 1 --skip 0 --skip-scale 0.3333333333333333",
    "--vary 7:0.123456789012",
    "--opaque",
    "--image HOME/in.png --strength 0.4",
    "--image HOME/in.png --mask HOME/mask.png",
    "--image HOME/in.png --mask HOME/mask.png --only-masked 1 --strength 0.8",
    "--image HOME/in.png --expand left=4,top=8",
    "--image HOME/in.png --expand 3:1",
    "--enlarge 1.5 --enlarge-strength 0.7",
]


@pytest.mark.parametrize("options", OPTIONS)
def test_every_option_is_taken_up_again_and_no_path_is_told(owned: Path, options: str) -> None:
    typed = [word.replace("HOME", USER).replace("_fox", " fox") for word in options.split()]
    make("fox", "--seed", "3", *typed, "-o", "a.png")
    shutil.copy("a.png", owned)  # beside which all of it is
    for path in ("tiny.safetensors", "in.png", "mask.png"):
        assert not Path(path).exists()
    make("--from", f"{USER}/a.png", "-o", "b.png", model=False)
    assert carried("b.png") == carried("a.png")
    assert pixels("b.png") == pixels("a.png")
    whole = Path("a.png").read_bytes()
    host = socket.gethostname()
    for private in (USER, str(owned.parent), str(Path.home()), host):
        # Two or three letters stand in any signature by chance; in what is text they do not.
        where = whole if len(private) > 5 else read_text("a.png")[CHUNK].encode()
        assert private == "/" or private.encode() not in where


def test_options_that_name_files_are_known() -> None:
    """A new option with a path must say how it is recorded, or that it is not."""
    _, parsers = cli._parsers()
    for action in parsers["generate"]._actions:
        option = action.dest.replace("_", "-")
        told = str(action.metavar)
        if action.type is Path or any(word in told for word in ("FILE", "PATH", "MASK", "DIR")):
            assert option in NAMED or option in LOCAL, action.dest


WRITTEN = [
    ("lora", "ink.safetensors:0.8"),
    ("lora", "ink.safetensors:0.3333333333333333:IN*=0.1:te=0.000012345678"),
    ("control", "canny.safetensors=line.png"),
    ("control", "c.gguf=l.png,canny,strength=0.8,from=0.1,to=0.75,mode=tile"),
    ("image-prompt", "shown.png:0.1234567890123"),
    ("part", "vae=a.safetensors"),
    ("part", "a.safetensors"),
    ("embedding", "toy.safetensors=beast"),
    ("embedding", "toy.safetensors"),
    ("region", "0.3333333333333333,0,0.00001,1=a fox=b, c"),
    ("region", "left.png,strength=0.123456789,feather=0.1=a fox"),
    ("ip-adapter", "adapter.safetensors"),
    ("refiner", "refiner.safetensors"),
]


@pytest.mark.parametrize(("option", "text"), WRITTEN, ids=[text for _, text in WRITTEN])
def test_what_is_recorded_is_what_was_typed_but_for_the_folder(
    option: str, text: str, here: Path
) -> None:
    def parsed(text: str) -> Any:
        value = getattr(cli.parse(["generate", "", f"--{option}={text}"]), option.replace("-", "_"))
        return value[0] if isinstance(value, list) else value

    value = parsed(text)
    assert parsed(NAMED[option].text(value)) == value
    deep = NAMED[option].swap(value, lambda name: f"some/where/{name}")
    assert NAMED[option].swap(deep, name_of) == value
    assert "some/where" not in NAMED[option].text(NAMED[option].swap(deep, name_of))


# --- what cannot be ---------------------------------------------------------------------------


def read(path: str | Path) -> dict[str, Any]:
    return json.loads(read_text(path)[CHUNK])


def forge(path: str, text: str) -> None:
    write(Image.new("RGB", (8, 8)), path, {CHUNK: text})


def told(capsys: pytest.CaptureFixture[str], *options: str) -> str:
    capsys.readouterr()
    assert cli.main(["generate", *options]) == 2
    printed, error = capsys.readouterr()
    assert printed == "" and error.count("\n") == 1
    return error


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ("--from SHEET --pick 5", "has 4 pictures: there is no --pick 5"),
        ("--from SHEET --pick 0", "'0': give a whole number of 1 or more"),
        ("--from SHEET", "has 4 pictures: choose one with --pick N, from 1"),
        ("--from SHEET --vary subtle", "has 4 pictures: choose one with --pick N"),
        ("--from SHEET --pick 3 --vary 2", "'2': give a seed and how far"),
        ("--from SHEET --pick 3 --stpes 4", "unknown option --stpes: did you mean --steps"),
        (
            f"--from SHEET --pick 3 --mask in.png --model {USER}/tiny.safetensors",
            "--mask needs --image",
        ),
        ("--from out/fox_7.png --pick 2", "is one picture, not a sheet: leave --pick 2 out"),
        ("--from SHEET --pick 1", "tiny.safetensors, with which out/fox_7-10_sheet.png was made,"),
        ("--from in.png", "in.png: carries no recipe that is known (of mezzotint,"),
        ("--from nowhere.png", "nowhere.png: no such file"),
        ("--from text.png", "text.png: is no picture of a known format"),
        ("fox --pick 3", "--pick needs --from: name the sheet"),
        (
            "fox --vary subtle",
            "--vary subtle: give a seed and how far from it, as 7:subtle, or the",
        ),
        ("--steps 3", "the following arguments are required: prompt"),
    ],
)
def test_errors_are_one_line(
    options: str, reason: str, sheet: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Image.new("RGB", (8, 8)).save("in.png")
    Path("text.png").write_text("no picture")
    assert reason in told(capsys, *options.replace("SHEET", sheet).split())


GOOD: dict[str, Any] = {"format": FORMAT, "options": {"prompt": "fox", "seed": "1"}, "files": []}
NO_STEPS = "its parameters have no line of `Steps: …`"
FORGED: dict[str, tuple[Any, str]] = {
    "another program's text": (
        "a fox, Steps: 20, Sampler: Euler a",
        NO_STEPS,
    ),
    "another program's table": ({"prompt": "a fox"}, NO_STEPS),
    "a list": ([1, 2], NO_STEPS),
    "nested": ("[" * 100_000, NO_STEPS),
    "newer": ({**GOOD, "format": 2, "software": "mezzotint 9"}, "format 2, of 'mezzotint 9'"),
    "no number": ({**GOOD, "format": "\x1b[31m"}, r"format '\x1b[31m'"),
    "no options": ({"format": FORMAT, "files": []}, "its options are not what a recipe has"),
    "odd options": ({**GOOD, "options": {"steps": 3}}, "its options are not what"),
    "odd files": ({**GOOD, "files": [{"option": "model", "name": 3}]}, "its files are not what"),
    "a file's name": (
        {**GOOD, "files": [{"option": "model", "name": "\n", "fingerprint": ""}]},
        "its files are not what",
    ),
    "an empty sheet": ({"format": FORMAT, "pictures": []}, "pictures are not what"),
    "a sheet of numbers": ({"format": FORMAT, "pictures": [1]}, "pictures are not what"),
    "unknown": ({**GOOD, "options": {"prompt": "", "colour": "red"}}, "has the option 'colour'"),
    "inner": ({**GOOD, "options": {"prompt": "", "recipe": "red"}}, "has the option 'recipe'"),
    "where it goes": ({**GOOD, "options": {"prompt": "", "output": "/x"}}, "the option 'output'"),
    "a path": ({**GOOD, "options": {"prompt": "", "model": "/etc/passwd"}}, "has a path"),
    "a path up": ({**GOOD, "options": {"prompt": "", "image": "../in.png"}}, "has a path"),
    "a path of several": ({**GOOD, "options": {"prompt": "", "lora": ["a/b:1"]}}, "has a path"),
    "no value": ({**GOOD, "options": {"prompt": "", "steps": "x"}}, "'x': give a whole number"),
}


@pytest.mark.parametrize("name", FORGED)
def test_recipes_that_are_none(name: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document, reason = FORGED[name]
    forge("a.png", document if isinstance(document, str) else json.dumps(document))
    said = told(capsys, "--from", "a.png")
    assert reason in said and "a.png" in said and "\x1b" not in said


def test_other_files_than_those_that_made_it(
    owned: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    make("fox", "--seed", "3", "--image", f"{USER}/in.png", "--strength", "0.5", "-o", "a.png")
    model = ("--model", f"{USER}/tiny.safetensors")
    said = told(capsys, "--from", "a.png", *model)
    assert "in.png, with which a.png was made, is neither here nor beside it" in said
    assert "--image" in said
    Image.new("RGB", (12, 8)).save("in.png")
    said = told(capsys, "--from", "a.png", *model)
    assert "in.png is not the in.png that made a.png: it has sha256:" in said
    assert said.count("sha256:") == 2
    given = ("--image", f"{USER}/in.png")
    assert again("a.png", "b.png", *given) == pixels("a.png")
    Image.new("RGB", (12, 8)).save("other.png")  # another name is another wish
    assert again("a.png", "c.png", "--image", "other.png") != pixels("a.png")
    other = Path(f"{USER}/other.safetensors")
    other.write_bytes((owned / "tiny.safetensors").read_bytes().replace(b"red fox", b"red wol"))
    said = told(capsys, "--from", "a.png", *given, "--model", str(other))
    assert "other.safetensors is not the tiny.safetensors that made a.png" in said
    shutil.copy(owned / "tiny.safetensors", "renamed.safetensors")
    make("--from", "a.png", *given, "--model", "renamed.safetensors", "-o", "d.png", model=False)
    assert pixels("d.png") == pixels("a.png")


# --- fingerprints -----------------------------------------------------------------------------


def test_fingerprints_tell_files_apart(tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as file:
        file.truncate((64 << 20) + 4096)
    seen = {fingerprint(large)}
    for place in (0, 32 << 20, (64 << 20) + 4095):  # first, in the middle, last
        with large.open("r+b") as file:
            file.seek(place - place % 4096)
            file.write(b"\1" * (263_000 if place == 32 << 20 else 4096))
        seen.add(fingerprint(large))
    with large.open("ab") as file:
        file.write(b"\0")
    seen.add(fingerprint(large))
    assert len(seen) == 5 and all(each.startswith("sampled:") for each in seen)
    small = tmp_path / "small"
    small.write_bytes(b"abc")
    assert fingerprint(small).startswith("sha256:ba7816bf")


def test_fingerprints_of_folders_and_shards(tmp_path: Path) -> None:
    folder = tmp_path / "sd1"
    (folder / "unet").mkdir(parents=True)
    (folder / "model_index.json").write_text("{}")
    weights = folder / "unet" / "model.safetensors"
    weights.write_bytes(b"1")
    first = fingerprint(folder)
    (folder / "README.md").write_text("read by nobody")
    moved = folder.rename(tmp_path / "moved")
    assert fingerprint(moved) == first and first.startswith("files:")
    (moved / "unet" / "model.safetensors").write_bytes(b"2")
    assert fingerprint(moved) != first
    index = moved / "unet" / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model.safetensors"}}))
    before = fingerprint(index)
    (moved / "unet" / "model.safetensors").write_bytes(b"3")
    assert fingerprint(index) != before


def test_text_of_others_is_read_too(tmp_path: Path) -> None:
    chunks = PngImagePlugin.PngInfo()
    chunks.add_itxt(CHUNK, "ein Fuchs", zip=True)
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png", pnginfo=chunks)
    assert read_text(tmp_path / "a.png")[CHUNK] == "ein Fuchs"
    for name in ("b.webp", "c.jpg"):
        write(Image.new("RGB", (4, 4)), tmp_path / name, {"one": "1: 2", "two": "fox"})
        assert read_text(tmp_path / name) == {"one": "1: 2", "two": "fox"}


# --- pictures of other programs ---------------------------------------------------------------

WEBUI = """fox
Negative prompt: red fox
Steps: 4, Sampler: Euler a, CFG scale: 3, Seed: 11, Size: 12x8, Model hash: 6ce0161689, \
Model: tiny, ENSD: 31337, Version: v1.10.1"""


def _foreign(path: str, text: str) -> None:
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text("parameters", text)
    Image.new("RGB", (8, 8)).save(path, pnginfo=chunks)


def test_a_picture_of_another_program(owned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _foreign(f"{USER}/theirs.png", WEBUI)
    assert cli.main(["generate", "--from", f"{USER}/theirs.png", "-o", "ours.png"]) == 0
    told = capsys.readouterr().err
    assert "of AUTOMATIC1111" in told and "noise" in told and "ENSD" in told
    assert "tiny.safetensors is not the tiny that made" in told and "6ce0161689" in told
    made = read("ours.png")["options"]
    wanted = {"steps": "4", "sampler": "euler_ancestral", "seed": "11", "size": "12x8"}
    assert made.items() >= {**wanted, "negative": "red fox", "watermark": "both"}.items()
    typed = [f"--{name}={value}" for name, value in wanted.items()]
    make("fox", "--negative", "red fox", "--guidance", "3", *typed, "-o", "typed.png")
    assert pixels("typed.png") == pixels("ours.png")
    make("--from", f"{USER}/theirs.png", "--seed", "12", "-o", "changed.png")
    assert pixels("changed.png") != pixels("ours.png")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a fox, with no settings", "its parameters have no line of"),
        (WEBUI.replace("Model: tiny", "Model: gone"), "gone, with which theirs.png was made"),
        (WEBUI.replace("Model: tiny", "Model: ../tiny"), "--model"),
    ],
)
def test_what_of_another_program_cannot_be_taken_over(
    owned: Path, text: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    _foreign("theirs.png", text)
    assert cli.main(["generate", "--from", "theirs.png", "-o", "ours.png"]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and message in told
    assert not Path("ours.png").exists()
