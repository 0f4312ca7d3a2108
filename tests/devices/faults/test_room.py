"""Devices without room: refused by name, not planned with, and told why."""

from __future__ import annotations

from pathlib import Path

import pytest

from sti import Engine
from sti.cli.main import main
from sti.devices import commands
from sti.engine.device_options import DeviceOptions
from sti.errors import StiWarning
from tests.support.commands import Cli, in_process, refused
from tests.support.packs import TEXTS, tiny_pack
from tests.support.raw_controllers import WORKER, raw_controller
from tests.support.workers import SLOW, write_config


@pytest.fixture
def sti(capsys: pytest.CaptureFixture[str]) -> Cli:
    return in_process(main, capsys)


@pytest.mark.parametrize("memory", ["1KB", "999999B"])
def test_a_worker_does_not_start_with_too_little_memory(sti: Cli, memory: str) -> None:
    argv = ("worker", tiny_pack(), "--listen", "127.0.0.1:0", "--name", "a", "--memory", memory)
    refused(sti(*argv), "(--memory) is too little", "ask for at least 1.05 MB")


def test_a_worker_does_not_start_with_less_memory_than_it_is_to_hold(sti: Cli) -> None:
    argv = ("worker", tiny_pack(), "--listen", "127.0.0.1:0", "--name", "a")
    refused(sti(*argv, "--memory", "2MB", "--preload", "2MB"), "for a preload of 2.00 MB")


def test_a_part_without_room_is_refused_by_name() -> None:
    with raw_controller(tiny_pack(), facts=lambda facts: facts._replace(room_bytes=1)) as (raw, _):
        raw.hello()
        found = raw.prepare()
        assert found["is"] == commands.FAILED
        assert "a: layers 0 to 2 take" in found["why"]
        assert "it has room for 1; give it fewer layers, or more --memory" in found["why"]
    with raw_controller(tiny_pack()) as (raw, _):
        raw.hello()
        count = len(raw.plan.steps)
        found = raw.prepare(preloads=(1 << 40,) * count)
        assert "it has room for" in found["why"]
        raw.is_well()


def test_devices_without_room_are_not_planned_with(tmp_path: Path) -> None:
    with raw_controller(tiny_pack(), facts=lambda facts: facts._replace(room_bytes=9)) as (raw, _):
        config = tmp_path / "devices.toml"
        write_config(config, {WORKER: "127.0.0.1:7000"})
        options = DeviceOptions(config, strategy="chain", exchange=raw.exchange)
        with Engine.open(
            tiny_pack(), fidelity=4, threads=1, profile=SLOW, devices=options
        ) as engine:
            found, taken = engine.strategies(tokens=16)
            assert [strategy.name for strategy in found] == ["local"]
            assert taken is found[0]
            why = "a: no part of the plan fits it: it has layers 0 to 2, and room for 9 bytes"
            with pytest.warns(StiWarning, match=why):
                engine.run(TEXTS)
