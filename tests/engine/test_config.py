"""The configuration is read strictly: every mistake is named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mezzotint.engine.config import ConfigError, DecoderConfig, differences
from mezzotint.engine.config_file import parse_config, read_config, to_toml
from mezzotint.networks.dit import DiTConfig
from mezzotint.networks.unet import UNetConfig

DIT = """
name = "digits"
[data]
source = "digits"
size = 8
channels = "grey"
[network]
kind = "dit"
patch = 2
width = 24
depth = 1
heads = 2
[model]
prediction = "x0"
schedule = "flow"
condition = "class"
[train]
pictures = 64
batch = 8
learning_rate = 1
"""
AUTOENCODER = """
name = "folds"
[data]
source = "digits"
size = 16
crop = 8
[autoencoder]
width = 16
decoder_width = 16
multipliers = [1, 2]
attention = false
[train]
pictures = 64
batch = 8
learning_rate = 1e-3
"""
HERE = Path("/somewhere")


def test_a_whole_file() -> None:
    config = parse_config(DIT, HERE)
    assert config.name == "digits" and config.seed == 0
    assert isinstance(config.network, DiTConfig) and config.network.patch == 2
    assert config.network.in_channels == 1
    assert config.data.source == str((HERE / "digits").absolute())
    assert config.train.learning_rate == 1.0 and isinstance(config.train.learning_rate, float)
    assert config.train.ema == (0.05, 0.10)


INTERVAL = DIT.replace("[model]", "[model]\nguidance_interval = [0.4, 1.0]")


@pytest.mark.parametrize("text", [DIT, INTERVAL, AUTOENCODER])
def test_what_is_written_is_read_again(text: str) -> None:
    config = parse_config(text.replace('"digits"', '"a \\"quoted\\" name ü"', 1), HERE)
    assert parse_config(to_toml(config), HERE) == config


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("learning_rate = 1", "learning_rat = 1", "unknown key train.learning_rat; the nearest"),
        ("learning_rate = 1", "", "missing key train.learning_rate: a number"),
        ("learning_rate = 1", 'learning_rate = "fast"', "train.learning_rate = 'fast': it must be"),
        ("learning_rate = 1", "learning_rate = nan", "train.learning_rate = nan"),
        ("size = 8", "size = 8.5", "data.size = 8.5: it must be a whole number"),
        ("size = 8", "size = true", "data.size = True: it must be a whole number"),
        ("size = 8", "size = 0", "data.size = 0: it must be above 0"),
        ("size = 8", "size = -64", "data.size = -64: it must be above 0"),
        ("batch = 8", "batch = 8\nclip = -1.0", "train.clip = -1.0: it must not be below 0"),
        ("batch = 8", "batch = 8\nbetas = [0.9]", "betas = [0.9]: it must be a list of 2, each a"),
        ("batch = 8", "batch = 8\nbetas = [0.9, 1.0]", "train.betas = [0.9, 1.0]: both"),
        ("batch = 8", "batch = 8\nema = [0.5]", "0.5 is no width"),
        ("batch = 8", "batch = 8\nema = []", "train.ema is empty"),
        ("batch = 8", "batch = 8\nema = [0.1, 0.1]", "names a width twice"),
        ("batch = 8", "batch = 8\nfinal_ema = 0.2", "set train.snapshot_pictures"),
        ("batch = 8", 'batch = 8\ndecay = "inverse_sqrt"', "needs train.decay_pictures"),
        ("batch = 8", "batch = 8\nperceptual_weight = 1.0", "perceptual_weight is for a latent"),
        ("batch = 8", "batch = 8\nperceptual_time = 0.0", "perceptual_time = 0.0: a time"),
        ("batch = 8", "batch = 8\ndrop_condition = 2", "train.drop_condition = 2.0: a share"),
        (
            "batch = 8",
            'batch = 8\nsample_prompts = "a fox"',
            "sample_prompts = 'a fox': it",
        ),
        ('"x0"', '"x1"', "model.prediction = 'x1': it must be one of 'x0'"),
        ('"flow"', '"edm"', "the edm prediction and the edm schedule go together"),
        ('"dit"', '"dti"', "network.kind = 'dti': it must be one of 'dit', 'unet'"),
        ("patch = 2", "patch = 2\nin_channels = 4", "network.in_channels follows from the data"),
        ("[model]", "[model]\nsampler = 'eulr'", "model.sampler: unknown sampler 'eulr'"),
        ("[model]", "[model]\nspacing = 'karas'", "model.spacing: no spacing named 'karas'"),
        (
            "[model]",
            "[model]\nguidance_interval = [0.6, 0.4]",
            "model.guidance_interval = [0.6, 0.4]: two times, 0 <= low < high <= 1",
        ),
        ("[model]", "[modell]", "unknown key modell; the nearest known is 'model'"),
        ('name = "digits"', "", "missing key name"),
        ('name = "digits"', "name = ", "not readable as TOML"),
        ("[data]", "[data]\ncrop = 4", "data.crop = 4: random squares are for autoencoders"),
        ("[model]", "[model]\nlatent = 'a'\n[data.more]", "unknown key data.more"),
    ],
)
def test_mistakes_are_named(old: str, new: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_config(DIT.replace(old, new, 1), HERE)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_unets_blocks_are_one_number_or_one_a_level() -> None:
    text = DIT[: DIT.index("[network]")] + (
        '[network]\nkind = "unet"\nwidth = 16\nmultipliers = [1, 2]\nattention = [false, false]\n'
        "head_width = 16\nblocks = 1\n\n"
    )
    text += DIT[DIT.index("[model]") :]
    for written, read in (("1", 1), ("[3, 1]", (3, 1))):
        config = parse_config(text.replace("blocks = 1", f"blocks = {written}"), HERE)
        assert isinstance(config.network, UNetConfig) and config.network.blocks == read
        assert parse_config(to_toml(config), HERE) == config
    for written, message in (
        ('"three"', "'three': it must be a whole number or a list, each a whole number"),
        ("[3, 1.5]", "network.blocks[1] = 1.5: it must be a whole number"),
        ("[3, 1, 1]", "network: multipliers name 2 levels, attention 2 and blocks 3"),
    ):
        with pytest.raises(ConfigError) as error:
            parse_config(text.replace("blocks = 1", f"blocks = {written}"), HERE)
        assert message in str(error.value)


def test_a_run_trains_one_thing() -> None:
    tail = AUTOENCODER[AUTOENCODER.index("[autoencoder]") : AUTOENCODER.index("[train]")]
    with pytest.raises(ConfigError, match="trains one thing"):
        parse_config(DIT + tail, HERE)
    with pytest.raises(ConfigError, match="go together"):
        parse_config(DIT[: DIT.index("[model]")] + DIT[DIT.index("[train]") :], HERE)
    with pytest.raises(ConfigError, match="do not divide by the autoencoder's stride 4"):
        parse_config(AUTOENCODER.replace("crop = 8", "crop = 6"), HERE)
    decoder = '[decoder]\nof = "folds/model.safetensors"\nblocks = 3\n'
    config = parse_config(AUTOENCODER.replace(tail, decoder), HERE)
    assert config.decoder == DecoderConfig("/somewhere/folds/model.safetensors", 3)
    assert parse_config(to_toml(config), HERE) == config
    with pytest.raises(ConfigError, match="trains one thing"):
        parse_config(AUTOENCODER + decoder, HERE)
    with pytest.raises(ConfigError, match="width"):
        parse_config(AUTOENCODER.replace("width = 16", "width = 7", 1), HERE)


def test_the_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"nowhere\.toml: no such file"):
        read_config(tmp_path / "nowhere.toml")
    file = tmp_path / "run.toml"
    file.write_text(DIT)
    assert read_config(file).data.source == str(tmp_path / "digits")
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="not a text file"):
        read_config(file)


def test_differences_name_the_keys_that_may_not_change() -> None:
    old = parse_config(DIT, HERE)
    longer = replace(old, train=replace(old.train, pictures=128, log_steps=3))
    assert differences(old, longer) == []
    assert old.model is not None
    defaults = replace(old.model, guidance=5.0, guidance_interval=(0.4, 1.0))
    assert differences(old, replace(old, model=defaults)) == []
    assert defaults.defaults(8).interval == (0.4, 1.0)
    wider = replace(old, network=replace(old.network, width=48))  # type: ignore[type-var]
    assert differences(old, wider) == ["network.width (24, now 48)"]
    other = replace(old, seed=1, train=replace(old.train, batch=4))
    assert differences(old, other) == ["seed (0, now 1)", "train.batch (8, now 4)"]
