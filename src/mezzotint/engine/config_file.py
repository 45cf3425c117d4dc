"""A training configuration as a TOML file, read strictly: an unknown key, a missing one, or a value
of the wrong type is an error that names it, before anything is opened."""

from __future__ import annotations

import difflib
import json
import math
import tomllib
import types
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import MISSING, fields, replace
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from mezzotint.engine.config import (
    DERIVED,
    ConfigError,
    DataConfig,
    DecoderConfig,
    ModelConfig,
    RankingConfig,
    StepsConfig,
    TrainConfig,
    flat,
)
from mezzotint.engine.config_check import check
from mezzotint.families.native import CHANNELS, NETWORKS, NetworkConfig
from mezzotint.networks.autoencoder import AutoencoderConfig

T = TypeVar("T")
Part = TypeVar("Part", DataConfig, ModelConfig, DecoderConfig, RankingConfig)


def _near(key: str, known: list[str]) -> str:
    found = difflib.get_close_matches(key, known, n=1, cutoff=0.0)
    return f"; the nearest known is {found[0]!r}" if found else ""


def _names(hint: Any) -> str:
    """A type as an error message calls it."""
    if get_origin(hint) is Literal:
        return "one of " + ", ".join(repr(choice) for choice in get_args(hint))
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(_names(part) for part in get_args(hint) if part is not type(None))
    if get_origin(hint) is tuple:
        parts = get_args(hint)
        count = "a list" if parts[1:] == (...,) else f"a list of {len(parts)}"
        return f"{count}, each {_names(parts[0])}"
    plain = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    return plain[hint]


def _value(hint: Any, value: Any, key: str) -> Any:
    """``value`` as the type ``hint``: bool, int, float, str, Literal, tuple, or a union of a tuple
    and one of the others."""
    wrong = ConfigError(f"{key} = {value!r}: it must be {_names(hint)}")
    if get_origin(hint) in (Union, types.UnionType):
        choices = [part for part in get_args(hint) if part is not type(None)]
        for part in choices:
            if isinstance(value, list) and get_origin(part) is tuple:
                return _value(part, value, key)
            with suppress(ConfigError):
                return _value(part, value, key)
        raise wrong
    if get_origin(hint) is Literal:
        if value in get_args(hint) and isinstance(value, str):
            return value
        raise wrong
    if get_origin(hint) is tuple:
        parts = get_args(hint)
        if not isinstance(value, list) or (parts[1:] != (...,) and len(value) != len(parts)):
            raise wrong
        kinds = [parts[0]] * len(value) if parts[1:] == (...,) else parts
        return tuple(
            _value(kind, entry, f"{key}[{number}]")
            for number, (kind, entry) in enumerate(zip(kinds, value, strict=True))
        )
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not hint or (hint is float and not math.isfinite(value)):
        raise wrong
    return value


def _fill(kind: type[T], table: Any, where: str, given: Mapping[str, Any]) -> T:
    """A flat dataclass from a TOML table; ``given`` are fields that the file may not name."""
    if not isinstance(table, dict):
        raise ConfigError(f"{where} must be a table, [{where}]")
    hints = get_type_hints(kind)
    known = [entry.name for entry in fields(kind) if entry.name not in given]  # type: ignore[arg-type]
    values = dict(given)
    for key, value in table.items():
        if key in given:
            raise ConfigError(
                f"{where}.{key} follows from the data and the condition: leave it out"
            )
        if key not in known:
            raise ConfigError(f"unknown key {where}.{key}{_near(key, known)}")
        values[key] = _value(hints[key], value, f"{where}.{key}")
    for entry in fields(kind):  # type: ignore[arg-type]
        if entry.name not in values and entry.default is MISSING:
            raise ConfigError(f"missing key {where}.{entry.name}: {_names(hints[entry.name])}")
    try:
        return kind(**values)
    except ValueError as error:  # a network's own check
        raise ConfigError(f"{where}: {error}") from error


def _network(table: Any, channels: int) -> NetworkConfig:
    if not isinstance(table, dict):
        raise ConfigError("network must be a table, [network]")
    table = dict(table)
    kind = table.pop("kind", None)
    if kind not in NETWORKS:
        kinds = ", ".join(map(repr, NETWORKS))
        raise ConfigError(f"network.kind = {kind!r}: it must be one of {kinds}")
    derived = {
        entry.name: channels if entry.name.endswith("channels") else 0
        for entry in fields(NETWORKS[kind][0])
        if entry.name in DERIVED
    }
    return _fill(NETWORKS[kind][0], table, "network", derived)


def parse_config(text: str, folder: Path) -> TrainConfig:
    """A configuration from TOML; its paths are relative to ``folder``.

    Raises:
        ConfigError: it is no TOML, or a key is unknown, missing, or holds what it cannot.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not readable as TOML: {error}") from error
    known = [entry.name for entry in fields(TrainConfig)]
    for key in document:
        if key not in known:
            raise ConfigError(f"unknown key {key}{_near(key, known)}")
    for key in ("name", "data", "train"):
        if key not in document:
            raise ConfigError(f"missing {'key' if key == 'name' else 'table'} {key}")
    data = _fill(DataConfig, document["data"], "data", {})
    channels = CHANNELS[data.channels]
    network = model = autoencoder = decoder = ranker = None
    if "network" in document:
        network = _network(document["network"], channels)
    if "model" in document:
        model = _fill(ModelConfig, document["model"], "model", {})
        model = _located(model, folder, ("latent", "prior", "init"))
    if "autoencoder" in document:
        given = {"channels": channels}
        autoencoder = _fill(AutoencoderConfig, document["autoencoder"], "autoencoder", given)
    if "decoder" in document:
        decoder = _fill(DecoderConfig, document["decoder"], "decoder", {})
        decoder = _located(decoder, folder, ("of",))
    if "ranker" in document:
        ranker = _fill(RankingConfig, document["ranker"], "ranker", {})
        ranker = _located(ranker, folder, ("of",))
    config = TrainConfig(
        name=_value(str, document["name"], "name"),
        seed=_value(int, document.get("seed", 0), "seed"),
        data=_located(data, folder, ("source", "embeddings", "cache_folder")),
        train=_fill(StepsConfig, document["train"], "train", {}),
        network=network,
        model=model,
        autoencoder=autoencoder,
        decoder=decoder,
        ranker=ranker,
    )
    check(config)
    return config


def _located(part: Part, folder: Path, paths: Sequence[str]) -> Part:
    """``part`` with the ``paths`` among its fields made absolute."""
    given = {name: getattr(part, name) for name in paths if getattr(part, name) is not None}
    return replace(part, **{name: str((folder / path).absolute()) for name, path in given.items()})


def read_config(path: Path) -> TrainConfig:
    """A configuration file; its paths are relative to its folder.  Raises ConfigError."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: {(error.strerror or str(error)).lower()}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not a text file: {error.reason}") from error
    try:
        return parse_config(text, path.parent)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def to_toml(config: TrainConfig) -> str:
    """The configuration as a file that :func:`read_config` reads again, every key named."""
    lines: list[str] = []
    table = ""
    for key, value in flat(config).items():
        if "." in key and key.split(".")[0] != table:
            table = key.split(".")[0]
            lines += ["", f"[{table}]"]
        listed = list(value) if isinstance(value, tuple) else value
        lines.append(f"{key.split('.')[-1]} = {json.dumps(listed, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"
