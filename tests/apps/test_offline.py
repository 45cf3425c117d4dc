"""Nothing calls home: pictures are made, checked and trained on in a process that is ended as soon
as it, or a library in it, asks the system for a socket of any kind."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

GUARD = """
import ctypes, platform, sys

def refuse(event, arguments):
    if event.startswith("socket."):
        raise PermissionError(f"{event} {arguments}")

sys.addaudithook(refuse)  # what Python asks for, on every system
NUMBER = {"x86_64": 41, "aarch64": 198}.get(platform.machine())  # of the call socket(2)
if sys.platform == "linux" and NUMBER is not None:  # and what libraries ask for
    class Line(ctypes.Structure):
        _fields_ = [("code", ctypes.c_ushort), ("jt", ctypes.c_ubyte), ("jf", ctypes.c_ubyte),
                    ("k", ctypes.c_uint)]

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("lines", ctypes.POINTER(Line))]

    # Load the number of the call; is it that of socket? end the process : allow it.
    lines = (Line * 4)(Line(0x20, 0, 0, 0), Line(0x15, 0, 1, NUMBER), Line(6, 0, 0, 0x80000000),
                       Line(6, 0, 0, 0x7FFF0000))
    libc = ctypes.CDLL(None, use_errno=True)
    zero = ctypes.c_ulong(0)
    assert libc.prctl(38, ctypes.c_ulong(1), zero, zero, zero) == 0  # PR_SET_NO_NEW_PRIVS
    program = Program(4, lines)
    if libc.prctl(22, ctypes.c_ulong(2), ctypes.byref(program)) != 0:  # PR_SET_SECCOMP
        print("no filter of calls here", file=sys.stderr)
"""
WORK = """
from mezzotint.apps import cli

def run(line, *codes):
    assert cli.main(line.split()) in (codes or (0,)), line

run("generate fox --seed 7 --steps 2 -n 2 -o all/")
run("generate --from all/fox_7.png --grid DE -o all/again.png")
run("generate fox --image all/fox_7.png --seed 1 --steps 2 -o all/edited.jpg")
run("verify all/fox_7.png all/edited.jpg")
run("credentials all/fox_7.png")
run("detect all/fox_7.png", 0, 1)  # two steps are few
run("audit all --html audit.html")
run("train tiny.toml --out run")
run("inspect run/model.safetensors")
run("generate round --model run/model.safetensors --steps 2 -o own.png")
"""
CONFIG = """
name = "tiny"
seed = 1
[data]
source = "pictures"
size = 8
channels = "rgb"
[network]
kind = "dit"
patch = 4
width = 24
depth = 1
heads = 2
[model]
prediction = "x0"
schedule = "flow"
condition = "class"
[train]
pictures = 16
batch = 4
learning_rate = 1e-3
loss = "flow"
"""


def _run(code: str, folder: Path) -> subprocess.CompletedProcess[str]:
    home = {"MEZZOTINT_HOME": str(folder / "home"), "XDG_CACHE_HOME": str(folder / "cache")}
    return subprocess.run(
        [sys.executable, "-c", GUARD + code],
        cwd=folder,
        env={**os.environ, **home},
        capture_output=True,
        text=True,
        check=False,
    )


def test_no_command_asks_for_a_socket(tmp_path: Path) -> None:
    pixels = torch.randint(0, 256, (8, 8 * 8 * 3), generator=torch.Generator().manual_seed(0))
    for number, row in enumerate(pixels.tolist()):
        place = tmp_path / "pictures" / ("round", "square")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.frombytes("RGB", (8, 8), bytes(row)).save(place / f"{number}.png")
    (tmp_path / "tiny.toml").write_text(CONFIG)
    done = _run(WORK, tmp_path)
    assert done.returncode == 0, done.stderr
    energy = [line for line in done.stderr.splitlines() if line.startswith("energy: ")]
    assert len(energy) == 5 and all(" Wh, " in line for line in energy)
    assert "config.notes.energy" in done.stdout and (tmp_path / "own.png").exists()


@pytest.mark.parametrize(
    "code",
    [
        "import socket; socket.socket()",
        "import socket; socket.getaddrinfo('example.org', 443)",
        "libc.socket(2, 1, 0)",
    ],
)
def test_the_guard_would_see_it(code: str, tmp_path: Path) -> None:
    done = _run(code, tmp_path)
    if code.startswith("libc") and (sys.platform != "linux" or "no filter" in done.stderr):
        pytest.skip("what libraries ask the system for is not seen here")
    assert done.returncode != 0
