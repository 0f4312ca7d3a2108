"""``sti worker``, ``sti devices``, and the options for other devices, as users meet them."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commands import ENVIRONMENT, Cli
from tests.support.packs import tiny_pack

TEXTS = ("the dog runs", "under the table")


@pytest.fixture(scope="module")
def board(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A ``devices.toml`` with one device, whose worker runs on this machine."""
    pack = tiny_pack()
    command = [sys.executable, "-m", "sti", "worker", str(pack), "--json"]
    with subprocess.Popen(
        [*command, "--listen", "127.0.0.1:0", "--name", "board", "--threads", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=ENVIRONMENT,
    ) as worker:
        assert worker.stdout is not None
        told = json.loads(worker.stdout.readline())
        assert told["name"] == "board"
        assert told["layers"][0] == 0
        path = tmp_path_factory.mktemp("devices") / "devices.toml"
        path.write_text(f'[devices.board]\naddress = "{told["address"]}"\n', encoding="utf-8")
        yield path
        worker.terminate()
        assert worker.wait(30) == 143


def test_a_chain_answers_and_tells_where_layers_ran(cli: Cli, board: Path) -> None:
    alone = cli("run", tiny_pack(), *TEXTS, "--fidelity", 4, "--json").json
    options = ("--devices", board, "--strategy", "chain", "--fidelity", 4)
    together = cli("run", tiny_pack(), *TEXTS, *options, "--json").json
    assert together["embeddings"] == alone["embeddings"]
    assert "board" in {stage["device"] for stage in together["stages"]}
    assert "stages" not in alone
    told = cli("run", tiny_pack(), *TEXTS, *options)
    assert "\nran: layer" in told.err and "on board" in told.err


def test_a_plan_shows_every_strategy_and_why_it_loses(cli: Cli, board: Path) -> None:
    shown = cli("plan", tiny_pack(), "--devices", board, "--tokens", 16)
    assert shown.code == 0
    lines = [line for line in shown.out.splitlines() if line.startswith(("local", "chain: "))]
    assert len(lines) >= 2
    assert sum(line.rstrip().endswith("taken") for line in lines) == 1
    found = cli("plan", tiny_pack(), "--devices", board, "--tokens", 16, "--json").json
    strategies = found["strategies"]
    assert strategies[0]["strategy"] == "local"
    assert [item["taken"] for item in strategies].count(True) == 1
    assert all(item["why_not"] for item in strategies if not item["taken"])
    assert all(item["sent_bytes"] > 0 for item in strategies[1:])


def test_bench_measures_both_ways(cli: Cli, board: Path) -> None:
    options = ("--tokens", 8, "--repeat", 2, "--fidelity", 4, "--json")
    rows = cli("bench", tiny_pack(), "--devices", board, *options).json["rows"]
    assert [row["strategy"].partition(":")[0] for row in rows] == ["local", "chain"]
    assert all(row["total_ms"] > 0 and row["predicted_ms"] > 0 for row in rows)
    refused = cli("bench", tiny_pack(), "--devices", board, "--storage", "emmc")
    assert refused.code == 2 and "--storage" in refused.err


def test_bench_says_where_no_chain_could_be_measured(cli: Cli, tmp_path: Path) -> None:
    config = tmp_path / "devices.toml"
    config.write_text('[devices.away]\naddress = "127.0.0.1:9"\n', encoding="utf-8")
    shown = cli("bench", tiny_pack(), "--devices", config, "--tokens", 8, "--repeat", 1, "--json")
    assert [row["strategy"] for row in shown.json["rows"]] == ["local"]
    assert "no chain is shown" in shown.err
    refused = cli("bench", tiny_pack(), "--devices", config, "--strategy", "chain")
    assert refused.code == 2 and "bench measures both" in refused.err


def test_no_device_is_called_as_controllers_call_themselves(cli: Cli, tmp_path: Path) -> None:
    keys = cli("devices", "init", "--keys", tmp_path / "keys", "local")
    assert keys.code == 2 and not (tmp_path / "keys").exists()
    worker = cli("worker", tiny_pack(), "--listen", "127.0.0.1:0", "--name", "local")
    assert worker.code == 2 and "another name" in worker.err


def test_keys_are_made_for_each_device_and_kept(cli: Cli, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    first = cli("devices", "init", "--keys", keys, "phone", "board", "--json").json
    assert first["new"] == ["phone", "board"]
    assert set(first["copy"]) == {"phone", "board"}
    secret = (keys / "phone" / "phone.key_secret").read_bytes()
    second = cli("devices", "init", "--keys", keys, "tablet")
    assert second.code == 0
    for name in ("phone", "board", "tablet"):
        assert f"copy {keys / name} to {name}" in second.out
    assert (keys / "phone" / "phone.key_secret").read_bytes() == secret


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--listen", "127.0.0.1:0"), "needs a name"),
        (("--listen", "0.0.0.0:7311", "--name", "board"), "--keys"),
        (("--listen", "nowhere", "--name", "board"), "nowhere"),
        (("--listen", "127.0.0.1:0", "--name", "a b"), "a b"),
        (("--listen", "127.0.0.1:0", "--keys", "missing"), "missing"),
        (("--listen", "127.0.0.1:0", "--name", "b", "--memory", "1KB"), "--memory"),
    ],
)
def test_workers_that_cannot_be_are_refused(cli: Cli, words: tuple[str, ...], said: str) -> None:
    answer = cli("worker", tiny_pack(), *words)
    assert answer.code == 2
    assert said in answer.err
    assert "Traceback" not in answer.err


def test_a_worker_has_the_name_of_its_keys(cli: Cli, tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    cli("devices", "init", "--keys", keys, "phone")
    options = ("--listen", "127.0.0.1:0", "--keys", keys / "phone", "--name", "board")
    answer = cli("worker", tiny_pack(), *options)
    assert answer.code == 2
    assert "the keys are those of phone" in answer.err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--keys", "keys"), "--keys needs --devices FILE"),
        (("--strategy", "chain"), "--strategy needs --devices FILE"),
        (("--devices", "missing.toml"), "missing.toml: cannot be read"),
    ],
)
def test_options_without_devices_are_refused(cli: Cli, words: tuple[str, ...], said: str) -> None:
    answer = cli("run", tiny_pack(), "a text", *words)
    assert answer.code == 2
    assert said in answer.err


def test_devices_do_not_go_with_another_machine(cli: Cli, board: Path) -> None:
    answer = cli("plan", tiny_pack(), "--devices", board, "--device", "paper-board")
    assert answer.code == 2
    assert "leave --device or --devices out" in answer.err
