"""The ``sti-shard`` command in this process."""

from __future__ import annotations

import pytest

from shard_tools.cli.main import main
from tests.support.commands import Cli, in_process


@pytest.fixture
def shard(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Runs a command."""
    return in_process(main, capsys)
