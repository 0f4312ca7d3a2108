"""`sti run` of many texts: batch by batch, in lines of JSON, with errors and Ctrl-C on the way."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import sti
from sti.cli.progress import Progress
from sti.engine.batches import MOST_TEXTS
from tests.support.checkpoints import Task
from tests.support.commands import Answer, Cli, process

PackFor = Callable[[Task], Path]
LINES = ["the dog runs", "under the table", "a red house"] * 30
OPTIONS = ("--fidelity", 4, "--threads", 1)


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    path = tmp_path / "lines.txt"
    path.write_text("\n".join(LINES) + "\n", encoding="utf-8")
    return path


def rows(answer: Answer) -> list[dict[str, object]]:
    return [json.loads(line) for line in answer.out.splitlines()]


def test_many_lines_are_answered_in_order_and_summed_up(
    cli: Cli, tiny_pack: Path, lines: Path
) -> None:
    answer = cli("run", tiny_pack, "--input", lines, *OPTIONS)
    assert answer.code == 0
    numbered = [line for line in answer.out.splitlines() if not line.startswith(" ")]
    assert numbered == [f"{number}  {line}" for number, line in enumerate(LINES, 1)]
    assert "cosine" not in answer.out
    assert answer.err.startswith("\n90 texts in 3 batches: ")
    for part in (" texts a second", "; read ", "\nplan: 2 layers, 4 slices"):
        assert part in answer.err
    assert "within" not in answer.err and "late" not in answer.err


def test_a_latency_is_kept_by_each_batch_and_the_share_inside_is_told(
    cli: Cli, tiny_pack: Path, lines: Path
) -> None:
    answer = cli("run", tiny_pack, "--input", lines, "--latency", "20s", "--threads", 1)
    assert "; 100 % within 20.0 s; " in answer.err
    found = cli("run", tiny_pack, "--input", lines, "--latency", "20s", "--json").json
    assert [row["texts"] for row in found["batches"]] == [MOST_TEXTS, MOST_TEXTS, 26]
    assert found["met"] is True and all(row["met"] for row in found["batches"])
    assert len(found["embeddings"]) == len(found["texts"]) == 90
    total_s = sum(row["total_s"] for row in found["batches"])
    assert found["timing"]["total_s"] == pytest.approx(total_s, abs=1e-4)


def test_late_batches_are_counted_and_the_latest_is_told_of(
    cli: Cli, tiny_pack: Path, lines: Path, tmp_path: Path
) -> None:
    made = cli("plan", tiny_pack, "--fidelity", 4, "--batch", 32, "--tokens", 48, "--json").json
    made["target"]["latency_s"] = 1e-5
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(made), encoding="utf-8")
    answer = cli("run", tiny_pack, "--input", lines, "--plan", plan)
    assert "; 0 % within 10.0 us; " in answer.err
    assert "\n3 of 3 batches were late, the latest by " in answer.err


@pytest.mark.parametrize("task", ["embedding", "classification", "regression", "tagging"])
def test_lines_of_json_have_what_the_document_has_for_each_text(
    cli: Cli, pack_for: PackFor, lines: Path, task: Task
) -> None:
    command = ("run", pack_for(task), "--input", lines, *OPTIONS)
    answer = cli(*command, "--jsonl")
    found, whole = rows(answer), cli(*command, "--json").json
    assert answer.code == 0 and "90 texts in 3 batches" in answer.err
    assert [row["text"] for row in found] == LINES
    assert [row["number"] for row in found] == list(range(1, 91))
    assert [row["batch"] for row in found] == [1] * 32 + [2] * 32 + [3] * 26
    assert {(row["met"], row["late_s"], row["version"]) for row in found} == {
        (None, 0, whole["version"])
    }
    own = set(found[0]) - {"version", "number", "text", "batch", "met", "late_s"}
    assert own == {*own} & set(whole) and own
    for name in own:
        assert [row[name] for row in found] == whole[name]


def test_pairs_are_lists_of_two_in_lines_of_json(cli: Cli, pack_for: PackFor) -> None:
    answer = cli("run", pack_for("classification"), "--pair", "a", "b", *OPTIONS, "--jsonl")
    assert [row["text"] for row in rows(answer)] == [["a", "b"]]


def test_json_and_lines_of_json_exclude_each_other(cli: Cli, tiny_pack: Path) -> None:
    answer = cli("run", tiny_pack, "a", "--json", "--jsonl")
    assert answer.code == 2 and "exclude each other" in answer.error["message"]


def test_answers_before_a_bad_line_stay_and_the_line_is_named(
    cli: Cli, tiny_pack: Path, tmp_path: Path
) -> None:
    source = tmp_path / "lines.txt"
    source.write_bytes(b"the dog\n" * 40 + b"\xff\nthe dog\n")
    answer = cli("run", tiny_pack, "--input", source, *OPTIONS)
    assert answer.code == 2
    assert len([line for line in answer.out.splitlines() if "the dog" in line]) == 40
    summary, plan, said = answer.err.strip().splitlines()
    assert summary.startswith("40 texts in 2 batches") and plan.startswith("plan: ")
    assert said == f"sti run: {source}, line 41: not valid UTF-8 (byte 1)"
    lined = cli("run", tiny_pack, "--input", source, *OPTIONS, "--jsonl")
    *found, last = rows(lined)
    assert len(found) == 40 and last["error"]["exit_code"] == lined.code == 2  # type: ignore[index]
    whole = cli("run", tiny_pack, "--input", source, *OPTIONS, "--json")
    assert "line 41" in whole.error["message"]


def test_an_empty_file_is_an_error_before_the_pack_is_opened(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_bytes(b"")
    answer = cli("run", "missing.safetensors", "--input", tmp_path / "empty.txt")
    assert (answer.code, answer.out) == (2, "")
    assert answer.err == f"sti run: {tmp_path / 'empty.txt'}: no text in it\n"


def test_few_embeddings_are_compared_whatever_their_batches(
    cli: Cli, tiny_pack: Path, tmp_path: Path
) -> None:
    made = cli("plan", tiny_pack, "--fidelity", 4, "--batch", 2, "--tokens", 48, "--json").json
    made["target"]["latency_s"] = 100.0
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(made), encoding="utf-8")
    answer = cli("run", tiny_pack, *LINES[:5], "--plan", plan)
    assert "5 texts in 3 batches" in answer.err and "cosine" in answer.out
    table = [line.split()[1:] for line in answer.out.splitlines()[-5:]]
    with sti.Engine.open(tiny_pack, fidelity=4) as engine:
        vectors = engine.embed(LINES[:5])
    assert np.array(table, dtype=np.float32) == pytest.approx(vectors @ vectors.T, abs=0.01)


def test_a_trace_has_all_batches_one_after_another(
    cli: Cli, tiny_pack: Path, lines: Path, tmp_path: Path
) -> None:
    path = tmp_path / "trace.json"
    assert cli("run", tiny_pack, "--input", lines, *OPTIONS, "--trace", path).code == 0
    events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    heads = [event for event in events if event["name"] == "head" and event["pid"] == 1]
    assert len(heads) == 3 and heads == sorted(heads, key=lambda event: event["ts"])


# ---- pipes, Ctrl-C, progress


def read_until(stream: int, wanted: bytes) -> bytes:
    """What comes through a descriptor until that is among it."""
    found, deadline = b"", time.monotonic() + 60
    while wanted not in found and time.monotonic() < deadline:
        if select.select([stream], [], [], 1)[0]:
            found += os.read(stream, 65536)
    return found


def test_a_batch_is_answered_while_more_is_waited_for_and_ctrl_c_ends_that(
    tiny_pack: Path,
) -> None:
    child = process(["run", tiny_pack, *OPTIONS, "--jsonl"], stdin=subprocess.PIPE)
    assert child.stdin is not None and child.stdout is not None
    child.stdin.write(b"the dog\n" * (MOST_TEXTS + 1))
    child.stdin.flush()
    answered = read_until(child.stdout.fileno(), b'"number": 32,')
    assert b'"number": 32,' in answered and b'"number": 33,' not in answered
    time.sleep(0.2)  # until it waits for the rest of the second batch
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == 130
    assert b'"number": 33,' not in out and b"KeyboardInterrupt" in out
    assert err.endswith(b"sti run: interrupted\n")


def test_ctrl_c_during_a_batch_lets_it_end(
    cli: Cli, tiny_pack: Path, lines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = sti.Engine.stream

    def interrupted(engine: sti.Engine, texts: object, **options: object) -> object:
        for result in real(engine, texts, **options):  # type: ignore[arg-type]
            os.kill(os.getpid(), signal.SIGINT)
            yield result

    monkeypatch.setattr("sti.engine.engine.Engine.stream", interrupted)
    before = signal.getsignal(signal.SIGINT)
    answer = cli("run", tiny_pack, "--input", lines, *OPTIONS)
    assert signal.getsignal(signal.SIGINT) is before
    assert answer.code == 130
    assert len([line for line in answer.out.splitlines() if not line.startswith(" ")]) == 32
    assert answer.err.endswith("sti run: interrupted; 32 texts answered\n")


def test_ctrl_c_twice_does_not_wait_for_a_batch(
    cli: Cli, tiny_pack: Path, lines: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object, **__: object) -> object:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        raise AssertionError("was not interrupted")

    monkeypatch.setattr("sti.pipeline.runner.Runner.run", interrupted)
    answer = cli("run", tiny_pack, "--input", lines, *OPTIONS)
    assert (answer.code, answer.out) == (130, "")
    assert answer.err == "sti run: interrupted\n"


def test_progress_is_shown_on_a_terminal_after_a_second_and_wiped(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 100.0
    monkeypatch.setattr("sti.cli.progress.monotonic", lambda: now)
    with Progress() as quiet:
        now = 110.0
        quiet.step(5, 0.5)
    assert capsys.readouterr().err == ""
    with Progress(shown=True) as line:
        now = 110.5
        line.step(50, 0.5)
        assert capsys.readouterr().err == ""
        now = 112.0
        line.step(300, 0.25)
        line.step(301, 0.25)
        assert capsys.readouterr().err == "\r\x1b[K 25% 300 texts, 150 a second, 6 s left"
        now = 114.0
        line.step(400, None)
        assert capsys.readouterr().err == "\r\x1b[K400 texts, 100 a second"
    assert capsys.readouterr().err == "\r\x1b[K"


def test_answers_on_a_terminal_are_progress_enough(tiny_pack: Path, lines: Path) -> None:
    main, side = pty.openpty()
    command = [sys.executable, "-m", "sti", "run", str(tiny_pack), *map(str, OPTIONS)]
    with subprocess.Popen([*command, "--input", str(lines)], stdout=side, stderr=side) as child:
        found = read_until(main, b"plan: ")
        assert child.wait(60) == 0
    os.close(side)
    os.close(main)
    assert b"\x1b[K" not in found and b"90 texts in 3 batches" in found
