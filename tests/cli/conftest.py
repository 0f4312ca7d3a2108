"""The ``sti`` command in this process."""

from __future__ import annotations

import pytest

from sti.cli.main import main
from tests.support.commands import Cli, in_process


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Runs a command; devices are measured in a tenth of a second, as if they were quiet."""
    monkeypatch.setattr("sti.calibration.calibrate.BUDGET_S", 0.1)
    monkeypatch.setattr("sti.calibration.disturbance.Watch.share", lambda *_, **__: 0.0)
    return in_process(main, capsys)
