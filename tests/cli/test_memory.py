"""``--memory``: a budget on the command line, and what is told where it is too small."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.commands import Cli, refused
from tests.support.counted_memory import CountedMemory

OPTIONS = ("--threads", 1)


pytestmark = pytest.mark.usefixtures("machine")


@pytest.fixture
def measured(cli: Cli, tiny_pack: Path) -> Path:
    """A pack with which this machine was measured."""
    assert cli("calibrate", tiny_pack, *OPTIONS).code == 0
    return tiny_pack


def test_run_keeps_a_budget_and_gives_the_answers_that_it_gives_without(
    cli: Cli, measured: Path
) -> None:
    texts = ("the dog runs", "under the table")
    plain = cli("run", measured, *texts, *OPTIONS, "--json").json
    found = cli("run", measured, *texts, *OPTIONS, "--memory", "30MB", "--json").json
    assert found["embeddings"] == plain["embeddings"]
    target = found["plan"]["target"]
    assert target["memory_bytes"] == 30_000_000 and "sequential" in target["threads"]
    assert plain["plan"]["target"]["memory_bytes"] is None
    told = cli("run", measured, *texts, *OPTIONS, "--memory", "30MB").err
    assert "asked for memory 30.0 MB" in told


@pytest.mark.parametrize("command", ["run", "plan", "bench"])
def test_a_budget_that_is_too_small_is_refused_with_what_is_needed(
    cli: Cli, measured: Path, command: str
) -> None:
    words = ["dog"] if command == "run" else ["--tokens", 8]
    options = ("--fidelity", 4, *OPTIONS, "--memory", "1MB")
    said = "a memory of 1.00 MB is not enough for 1 text of 8 tokens: the least is "
    refused(cli(command, measured, *words, *options), said)
    error = cli(command, measured, *words, *options, "--json").error
    told = error["kind"], error["limit"], error["asked"]
    assert told == ("InfeasibleError", "memory", 1_000_000)
    assert error["message"].startswith(said)
    enough = ("--fidelity", 4, *OPTIONS, "--memory", f"{error['needed']}B")
    if command != "bench":
        assert cli(command, measured, *words, *enough).code == 0


def test_plan_tells_of_the_budget(cli: Cli, measured: Path) -> None:
    options = ("--tokens", 8, *OPTIONS, "--memory", "30MB")
    target = cli("plan", measured, *options, "--json").json["target"]
    assert target["memory_bytes"] == 30_000_000
    assert 0 < target["preload_bytes"] < 30_000_000
    assert cli("plan", measured, *options).code == 0


def test_bench_measures_every_fidelity_within_the_budget(cli: Cli, measured: Path) -> None:
    options = ("--tokens", 8, "--repeat", 1, "--cold-repeat", 1, "--fidelity", 4, *OPTIONS)
    answer = cli("bench", measured, *options, "--memory", "30MB")
    assert answer.code == 0, answer.err
    assert "memory 30.0 MB" in answer.out


@pytest.mark.parametrize(
    ("memory", "said"),
    [
        ("64", 'it has no unit; write "64B"'),
        ("much", "memory must be a size"),
        ("-1MB", "memory"),
    ],
)
def test_a_budget_without_a_sense_is_refused(
    cli: Cli, tiny_pack: Path, memory: str, said: str
) -> None:
    refused(cli("run", tiny_pack, "dog", f"--memory={memory}"), said)


def test_a_device_of_which_nothing_is_opened_has_no_budget(cli: Cli, tiny_pack: Path) -> None:
    options = ("--device", "paper-board", "--memory", "30MB")
    refused(
        cli("plan", tiny_pack, *options),
        "--memory is for this machine, where what opening takes is measured; with --device give "
        "a --preload",
    )


def test_a_plan_has_its_own_budget(cli: Cli, measured: Path, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    kept = cli("plan", measured, *OPTIONS, "--memory", "30MB", "--json")
    path.write_text(kept.out, encoding="utf-8")
    refused(
        cli("run", measured, "dog", *OPTIONS, "--plan", path, "--memory", "30MB"),
        "memory and plan exclude each other",
    )


def test_where_memory_is_not_counted_a_preload_is_what_to_ask_for(
    cli: Cli, tiny_pack: Path, machine: CountedMemory
) -> None:
    machine.does_not_count()
    refused(cli("run", tiny_pack, "dog", *OPTIONS, "--memory", "30MB"), "give a preload instead")
