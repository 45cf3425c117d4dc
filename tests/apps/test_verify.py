"""Files made again from what they carry: bit-equal, by how much not, or why it cannot be done."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import resvg
import torch
from PIL import Image, PngImagePlugin
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from mezzotint.apps import cli
from mezzotint.apps.commands_verify import Loaded, verified
from mezzotint.modalities.image import read_text
from mezzotint.provenance import pixels, surroundings
from mezzotint.provenance.keys import of_secret
from mezzotint.provenance.recipe import CHUNK


@pytest.fixture
def owned(here: Path, model: Path) -> Path:
    shutil.copy(model, here / "tiny.safetensors")
    values = np.random.default_rng(5).integers(0, 256, (8, 12, 4), dtype=np.uint8)
    Image.fromarray(values).save(here / "in.png")
    mask = np.zeros((8, 12), dtype=np.uint8)
    mask[2:6, 4:9] = 255
    Image.fromarray(mask).save(here / "mask.png")
    return here


def make(*options: str) -> None:
    assert cli.main(["generate", "--model", "tiny.safetensors", "--quiet", *options]) == 0


def verify(*names: str) -> int:
    return cli.main(["verify", *names])


def rewritten(path: str, change: object = None, **document: object) -> None:
    """The file with its pixels or its document changed."""
    told = json.loads(read_text(path)[CHUNK])
    chunks = PngImagePlugin.PngInfo()
    chunks.add_text(CHUNK, json.dumps({**told, **document}))
    with Image.open(path) as image:
        values = np.array(image)
    if callable(change):
        change(values)
    Image.fromarray(values).save(path, pnginfo=chunks)


def brighter(values: np.ndarray) -> None:
    values[3, 4, 1] ^= 8


# --- bit-equal --------------------------------------------------------------------------------

WAYS = {
    "plain": (),
    "webp": ("-o", "fox.webp"),
    "strength": ("--image", "in.png", "--strength", "0.7"),
    "mask": ("--image", "in.png", "--mask", "mask.png"),
    "expand": ("--image", "in.png", "--expand", "left=4"),
    "vary": ("--vary", "3:strong"),
    "enlarged": ("--enlarge", "2"),
    "regions": ("--region", "0,0,0.5,1=red fox"),
    "guided": ("--apg", "--guidance", "3", "--rescale", "0.5", "--interval", "0,1"),
    "sampler": ("--sampler", "dpmpp_2m_sde", "--steps", "6"),
}


@pytest.mark.parametrize("way", WAYS)
def test_each_way_of_making(owned: Path, way: str, capsys: pytest.CaptureFixture[str]) -> None:
    make("fox", "--seed", "7", "-o", "fox.png", *WAYS[way])
    (made,) = owned.glob("fox.*")
    assert verify(made.name) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"{made.name}: bit-equal"


def test_a_batch_and_its_sheet(owned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make("{fox|red fox}", "-n", "3", "--seed", "7", "-o", "out/")
    names = sorted(map(str, Path("out").iterdir()))
    assert len(names) == 4
    capsys.readouterr()
    assert verify(*names) == 0
    assert capsys.readouterr().out.splitlines() == [f"{name}: bit-equal" for name in names]


def test_in_a_fresh_process(owned: Path) -> None:
    make("fox", "--seed", "7", "--threads", "1", "-o", "fox.png")
    command = [sys.executable, "-m", "mezzotint", "verify", "fox.png"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "fox.png: bit-equal\n"), done.stderr


KEY = "ab" * 32


def test_a_secret_key(owned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It changes the noise, is not told, and is wanted again."""
    Path("secret.key").write_text(f"{KEY}\n")
    make("fox", "--seed", "7", "-o", "mine.png", "--mark-key", "secret.key")
    make("fox", "--seed", "7", "-o", "public.png")
    make("fox", "--seed", "7", "-o", "none.png", "--watermark", "none")
    with Image.open("mine.png") as a, Image.open("public.png") as b, Image.open("none.png") as c:
        assert len({a.tobytes(), b.tobytes(), c.tobytes()}) == 3
    told = read_text("mine.png")[CHUNK]
    assert KEY not in told and json.loads(told)["marks"]["key"] == of_secret(bytes.fromhex(KEY)).id
    assert "marks" not in json.loads(read_text("none.png")[CHUNK])
    assert verify("mine.png", "public.png", "none.png", "--mark-key", "secret.key") == 0
    capsys.readouterr()
    assert verify("mine.png") == 1
    assert "watermarks have the secret key" in capsys.readouterr().out
    Path("secret.key").write_text("ab" * 31)
    assert verify("mine.png", "--mark-key", "secret.key") == 1
    assert "is no key of watermarks: it should be 64 hexadecimal digits" in capsys.readouterr().out


def test_the_key_of_the_configuration(
    owned: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make("fox", "--seed", "7", "-o", "public.png")
    monkeypatch.setenv("MEZZOTINT_HOME", str(owned / "home"))
    Path("home").mkdir(mode=0o700)
    Path("home/mark.key").write_text(KEY)
    make("fox", "--seed", "7", "-o", "mine.png")
    assert json.loads(read_text("mine.png")[CHUNK])["marks"]["key"] != 0
    assert verify("mine.png", "public.png") == 0


# --- differs ----------------------------------------------------------------------------------


def test_curves_are_drawn_again(owned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make("fox", "--seed", "5", "-o", "a.png")
    assert cli.main(["export", "a.png", "a.svg"]) == 0
    assert "a.svg" in capsys.readouterr().out and verify("a.svg") == 0
    assert capsys.readouterr().out == "a.svg: bit-equal\n"
    drawn, told = (owned / "a.svg").read_bytes(), read_text("a.svg")[CHUNK]
    assert resvg.usvg.Tree.from_str(drawn.decode(), resvg.usvg.Options.default()).int_size()
    assert "marks" not in json.loads(told) and "marks" in json.loads(read_text("a.png")[CHUNK])
    (owned / "b.svg").write_bytes(drawn.replace(b"<path ", b'<path opacity="0.5" ', 1))
    assert verify("b.svg") == 1 and "differs in its curves" in capsys.readouterr().out
    assert cli.main(["export", "a.png", "a.jpg"]) == 0
    assert cli.main(["export", "a.jpg", "c.svg"]) == 0 and verify("c.svg") == 1
    assert "traced from a file that stored the picture with loss" in capsys.readouterr().out
    (owned / "e.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    assert verify("e.svg") == 1 and "cannot; carries no recipe" in capsys.readouterr().out
    for bad in (["a.png", "a.svg"], ["a.png", "a.gif"], ["in.png", "d.svg"]):
        assert cli.main(["export", *bad]) == 2
    assert (owned / "a.svg").read_bytes() == drawn and not (owned / "d.svg").exists()


def test_a_pixel_was_changed(owned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make("fox", "--seed", "7", "-o", "fox.png")
    rewritten("fox.png", brighter)
    capsys.readouterr()
    assert verify("fox.png") == 1
    said = capsys.readouterr().out
    assert "differs by at most 8 of 255" in said and "was changed after it was made" in said


def test_the_recipe_was_changed(owned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make("fox", "--seed", "7", "-o", "fox.png")
    told = json.loads(read_text("fox.png")[CHUNK])
    rewritten("fox.png", options={**told["options"], "seed": "8"})
    capsys.readouterr()
    assert verify("fox.png") == 1
    assert "fox.png: differs by at most" in capsys.readouterr().out


def test_other_weights(owned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make("fox", "--seed", "7", "-o", "fox.png")
    weights = load_file("tiny.safetensors")
    with safe_open("tiny.safetensors", "pt") as file:
        head = file.metadata()
    save_file({name: tensor * 1.01 for name, tensor in weights.items()}, "tiny.safetensors", head)
    capsys.readouterr()
    assert verify("fox.png") == 1
    assert "is not the tiny.safetensors that made fox.png: it has sha256:" in (
        capsys.readouterr().out
    )


def test_another_torch_and_processor(
    owned: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What makes other bits is named; here the bits are made other by hand."""
    make("fox", "--seed", "7", "-o", "fox.png")
    told = json.loads(read_text("fox.png")[CHUNK])
    rewritten(
        "fox.png",
        brighter,
        versions={**told["versions"], "torch": "2.10.0"},
        machine={**told["machine"], "kernels": "NEON"},
    )
    with Image.open("fox.png") as image:
        there = pixels.digest(image)
    rewritten("fox.png", pixels={**told["pixels"], "hash": there})
    rewritten("fox.png", versions={**told["versions"], "torch": "2.10.0"})
    capsys.readouterr()
    assert verify("fox.png", "--json") == 1
    said = json.loads(capsys.readouterr().out)
    assert said["verdict"] == "differs" and said["apart"]["largest"] == 8
    assert f"torch 2.10.0 then, {torch.__version__} now" in said["causes"]


# --- cannot -----------------------------------------------------------------------------------


def test_a_model_is_missing(owned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make("fox", "--seed", "7", "-o", "fox.png")
    Path("models").mkdir()
    Path("tiny.safetensors").rename("models/tiny.safetensors")
    Path("empty").mkdir()
    capsys.readouterr()
    assert verify("fox.png", "--in", "empty") == 1
    said = capsys.readouterr().out
    assert said.startswith("fox.png: cannot be made again; tiny.safetensors, with which fox.png")
    assert "nor in empty" in said
    assert verify("fox.png", "--in", "empty", "--in", "models") == 0


@pytest.mark.parametrize("name", ["in.png", "no.png", "tiny.safetensors"])
def test_no_recipe(owned: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert verify(name) == 1
    said = capsys.readouterr()
    assert said.out.startswith(f"{name}: cannot; ") and said.out.count("\n") == 1
    assert not said.err


def test_one_bad_file_hinders_no_other(owned: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make("fox", "--seed", "7", "-o", "fox.png")
    capsys.readouterr()
    assert verify("in.png", "fox.png") == 1
    assert capsys.readouterr().out.splitlines()[1] == "fox.png: bit-equal"


def test_nothing_private_is_in_a_document(owned: Path) -> None:
    make("fox", "--seed", "7", "--image", str(owned / "in.png"), "-o", "fox.png")
    told = read_text("fox.png")[CHUNK]
    import getpass
    import platform

    for private in (str(owned), getpass.getuser() + "/", platform.node()):
        assert private not in told


# --- what is compared -------------------------------------------------------------------------


def test_difference_by_hand() -> None:
    one = Image.new("RGB", (2, 1), (10, 20, 30))
    other = one.copy()
    other.putpixel((0, 0), (10, 26, 30))
    apart = pixels.difference(one, other)
    assert apart.largest == 6
    assert apart.mean == pytest.approx(6 / 8)  # of four channels
    assert apart.psnr == pytest.approx(10 * np.log10(255**2 / (36 / 8)))
    assert pixels.difference(one, one).psnr == np.inf
    with pytest.raises(ValueError, match="2x1 and 3x1 cannot be compared"):
        pixels.difference(one, Image.new("RGB", (3, 1)))


def test_the_digest_knows_size_and_mode() -> None:
    flat = Image.new("L", (6, 2), 7)
    assert len({pixels.digest(i) for i in (flat, flat.resize((2, 6)), flat.convert("RGB"))}) == 3


def test_what_changed_is_said() -> None:
    now = surroundings.machine(torch.device("cpu"))
    assert surroundings.changed(dict(now), now) == []
    assert surroundings.changed({"threads": 77}, now) == [f"threads 77 then, {now['threads']} now"]


def test_verifying_leaves_the_threads_as_they_were(owned: Path) -> None:
    """It is made with as many as its recipe says; what a process does next is not."""
    make("fox", "--seed", "7", "-o", "fox.png")
    threads = torch.get_num_threads()
    document = json.loads(read_text("fox.png")[CHUNK])
    rewritten("fox.png", machine={**document["machine"], "threads": threads + 1})
    args = cli.parse(["verify", "fox.png"])
    verified(Path("fox.png"), args, cli.parse, Loaded())
    assert torch.get_num_threads() == threads
