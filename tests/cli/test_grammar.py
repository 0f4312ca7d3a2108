"""What holds for every command of ``sti``: JSON, errors as JSON, standard output kept clean."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path

import pytest

import sti
from sti.planning.plan import Plan
from sti.version import JSON_VERSION
from tests.support.commands import Cli, process, wait_until_it_reads

QUICK = ("--fidelity", "4", "--tokens", "8")
COMMANDS = {
    "run": ("{}", "the dog", "--fidelity", "4"),
    "plan": ("{}", *QUICK),
    "bench": ("{}", *QUICK, "--repeat", "1", "--cold-repeat", "1"),
    "calibrate": ("{}", "--threads", "1"),
    "doctor": ("{}",),
}


def arguments(command: str, pack: Path) -> list[str]:
    return [command, *(item.format(pack) for item in COMMANDS[command])]


@pytest.mark.parametrize("command", COMMANDS)
def test_with_json_every_command_prints_one_document(
    command: str, cli: Cli, tiny_pack: Path
) -> None:
    document = cli(*arguments(command, tiny_pack), "--json").json
    assert next(iter(document)) == "version"
    assert "error" not in document


@pytest.mark.parametrize("command", COMMANDS)
def test_with_json_every_command_reports_bad_usage_in_a_document(command: str, cli: Cli) -> None:
    answer = cli(command, "--json", "--no-such-option")
    assert answer.error["kind"] == "UsageError"
    assert "--no-such-option" in answer.error["message"] or "required" in answer.error["message"]
    assert answer.err.startswith("usage: sti ")


@pytest.mark.parametrize("command", COMMANDS)
def test_with_json_every_command_reports_a_bad_pack_in_a_document(
    command: str, cli: Cli, tmp_path: Path
) -> None:
    pack = tmp_path / "no pack"
    answer = cli(*arguments(command, pack), "--json")
    assert answer.error["kind"] in ("InputError", "PackError")
    assert str(pack) in answer.error["message"]
    assert answer.err.startswith(f"sti {command}: ")
    assert answer.err.count("\n") == 1


def test_a_target_that_cannot_be_met_says_which_limit_in_json(cli: Cli, tiny_pack: Path) -> None:
    answer = cli("plan", tiny_pack, "--device", "paper-board", "--latency", "1us", "--json")
    assert answer.error["kind"] == "InfeasibleError"
    assert answer.error["limit"] == "latency"
    assert answer.error["asked"] == 1e-6 < answer.error["needed"]


def test_without_memory_there_is_a_document_as_well(
    cli: Cli, tiny_pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("sti.engine.engine.Engine.stream", fails)
    answer = cli("run", tiny_pack, "a", "--fidelity", 4, "--json")
    assert (answer.error["kind"], answer.code) == ("MemoryError", 1)
    assert "less --memory or --preload" in answer.error["message"]


def test_ctrl_c_prints_a_document_in_a_process_of_its_own(tiny_pack: Path) -> None:
    child = process(["run", tiny_pack, "--json", "--input", "-"], stdin=subprocess.PIPE)
    assert child.stdin is not None and child.stdout is not None
    wait_until_it_reads(child.pid)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert (child.returncode, err) == (130, b"sti run: interrupted\n")
    assert json.loads(out) == {
        "version": JSON_VERSION,
        "error": {"kind": "KeyboardInterrupt", "message": "interrupted", "exit_code": 130},
    }


def test_answers_and_costs_go_to_different_streams(tiny_pack: Path) -> None:
    child = process(["run", tiny_pack, "the dog", "--fidelity", 4])
    out, err = child.communicate(timeout=60)
    assert child.returncode == 0
    assert out.startswith(b"1  the dog\n") and b"plan:" not in out
    assert b"after opening in" in err and b"plan: 2 layers, 4 slices" in err


def test_a_text_that_reads_like_an_option_does_not_ask_for_json(cli: Cli, tiny_pack: Path) -> None:
    answer = cli("run", tiny_pack, "--fidelity", 4, "--", "--json")
    assert answer.out.startswith("1  --json\n")


def test_a_plan_is_saved_beside_what_is_printed(cli: Cli, tiny_pack: Path, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    answer = cli("plan", tiny_pack, *QUICK, "-o", path)
    assert answer.err == f"saved to {path}; `--plan {path}` runs it\n"
    assert "saved" not in answer.out and answer.out.startswith(("checkpoint", "embedding"))
    printed = cli("plan", tiny_pack, *QUICK, "--output", path, "--json")
    plan = Plan.from_text(path.read_text(), where="saved")
    assert Plan.from_json(printed.json, where="printed") == plan
    path.write_text(printed.out)  # what --json prints can be followed as well
    assert cli("run", tiny_pack, "the dog", "--plan", path).code == 0


def test_bench_writes_reports_to_files_and_the_document_to_standard_output(
    cli: Cli, tiny_pack: Path, tmp_path: Path
) -> None:
    table, rows = tmp_path / "a.md", tmp_path / "a.csv"
    options = (*arguments("bench", tiny_pack), "-o", table, "-o", rows)
    answer = cli(*options)
    assert answer.out == ""
    assert answer.err == f"saved to {table}\nsaved to {rows}\n"
    assert table.read_text().startswith("machine: ")
    assert rows.read_text().startswith("case,kind,")
    assert cli(*options, "--json").json["rows"]


@pytest.mark.parametrize("program", ["sti", "shard_tools"])
def test_both_programs_tell_their_version(program: str) -> None:
    child = process(["--version"], program=program)
    out, err = child.communicate(timeout=60)
    name = {"sti": "sti", "shard_tools": "sti-shard"}[program]
    assert (child.returncode, out.decode(), err) == (0, f"{name} {sti.__version__}\n", b"")
