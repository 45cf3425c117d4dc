"""The measures of `benchmarks/server_load.py`, which does more of the same: its bounds of memory
hold here too, nothing is timed."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import Serving, serving

import tiny_model
from mezzotint.families.catalogue import locate

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))

import server_load as load

IDLE = 3.0


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("load")
    models = folder / "models"
    models.mkdir()
    tiny_model.write(models / "tiny.safetensors")
    for name in load.MODELS:
        shutil.copyfile(locate("icons"), models / name)
    options = ["--models", str(models), "--idle", str(IDLE), "--most-jobs", "1000"]
    with serving(folder / "server", *options) as found:
        yield found


def test_what_a_server_adds_is_what_neither_this_job_nor_those_before_it_took() -> None:
    alone = load.Timed(asked=10, had=13.5, started=10.5, finished=13, own=2)
    assert load.added(alone, [alone]) == 1.5
    before = load.Timed(asked=7, had=10.5, started=8, finished=10.25, own=2)  # 0.25 of it is left
    queued = load.Timed(asked=9, had=10.5, started=10.25, finished=10.5, own=0.25)  # all of it
    after = load.Timed(asked=10, had=15, started=13, finished=15, own=2)  # none of it
    assert load.added(alone, [before, queued, alone, after]) == 1.0


def test_fifty_clients_have_all_their_pictures(server: Serving) -> None:
    fox = {"prompt": "fox", "model": "tiny.safetensors", "steps": 2}
    found, spent = asyncio.run(load._run(server, fox, 2 * load.CLIENTS, 0.0))
    assert len(found) == 2 * load.CLIENTS
    for one in found:
        assert one.asked < one.started < one.finished and one.started < one.had, one
        assert 0 < one.own <= one.finished - one.started + 0.001, one
    assert sum(one.own for one in found) < spent  # by the one worker, one after another


def test_two_owners_in_one_batch_have_the_pictures_of_each_alone(server: Serving) -> None:
    found = load.time_batches(server, 4)
    assert found["equal"]
    assert found["batched"]["loads"] < found["in_turns"]["loads"] == 8


def test_memory_is_given_back(server: Serving) -> None:
    found = load.time_memory(server, 40, IDLE)
    for moment in ("at_start", "warm", "after", "at_rest"):
        assert found[moment]["server"]["rss"] <= load.MOST_BYTES, moment
    assert found["after"]["workers"]["rss"] > found["at_rest"]["workers"]["rss"] == 0
    assert sum(found["kinds"].values()) == 40 and found["kinds"]["done"] > 0
