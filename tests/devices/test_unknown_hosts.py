"""A device whose host is not known is left out; the others are used."""

from __future__ import annotations

from pathlib import Path

import pytest

from sti import DeviceOptions, Engine, StiWarning
from tests.support.packs import TEXTS, tiny_pack


def test_a_host_that_is_not_known_keeps_no_answer_from_coming(tmp_path: Path) -> None:
    config, told = tmp_path / "devices.toml", []
    config.write_text('[devices.board]\naddress = "no-such-host.invalid:7311"\n', "utf-8")
    options = DeviceOptions(config, strategy="chain")
    with (
        Engine.open(tiny_pack(), fidelity=4, devices=options, notify=told.append) as engine,
        pytest.warns(StiWarning, match="board: no-such-host.invalid:7311: the host"),
    ):
        result = engine.run(TEXTS)
    assert len(result.embeddings) == len(TEXTS)
    assert any("device board is not used: no-such-host" in line for line in told)
