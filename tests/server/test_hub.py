"""Who hears what, and when a worker is told that somebody looks."""

from __future__ import annotations

import asyncio
from typing import Any

from mezzotint.apps.server.hub import ALL, END, Hub, of


def heard(waiting: asyncio.Queue[dict[str, Any]]) -> list[dict[str, Any]]:
    return [waiting.get_nowait() for _ in range(waiting.qsize())]


def test_owners_hear_of_their_own_jobs() -> None:
    hub = Hub(lambda job, begins: None)
    with (
        hub.listening() as all_,
        hub.listening(of("anna")) as anna,
        hub.listening(of("ben")) as ben,
        hub.listening("one") as one,
    ):
        hub.tell({"job": "one", "state": "submitted"}, "anna")
        hub.tell({"job": "two", "state": "submitted"}, "ben")
        hub.begins("one", "anna")
        hub.tell({"job": "one", "step": 1})
        hub.ends("one")
        hub.tell({"job": "one", "step": 2})  # whose it is, nobody knows any more
        assert [told["job"] for told in heard(all_)] == ["one", "two", "one", "one"]
        assert [told.get("step") for told in heard(anna)] == [None, 1]
        assert [told["job"] for told in heard(ben)] == ["two"]
        assert [told.get("step") for told in heard(one)] == [None, 1, 2]
        hub.close()
        assert heard(anna) == [END]
    assert len(hub) == 0


def test_previews_are_made_while_anybody_looks() -> None:
    said: list[tuple[str, bool]] = []
    hub = Hub(lambda job, begins: said.append((job, begins)))
    hub.begins("early", "anna")
    assert said == []
    with hub.listening(of("anna")):  # it runs already
        assert said == [("early", True)]
        with hub.listening("early"), hub.listening(of("ben")):
            pass
        assert ("early", False) not in said  # she still looks
        hub.begins("late", "anna")
        assert said[-1] == ("late", True)
        hub.begins("his", "ben")
        assert all(job != "his" for job, _ in said)
        with hub.listening(ALL):
            assert ("his", True) in said
        assert said[-1] == ("his", False)
    assert {("early", False), ("late", False)} <= set(said)
    before = len(said)
    with hub.listening("early", looks=False):  # and makes nobody draw
        assert len(said) == before
        with hub.listening("early"):
            assert said[before:] == [("early", True)]
        assert said[before:] == [("early", True), ("early", False)]
    before = len(said)
    hub.ends("early")
    with hub.listening("early"):
        assert len(said) == before


def test_who_does_not_look_hears_without_previews() -> None:
    hub = Hub(lambda job, begins: None)
    with hub.listening("one") as looks, hub.listening("one", looks=False) as hears:
        hub.tell({"job": "one", "step": 1, "preview": "…"})
        assert heard(looks) == [{"job": "one", "step": 1, "preview": "…"}]
        assert heard(hears) == [{"job": "one", "step": 1}]
    assert len(hub) == 0
