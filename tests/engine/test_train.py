"""Runs of a tiny network: resuming, errors, processes, and what is written."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from mezzotint.checkpoints.files import CheckpointError, load
from mezzotint.engine import ema, objectives, state
from mezzotint.engine import train as trainer
from mezzotint.engine.config import ConfigError, StepsConfig, TrainConfig
from mezzotint.engine.config_file import parse_config, to_toml
from mezzotint.engine.pictures import load_autoencoder
from mezzotint.engine.reports import Listener, Progress
from mezzotint.engine.state import TrainError
from mezzotint.engine.train import CONFIG as CONFIG_FILE
from mezzotint.engine.train import MODEL, learning_rate, train
from mezzotint.families.model import Model
from mezzotint.families.native import load_model
from mezzotint.modalities.dataset import DatasetError
from mezzotint.provenance.energy import restored
from mezzotint.provenance.grid import grid

ROOT = Path(__file__).parents[2]
CONFIG = """
name = "tiny"
seed = 1
[data]
source = "pictures"
size = 8
channels = "rgb"
flip = true
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
pictures = 96
batch = 8
learning_rate = 1e-3
precision = "fp32"
loss = "flow"
log_steps = 3
"""
AUTOENCODER = """
name = "folds"
[data]
source = "pictures"
size = 8
channels = "rgb"
[autoencoder]
width = 16
decoder_width = 16
multipliers = [1, 2]
latent_channels = 4
attention = false
blocks = 1
decoder_blocks = 1
[train]
pictures = 32
batch = 8
learning_rate = 1e-3
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Twelve pictures in two classes."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    pixels = torch.randint(0, 256, (12, 8 * 8 * 3), generator=torch.Generator().manual_seed(0))
    for number, row in enumerate(pixels.tolist()):
        place = tmp_path / "pictures" / ("round", "square")[number % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.frombytes("RGB", (8, 8), bytes(row)).save(place / f"{number:02d}.png")
    return tmp_path


def _config(folder: Path, *changes: tuple[str, str], text: str = CONFIG) -> TrainConfig:
    for old, new in changes:
        assert old in text
        text = text.replace(old, new, 1)
    return parse_config(text, folder)


def _stop_at(step: int) -> Listener:
    """Stop after a step (counted by the calls of the progress)."""
    seen: list[Progress] = []
    return Listener(progress=seen.append, stop=lambda: seen[-1].step >= step)


def _weights(run: Path) -> dict[str, Tensor]:
    return load(run / MODEL)[0]


def _assert_equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def _steps(run: Path) -> list[int]:
    return [json.loads(line)["step"] for line in (run / "log.jsonl").read_text().splitlines()]


# --- a run ------------------------------------------------------------------------------------


def test_a_run_and_what_it_leaves(folder: Path) -> None:
    told: list[Progress] = []
    sampled: list[tuple[str, int]] = []

    def sampler(model: Model, pictures: int) -> None:
        assert not model.network.training
        sampled.append((model.name, pictures))

    config = _config(folder, ("log_steps = 3", "log_steps = 5\nsample_pictures = 48"))
    config = replace(config, train=replace(config.train, snapshot_pictures=32))
    before = torch.random.get_rng_state()
    listener = Listener(progress=told.append, sampler=sampler)
    path = train(config, folder / "run", listener)
    assert torch.equal(torch.random.get_rng_state(), before)  # the caller's generator is untouched
    assert path == folder / "run" / MODEL
    assert [p.step for p in told] == list(range(1, 13)) and told[-1].pictures == 96
    assert all(p.loss > 0 and p.gradient_norm > 0 and 0 < p.network_share < 1 for p in told)
    assert len(told[0].levels) == 10
    assert sampled == [("tiny", 48), ("tiny", 96)]
    assert _steps(folder / "run") == [5, 10, 12]
    assert list(ema.snapshots(folder / "run")) == [4, 8, 12]
    model, native = load_model(path)
    assert native.classes == ("round", "square") and native.network.vector_width == 2
    assert native.notes["pictures"] == "96" and native.notes["ema"] == "0.05"
    assert native.notes["data"] == "pictures"
    assert model.codec.shape((8, 8)) == (3, 8, 8)
    # The chosen average is the one that snapshots of the end hold, to float16.
    found = ema.reconstruct(folder / "run", 0.05)
    for name, value in _weights(folder / "run").items():
        torch.testing.assert_close(
            found[name.removeprefix("network.")], value, atol=1e-3, rtol=1e-3
        )


def test_it_learns(folder: Path) -> None:
    config = _config(folder, ("pictures = 96", "pictures = 800"), ("1e-3", "3e-3"))
    told: list[Progress] = []
    train(config, folder / "run", Listener(progress=told.append))
    assert told[-1].loss < 0.75 * told[2].loss


@pytest.mark.parametrize("kind", ["bf16", "fp32"])
def test_a_run_goes_on_in_the_precision_that_it_began_with(
    folder: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    kinds = {"bf16": torch.bfloat16, "fp32": torch.float32}
    chosen = _config(folder, ('precision = "fp32"\n', ""))
    assert chosen.train.precision == "auto"
    train(_config(folder, ('"fp32"', f'"{kind}"')), folder / "told")
    monkeypatch.setattr("mezzotint.engine.train.fastest", lambda place: kinds[kind])
    train(chosen, folder / "run", _stop_at(5))
    other = kinds["fp32" if kind == "bf16" else "bf16"]
    monkeypatch.setattr("mezzotint.engine.train.fastest", lambda place: other)
    train(chosen, folder / "run")
    _assert_equal(_weights(folder / "run"), _weights(folder / "told"))


def test_a_configuration_in_the_runs_own_folder_chooses_too(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    chosen = _config(folder, ('precision = "fp32"\n', ""))
    (folder / "run").mkdir()
    (folder / "run" / CONFIG_FILE).write_text(to_toml(chosen))
    monkeypatch.setattr("mezzotint.engine.train.fastest", lambda place: torch.bfloat16)
    train(chosen, folder / "run")
    train(_config(folder, ('"fp32"', '"bf16"')), folder / "told")
    _assert_equal(_weights(folder / "run"), _weights(folder / "told"))


@pytest.mark.parametrize("stop", [1, 7])
def test_stopped_and_resumed_is_bit_identical(folder: Path, stop: int) -> None:
    config = _config(folder, ('"fp32"', '"bf16"'))
    train(config, folder / "whole")
    assert train(config, folder / "run", _stop_at(stop)) == folder / "run"
    assert len(state.checkpoints(folder / "run")) == 1 and not (folder / "run" / MODEL).exists()
    train(config, folder / "run")
    _assert_equal(_weights(folder / "whole"), _weights(folder / "run"))
    a, b = (state.newest(folder / run, cleans=False) for run in ("whole", "run"))
    assert a is not None and b is not None
    a.tensors.pop("window"), b.tensors.pop("window")  # holds seconds
    _assert_equal(a.tensors, b.tensors)
    lines = [(folder / run / "log.jsonl").read_text().splitlines() for run in ("whole", "run")]
    for one, other in zip(*lines, strict=True):
        for key in ("step", "loss", "levels", "gradient_norm", "learning_rate", "pictures"):
            assert json.loads(one)[key] == json.loads(other)[key]
    # Once more: nothing is left to do, and nothing changes.
    train(config, folder / "run")
    _assert_equal(_weights(folder / "whole"), _weights(folder / "run"))


def test_energy_adds_up_over_a_stop(folder: Path) -> None:
    config, notes = _config(folder), list[str]()
    train(config, folder / "run", replace(_stop_at(7), note=notes.append))
    half = state.newest(folder / "run", cleans=False)
    assert half is not None
    spent = restored(half.energy)
    assert spent.wh > 0 and notes[-1].startswith("energy: ") and "CO2e" in notes[-1]
    train(config, folder / "run", Listener(note=notes.append), electricity=grid("FR"))
    whole = state.newest(folder / "run", cleans=False)
    assert whole is not None
    assert restored(whole.energy).cpu_seconds > spent.cpu_seconds
    log = [json.loads(line) for line in (folder / "run" / "log.jsonl").read_text().splitlines()]
    assert [row["wh"] for row in log] == sorted(row["wh"] for row in log) and log[0]["wh"] > 0
    assert "grid: FR 2024" in load_model(folder / "run" / MODEL)[1].notes["energy"]


def test_killed_and_resumed_is_bit_identical() -> None:
    run = subprocess.run(
        [sys.executable, str(ROOT / "benchmarks" / "kill_resume.py"), "--kills", "2"],
        capture_output=True,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "2 of 2 bit-identical" in run.stdout


def test_log_lines_after_the_checkpoint_are_removed(folder: Path) -> None:
    config = _config(folder)
    train(config, folder / "run", _stop_at(7))
    log = folder / "run" / "log.jsonl"
    assert _steps(folder / "run") == [3, 6]
    with log.open("a") as file:  # what a kill after a later step would leave
        file.write('{"step": 9}\n{"step": 12, "lo')
    train(config, folder / "run")
    assert _steps(folder / "run") == [3, 6, 9, 12]


def test_more_pictures_may_be_asked_for(folder: Path) -> None:
    train(_config(folder), folder / "run")
    longer = _config(folder, ("pictures = 96", "pictures = 128"))
    train(longer, folder / "run")
    train(longer, folder / "whole")
    _assert_equal(_weights(folder / "whole"), _weights(folder / "run"))
    assert load_model(folder / "run" / MODEL)[1].notes["pictures"] == "128"


def test_accumulation_and_caching_change_nothing(folder: Path) -> None:
    train(_config(folder), folder / "whole")
    train(_config(folder, ("batch = 8", "batch = 8\nmicro_batch = 3")), folder / "split")
    for name, value in _weights(folder / "whole").items():
        torch.testing.assert_close(_weights(folder / "split")[name], value, atol=1e-5, rtol=0)
    train(_config(folder, ("flip = true", "flip = true\ncache = false")), folder / "direct")
    _assert_equal(_weights(folder / "whole"), _weights(folder / "direct"))
    assert not (folder / "direct" / "cache").exists()


def test_any_average_may_be_the_final_one(folder: Path) -> None:
    extra = "log_steps = 3\nsnapshot_pictures = 8\nfinal_ema = "
    train(_config(folder, ("log_steps = 3", extra + "0.07")), folder / "run")
    direct = _config(folder, ("log_steps = 3", "ema = [0.07]"))
    train(direct, folder / "direct")
    for name, value in _weights(folder / "direct").items():
        torch.testing.assert_close(_weights(folder / "run")[name], value, atol=2e-4, rtol=1e-3)


@pytest.mark.parametrize("prediction", ["edm", "eps"])
def test_a_unet_with_dropout_and_every_schedule(folder: Path, prediction: str) -> None:
    unet = (
        'kind = "unet"\nwidth = 16\nmultipliers = [1]\nblocks = 1\nattention = [false]\n'
        "dropout = 0.1"
    )
    dit = CONFIG[CONFIG.index('kind = "dit"') : CONFIG.index("[model]")].rstrip()
    schedule = "edm" if prediction == "edm" else "linear"
    changes = [(dit, unet), ('"x0"', f'"{prediction}"'), ('"flow"', f'"{schedule}"')]
    levels = 'loss = "plain"\nlevels = "edm_lognormal"\nlevel_mean = -1.2\nlevel_std = 1.2'
    config = _config(
        folder, *changes, ('loss = "flow"', levels), ("pictures = 96", "pictures = 32")
    )
    train(config, folder / "whole")
    train(config, folder / "run", _stop_at(2))
    train(config, folder / "run")
    _assert_equal(_weights(folder / "whole"), _weights(folder / "run"))


# --- latents ----------------------------------------------------------------------------------


def test_an_autoencoder_and_a_model_on_its_latents(folder: Path) -> None:
    first = train(_config(folder, text=AUTOENCODER), folder / "folds")
    network, _ = load_autoencoder(first)
    assert network.config.latent_channels == 4 and network.config.channels == 3
    assert json.loads((folder / "folds/log.jsonl").read_text().splitlines()[-1])["levels"] == []
    latent = [
        ("patch = 4", "patch = 1"),
        ('"class"', '"class"\nlatent = "folds/model.safetensors"'),
    ]
    config = _config(folder, *latent)
    model, native = load_model(train(config, folder / "run"))
    assert native.latent is not None and native.network.in_channels == 4
    assert model.codec.shape((8, 8)) == (4, 2, 2)
    (cache,) = (folder / "run" / "cache").iterdir()
    assert cache.name.startswith("latents-")
    # What was learnt from is what the model's own codec gives, at unit scale.
    listener = Listener()
    with trainer.join(None) as team:
        task = trainer.prepare(config, folder / "run", team, listener)
    x0 = task.objective.draw(range(96)).x0
    assert x0.mean().abs() < 0.1 and 0.9 < x0.std() < 1.1
    media = torch.stack([trainer_picture(folder, n) for n in range(12)])
    encoded = torch.cat([model.codec.encode(media), model.codec.encode(media.flip(-1))])
    distance = (x0[:, None] - encoded[None]).abs().amax((2, 3, 4)).amin(1)
    assert distance.max() < 0.02
    seen = ("batch = 8", "batch = 8\nperceptual_weight = 1.0")
    other, _ = load_model(train(_config(folder, *latent, seen), folder / "seen"))
    pairs = zip(model.network.parameters(), other.network.parameters(), strict=True)
    assert not all(torch.equal(a, b) for a, b in pairs)
    with pytest.raises(TrainError, match="channels = 'rgba' has 4"):
        train(_config(folder, *latent, ('"rgb"', '"rgba"')), folder / "other")
    with pytest.raises(TrainError, match="does not divide by the autoencoder's stride 4"):
        train(_config(folder, *latent, ("size = 8", "size = 10")), folder / "odd")


def test_a_decoder_goes_on_from_an_autoencoders(folder: Path) -> None:
    first, identity = load_autoencoder(train(_config(folder, text=AUTOENCODER), folder / "folds"))
    start = AUTOENCODER.index("[autoencoder]")
    table = '[decoder]\nof = "folds/model.safetensors"\nblocks = 3\nnoise = 0.5\n'
    text = AUTOENCODER[:start] + table + AUTOENCODER[AUTOENCODER.index("[train]") :]
    config = _config(folder, text=text)
    with trainer.join(None) as team:
        task = trainer.prepare(config, folder / "none", team, Listener())
    untrained = {n: w.detach() for n, w in task.objective.network.state_dict().items()}
    task.export(folder / "untrained.safetensors", untrained, {})
    same, _ = load_autoencoder(folder / "untrained.safetensors")
    code = torch.randn(2, 4, 2, 2)
    assert same.config == replace(first.config, decoder_blocks=3)
    torch.testing.assert_close(same.decode(code), first.decode(code))  # added blocks add nothing
    train(config, folder / "whole")
    train(config, folder / "run", _stop_at(2))
    found, other = load_autoencoder(train(config, folder / "run"))
    _assert_equal(_weights(folder / "whole"), _weights(folder / "run"))
    _assert_equal(found.encoder.state_dict(), first.encoder.state_dict())
    assert other != identity and not torch.allclose(found.decode(code), first.decode(code))
    for change, message in (
        (("blocks = 3", "blocks = -1"), "decoder.blocks = -1: it must not be below 0"),
        (("noise = 0.5", "noise = -0.5"), "decoder.noise = -0.5: it must not be below 0"),
        (('"rgb"', '"rgba"'), "channels = 'rgba' has 4"),
        (("size = 8", "size = 8\ncrop = 6"), "data.crop = 6 does not divide by .* stride 4"),
        (('of = "folds/', 'of = "lost/'), "lost/model.safetensors: no such file"),
    ):
        with pytest.raises((TrainError, ConfigError, CheckpointError), match=message):
            train(_config(folder, change, text=text), folder / "other")
    deep = text.replace("folds/", "run/").replace("blocks = 3", "blocks = 2")
    with pytest.raises(TrainError, match="blocks = 2: .* has 3 already"):
        train(_config(folder, text=deep), folder / "other")


def trainer_picture(folder: Path, number: int) -> Tensor:
    """Picture ``number`` of the fixture, in [−1, 1]."""
    name = folder / "pictures" / ("round", "square")[number % 2] / f"{number:02d}.png"
    flat = torch.frombuffer(bytearray(Image.open(name).tobytes()), dtype=torch.uint8)
    return flat.view(8, 8, 3).permute(2, 0, 1).float() / 127.5 - 1


# --- errors -----------------------------------------------------------------------------------


def test_an_empty_folder(folder: Path) -> None:
    (folder / "nothing").mkdir()
    with pytest.raises(DatasetError, match="no pictures here"):
        train(_config(folder, ('"pictures"', '"nothing"')), folder / "run")


def test_a_broken_picture(folder: Path) -> None:
    (folder / "pictures/round/00.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    with pytest.raises(DatasetError, match=r"round/00\.png"):
        train(_config(folder), folder / "run")
    notes: list[str] = []
    skipping = _config(folder, ("flip = true", "flip = true\nskip_bad = true"))
    train(skipping, folder / "run", Listener(note=notes.append))
    assert any("left out 1 bad files" in note and "round/00.png" in note for note in notes)


def test_an_impossible_size(folder: Path) -> None:
    with pytest.raises(ConfigError, match=r"data\.size = 0: it must be above 0"):
        _config(folder, ("size = 8", "size = 0"))
    with pytest.raises(TrainError, match="width 25 over 2 heads"):
        train(_config(folder, ("width = 24", "width = 25")), folder / "run")
    with pytest.raises(TrainError, match="micro_batch = 9 is more than a process's share"):
        train(_config(folder, ("batch = 8", "batch = 8\nmicro_batch = 9")), folder / "run")


@pytest.mark.parametrize("where", ["loss", "gradient"])
def test_nan_stops_before_the_weights(
    folder: Path, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    config = _config(folder)
    train(config, folder / "run", _stop_at(4))
    original: Callable[..., Tensor] = objectives.losses.loss

    def broken(*args: object) -> Tensor:
        found = original(*args)
        if where == "loss":
            return found * torch.where(torch.arange(len(found)) == 3, float("nan"), 1.0)
        return found + (found - found.detach()).sign().detach() * 0 + _poisoned(found)

    monkeypatch.setattr(objectives.losses, "loss", broken)
    with pytest.raises(TrainError) as error:
        train(config, folder / "run")
    text = str(error.value)
    assert "step 5" in text and "not finite" in text and "\n" not in text
    assert "lower train.learning_rate" in text and "levels t = 0." in text
    assert ("the loss is" in text) == (where == "loss")
    monkeypatch.undo()
    train(config, folder / "run")  # it goes on as if nothing had been
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "home"))
    train(config, folder / "whole")
    _assert_equal(_weights(folder / "whole"), _weights(folder / "run"))


def _poisoned(x: Tensor) -> Tensor:
    """0, with a gradient of nan."""
    zero = (x - x.detach()).abs()  # 0
    return (zero + 1e-38).sqrt() * 0 + zero.sqrt()  # the root's slope at 0 is infinite


def test_another_configuration_on_resume(folder: Path) -> None:
    train(_config(folder), folder / "run", _stop_at(2))
    with pytest.raises(TrainError) as error:
        train(_config(folder, ("width = 24", "width = 48"), ("1e-3", "2e-3")), folder / "run")
    assert "network.width (24, now 48)" in str(error.value)
    assert "train.learning_rate (0.001, now 0.002)" in str(error.value)
    (folder / "pictures/round/00.png").rename(folder / "pictures/round/99.png")
    with pytest.raises(TrainError, match="holds a run on other data"):
        train(_config(folder), folder / "run")


def test_a_damaged_checkpoint_stops(folder: Path) -> None:
    config = _config(folder)
    train(config, folder / "run", _stop_at(2))
    train(config, folder / "run", _stop_at(4))
    newest = state.checkpoints(folder / "run")[-1]
    newest.write_bytes(newest.read_bytes()[:-7])
    with pytest.raises(TrainError, match="delete it to go back to step-00000002"):
        train(config, folder / "run")
    newest.unlink()
    train(config, folder / "run")
    train(config, folder / "whole")
    _assert_equal(_weights(folder / "whole"), _weights(folder / "run"))


def test_two_runs_in_one_folder(folder: Path) -> None:
    def again(_: Progress) -> None:
        train(_config(folder), folder / "run")

    with pytest.raises(TrainError, match="another process is training there"):
        train(_config(folder), folder / "run", Listener(progress=again))


def test_pictures_without_what_the_condition_needs(folder: Path) -> None:
    with pytest.raises(TrainError, match="12 of 12 pictures have no caption"):
        train(_config(folder, ('"class"', '"text"')), folder / "run")
    flat = folder / "flat"
    flat.mkdir()
    (folder / "pictures/round/00.png").rename(flat / "a.png")
    with pytest.raises(TrainError, match=r"have no class \(first: a.png\)"):
        train(_config(folder, ('"pictures"', '"flat"')), folder / "run")


def test_tensorboard_gets_what_the_log_gets_over_a_restart(folder: Path) -> None:
    config = _config(folder, ("log_steps = 3", "log_steps = 1\ntensorboard = true"))
    run = folder / "run"
    train(config, run, _stop_at(2))
    train(config, run)
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    events = EventAccumulator(str(run / "tensorboard")).Reload()
    for name in ("loss", "gradient_norm", "learning_rate"):
        told = {event.step: event.value for event in events.Scalars(name)}
        assert told == pytest.approx({line["step"]: line[name] for line in lines}, rel=1e-4)
    tenths = {tag for tag in events.Tags()["scalars"] if tag.startswith("levels/")}
    assert "levels/0.5" in tenths


def test_tensorboard_is_asked_for_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(TrainError, match=r"install mezzotint\[tracking\]"):
        train(_config(folder, ("log_steps = 3", "tensorboard = true")), folder / "run")


# --- learning rate, processes -----------------------------------------------------------------


def test_learning_rates() -> None:
    base = StepsConfig(pictures=1000, batch=10, learning_rate=2.0, warmup_pictures=100)
    assert [learning_rate(base, step) for step in (0, 4, 9, 50)] == [0.2, 1.0, 2.0, 2.0]
    rates = {
        "linear": [2.0 * 0.9, 1.0, 2.0 * 0.01],
        "cosine": [2.0 * 0.9755282581475768, 1.0, 2.0 * 0.0002467198171342],
        "inverse_sqrt": [2.0, 2.0 * (500 / 250) ** -0.5, 2.0 * (990 / 250) ** -0.5],
    }
    for decay, expected in rates.items():
        train = replace(base, decay=decay, decay_pictures=250)  # type: ignore[arg-type]
        found = [learning_rate(train, step) for step in (10, 50, 99)]
        assert found == pytest.approx(expected)


WORKER = """
import sys
from pathlib import Path
import torch
from mezzotint.engine.config_file import read_config
from mezzotint.engine.train import train
torch.set_num_threads(1)
train(read_config(Path(sys.argv[1])), Path(sys.argv[2]), device=torch.device("cpu"))
"""


def test_two_processes_learn_what_one_does(folder: Path) -> None:
    (folder / "run.toml").write_text(CONFIG)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    command = [sys.executable, "-c", WORKER, str(folder / "run.toml"), str(folder / "two")]
    workers = [
        subprocess.Popen(
            command,
            env=os.environ | common | {"RANK": rank, "LOCAL_RANK": rank},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    for worker in workers:
        _, errors = worker.communicate(timeout=300)
        assert worker.returncode == 0, errors
    train(_config(folder), folder / "one")
    for name, value in _weights(folder / "one").items():
        torch.testing.assert_close(_weights(folder / "two")[name], value, atol=1e-5, rtol=0)
    assert _steps(folder / "two") == _steps(folder / "one")
    a, b = ((folder / run / "log.jsonl").read_text().splitlines()[-1] for run in ("one", "two"))
    assert json.loads(a)["loss"] == pytest.approx(json.loads(b)["loss"], rel=1e-4)
