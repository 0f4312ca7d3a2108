"""Devices that are killed or frozen, and come back: the answer comes, and is the right one."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from shard_tools.packing.share import share
from sti.devices.commands import RUN
from sti.engine.device_options import DeviceOptions
from tests.support.packs import TEXTS, tiny_pack
from tests.support.processes import until
from tests.support.workers import Asking, Home, Hooked, asking, workers

MANY = TEXTS * 300
"""A run of a tenth of a second."""


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """Two workers with a part of the pack each, so that a chain needs both."""
    folder = tmp_path_factory.mktemp("home")
    parts = {name: folder / f"{name}.sti.safetensors" for name in "ab"}
    share(tiny_pack(), parts["a"], 0, 0)
    share(tiny_pack(), parts["b"], 1, 2)
    with workers(parts, folder) as found:
        yield found


@contextmanager
def chain_of(home: Home, said: list[str]) -> Iterator[tuple[Asking, Hooked]]:
    """An engine whose answers come from both workers."""
    for worker in home.workers.values():
        if not worker.runs:  # after a test that failed
            worker.start()
    exchange = home.exchange(said.append)
    options = DeviceOptions(home.config, strategy="chain", exchange=exchange)
    with asking(tiny_pack(), MANY, options, said.append) as asked:
        asked.until_by("a", "b")
        yield asked, exchange


def told(said: list[str], name: str) -> list[str]:
    return [line for line in said if line.startswith(f"device {name} is not used")]


def until_told(asked: Asking, said: list[str], *names: str) -> list[str]:
    """Answers until each of these devices was told once more; what they warned of."""
    before = {name: len(told(said, name)) for name in names}
    notices: list[str] = []

    def is_told() -> bool:
        notices.extend(asked.once().notices)
        return all(len(told(said, name)) > before[name] for name in names)

    until(is_told)
    return notices


def is_lost(name: str, notice: str) -> bool:
    """Whether a notice says so: this machine or another device was the first to see it."""
    seen = rf"(it )?was lost: its connection ended|[ab] says: {name} is lost"
    return re.match(rf"answered by this machine alone: {name}: ({seen})", notice) is not None


def test_a_device_that_is_killed_is_named_once_and_used_again_when_it_is_back(home: Home) -> None:
    said: list[str] = []
    killed = home.workers["b"]
    with chain_of(home, said) as (asked, exchange):
        killed.kill()  # before a run
        notices = until_told(asked, said, "b")
        assert all(is_lost("b", notice) for notice in notices), "there is another chain"
        asked.until_by("a", "local")
        assert "it was lost: its connection ended" in told(said, "b")[0]
        killed.start()
        asked.until_by("a", "b")

        exchange.once("b", RUN, killed.kill)  # amid a run
        result = asked.once()
        assert not result.stages
        assert len(result.notices) == 1
        assert is_lost("b", result.notices[0])
        assert not asked.once().notices
        killed.start()
        asked.until_by("a", "b")

        home.workers["a"].kill()
        killed.kill()
        notices = until_told(asked, said, "a", "b")
        notices += asked.once().notices
        assert len(notices) == len(set(notices)) > 0
        assert not asked.once().notices
        home.workers["a"].start()
        killed.start()
        asked.until_by("a", "b")
        assert len(told(said, "b")) == 3
        assert len(told(said, "a")) == 1


def test_the_first_device_of_a_chain_is_killed_amid_a_run(home: Home) -> None:
    said: list[str] = []
    with chain_of(home, said) as (asked, exchange):
        exchange.once("a", RUN, home.workers["a"].kill)
        (notice,) = asked.once().notices
        assert is_lost("a", notice)
        home.workers["a"].start()
        asked.until_by("a", "b")
        assert not told(said, "b")


@pytest.mark.parametrize("name", ["a", "b"])
def test_a_device_that_is_frozen_is_lost_and_used_again_when_it_wakes(
    home: Home, name: str
) -> None:
    said: list[str] = []
    frozen = home.workers[name]
    with chain_of(home, said) as (asked, exchange):
        exchange.once(name, RUN, frozen.freeze)
        try:
            (notice,) = asked.once().notices
            assert is_lost(name, notice) or f"alone: {name} was late" in notice
            until(lambda: bool(asked.once()) and bool(told(said, name)))
            assert "it was lost" in told(said, name)[0]
        finally:
            frozen.thaw()
        asked.until_by("a", "b")
        assert len(told(said, name)) == 1


def test_a_device_that_naps_is_late_at_most(home: Home) -> None:
    said: list[str] = []
    with chain_of(home, said) as (asked, exchange):
        exchange.once("b", RUN, home.workers["b"].freeze)
        notices = asked.once().notices
        home.workers["b"].thaw()
        assert all("b" in line for line in notices)
        asked.until_by("a", "b")
