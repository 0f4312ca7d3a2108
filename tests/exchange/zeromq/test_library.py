"""Libraries that lack something are refused by name, before anything is made."""

from __future__ import annotations

from pathlib import Path

import pytest
import zmq

from sti.errors import RunError
from sti.exchange.zeromq.exchange import ZmqExchange
from sti.exchange.zeromq.keys import Keys, make_keys


def test_a_library_without_encryption_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zmq, "has", lambda _: False)
    with pytest.raises(RunError, match="compiled without encryption: install a newer libzmq"):
        make_keys(tmp_path / "keys", ["board"])
    assert not list(tmp_path.iterdir())
    with pytest.raises(RunError, match="without encryption"):
        Keys.load(tmp_path)
    with pytest.raises(RunError, match="without encryption"):
        ZmqExchange("a")


def test_an_old_library_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(zmq, "zmq_version_info", lambda: (4, 2, 5))
    with pytest.raises(RunError, match=r"is too old, 4\.3 is needed"):
        ZmqExchange("a")
