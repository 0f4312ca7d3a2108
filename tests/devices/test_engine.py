"""Engines with other devices: the same answers, whoever computes them."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest

from sti import Engine
from sti.engine.device_options import MPI, DeviceOptions
from sti.errors import InputError, StiWarning
from sti.exchange.threads import thread_exchanges
from tests.support.devices import CONTROLLER, serving
from tests.support.packs import TEXTS, tiny_pack
from tests.support.workers import PATIENT


def config(folder: Path, names: list[str]) -> Path:
    path = folder / "devices.toml"
    lines = [
        f'[devices.{name}]\naddress = "127.0.0.1:{7000 + number}"\n'
        for number, name in enumerate(names)
    ]
    path.write_text("".join(lines), encoding="utf-8")
    return path


@pytest.mark.parametrize("strategy", ["auto", "local", "chain"])
def test_answers_are_the_same_whoever_computes_them(tmp_path: Path, strategy: str) -> None:
    pack = tiny_pack()
    with Engine.open(pack, fidelity=4) as engine:
        alone = engine.run(TEXTS)
    with serving(pack, ["a", "b"], profile=PATIENT) as exchanges:
        options = DeviceOptions(
            config(tmp_path, ["a", "b"]), strategy=strategy, exchange=exchanges[CONTROLLER]
        )
        with Engine.open(pack, fidelity=4, devices=options) as engine:
            for _ in range(3):
                result = engine.run(TEXTS)
                assert result.embeddings.tobytes() == alone.embeddings.tobytes()
                assert strategy == "auto" or bool(result.stages) == (strategy == "chain")
                assert not result.notices
            found, taken = engine.strategies(tokens=16)
            assert found[0].name == "local"
            assert strategy in (taken.name, "auto")


def test_an_answer_comes_though_a_device_is_lost(tmp_path: Path) -> None:
    pack = tiny_pack()
    with serving(pack, ["a"], profile=PATIENT) as exchanges:
        options = DeviceOptions(
            config(tmp_path, ["a"]), strategy="chain", exchange=exchanges[CONTROLLER]
        )
        with Engine.open(pack, fidelity=4, devices=options) as engine:
            first = engine.run(TEXTS)
            exchanges["a"].kill()
            with pytest.warns(StiWarning, match="a: it was lost"):
                second = engine.run(TEXTS)
            assert second.embeddings.tobytes() == first.embeddings.tobytes()
            assert first.stages
            assert not second.stages
            assert not engine.run(TEXTS).notices


def test_more_ranks_than_a_chain_has_devices_are_refused() -> None:
    with closing(thread_exchanges([CONTROLLER])[CONTROLLER]) as exchange:
        ranks = tuple(f"rank{number}" for number in range(1, 9))
        options = DeviceOptions(engine=MPI, exchange=exchange, ranks=ranks)
        with pytest.raises(InputError, match="start at most 8"):
            options.validate()
        options._replace(ranks=ranks[1:]).validate()


def test_rounded_numbers_on_links_are_told_once(tmp_path: Path) -> None:
    pack = tiny_pack()
    with Engine.open(pack, fidelity=4) as engine:
        alone = engine.run(TEXTS)
    with serving(pack, ["a"], profile=PATIENT) as exchanges:
        path = config(tmp_path, ["a"])
        path.write_text(path.read_text("utf-8") + '[links]\nnumbers = "int8"\n', "utf-8")
        options = DeviceOptions(path, strategy="chain", exchange=exchanges[CONTROLLER])
        with Engine.open(pack, fidelity=4, devices=options) as engine:
            found, taken = engine.strategies(tokens=16)
            assert found[0].cosine == 1.0
            if taken.cosine < 1.0:  # there is a link within the chain
                with pytest.warns(StiWarning, match="numbers on links are int8"):
                    engine.run(TEXTS)
            result = engine.run(TEXTS)
            assert not result.notices
            apart = float(abs(result.embeddings - alone.embeddings).max())
            assert apart < 0.05
