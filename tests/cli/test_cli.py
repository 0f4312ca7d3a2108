"""The ``sti`` command from outside: what it prints, where, and with which exit code."""

from __future__ import annotations

import errno
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sti
from sti.cli import doctor
from sti.cli.calibrate import choose
from sti.codec.decoders import kernel_path
from sti.device import host
from sti.device.identity import machine_line
from sti.engine.results import make_result
from sti.errors import BackendError, StorageError
from sti.pack.pack_reader import PackReader
from sti.planning.plan import Plan
from sti.report.installation import install_hint
from sti.version import JSON_VERSION
from tests.support.checkpoints import LABELS, Task
from tests.support.commands import ENVIRONMENT, Cli, process, refused, wait_until_it_reads

PackFor = Callable[[Task], Path]


# ---- run


def test_run_prints_embeddings_similarities_and_what_it_cost(cli: Cli, tiny_pack: Path) -> None:
    answer = cli("run", tiny_pack, "the dog runs", "under the table", "--fidelity", 8)
    assert answer.code == 0
    assert "1  the dog runs" in answer.out
    assert "(32 numbers)" in answer.out
    assert "cosine" in answer.out
    assert "compute" in answer.err
    assert "plan: 2 layers, 4 slices" in answer.err
    assert not {"compute", "plan"} & set(answer.out.split())


def test_run_tells_that_memory_is_short_unless_it_is_to_be_kept(
    cli: Cli, tiny_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "proc").mkdir()
    lines = "MemTotal: 1000000 kB\nMemAvailable: 40000 kB\n"
    (tmp_path / "proc" / "meminfo").write_text(lines, encoding="ascii")
    monkeypatch.setattr(host, "ROOT", tmp_path)
    options = ("--fidelity", 4, "--threads", 1, "--preload", "1MB")
    short = cli("run", tiny_pack, "the dog runs", *options)
    assert short.code == 0
    assert "memory is short: 41.0 MB of 1.02 GB are available; the preload buffer" in short.err
    kept = cli("run", tiny_pack, "the dog runs", *options, "--keep-memory")
    assert kept.code == 0 and "memory is short" not in kept.err
    assert kept.out == short.out


def test_run_prints_one_json_document_and_nothing_else(cli: Cli, tiny_pack: Path) -> None:
    texts = ["the dog runs", "under the table"]
    found = cli("run", tiny_pack, *texts, "--fidelity", 8, "--threads", 1, "--json").json
    with sti.Engine.open(tiny_pack, fidelity=8) as engine:
        expected = engine.embed(texts)
    assert np.asarray(found["embeddings"], np.float32) == pytest.approx(expected, abs=1e-6)
    assert found["texts"] == texts
    assert found["version"] == JSON_VERSION
    assert found["task"] == "embedding"
    assert found["bytes_read"] > 0
    lanes = {"storage", "decode", "compute"}
    told = {"total_s", "plan_s", "stall_s", "waited_s", "waits_s", "busy_s", "lanes"}
    assert set(found["timing"]) == told
    assert set(found["timing"]["lanes"]) == set(found["timing"]["busy_s"]) == lanes
    assert Plan.from_json(found["plan"], where="test").depth == 2


def test_run_tells_of_a_target_that_was_missed(
    cli: Cli, tiny_pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "late by" not in cli("run", tiny_pack, "the dog", "--latency", "5s").err

    def slow(*args: Any, total_s: float, **kwargs: Any) -> sti.Result:
        return make_result(*args, total_s=total_s + 7, **kwargs)

    monkeypatch.setattr("sti.engine.batch_runner.make_result", slow)
    answer = cli("run", tiny_pack, "the dog", "--latency", "5s")
    assert answer.code == 0
    assert "\nlate by 2" in answer.err
    found = cli("run", tiny_pack, "the dog", "--latency", "5s", "--json").json
    assert found["met"] is False and 2 <= found["late_s"] < 4


def test_labels_are_printed_best_first(cli: Cli, pack_for: PackFor) -> None:
    pack = pack_for("classification")
    found = cli("run", pack, "the dog", "--fidelity", 8, "--json").json["classes"][0]
    assert sorted(item["name"] for item in found) == sorted(LABELS)
    scores = [item["score"] for item in found]
    assert scores == sorted(scores, reverse=True)
    shown = cli("run", pack, "the dog", "--fidelity", 8).out
    assert shown.index(found[0]["name"]) < shown.index(found[1]["name"])


def test_pairs_are_answered_as_pairs(cli: Cli, pack_for: PackFor, tmp_path: Path) -> None:
    pack = pack_for("regression")
    one = cli("run", pack, "--pair", "the dog", "the cat", "--fidelity", 8, "--json").json
    (tmp_path / "pairs.tsv").write_text("the dog\tthe cat\n", encoding="utf-8")
    two = cli(
        "run", pack, "--pair", "--input", tmp_path / "pairs.tsv", "--fidelity", 8, "--json"
    ).json
    alone = cli("run", pack, "the dog the cat", "--fidelity", 8, "--json").json
    assert one["texts"] == two["texts"] == [["the dog", "the cat"]]
    assert one["values"] == two["values"] != alone["values"]


def test_spans_are_printed_with_their_place(cli: Cli, pack_for: PackFor) -> None:
    pack = pack_for("tagging")
    answer = cli("run", pack, "the dog runs", "--fidelity", 8)
    found = cli("run", pack, "the dog runs", "--fidelity", 8, "--json").json["spans"][0]
    for span in found:
        assert span["text"] == "the dog runs"[span["start"] : span["end"]]
        assert f"({span['start']}-{span['end']})" in answer.out
    assert found or "nothing found" in answer.out


def test_texts_may_stand_behind_options(cli: Cli, tiny_pack: Path) -> None:
    found = cli("run", tiny_pack, "--fidelity", 4, "the dog", "--json", "--", "-the cat").json
    assert found["texts"] == ["the dog", "-the cat"]


def test_over_long_texts_are_cut_with_a_notice(cli: Cli, tiny_pack: Path) -> None:
    answer = cli("run", tiny_pack, "the dog " * 100, "--fidelity", 4, "--json")
    assert answer.json["truncated"] == 1
    assert "sti: notice: 1 of 1 texts were cut" in answer.err
    assert answer.err.count("\n") == 1


def test_a_trace_opens_as_json_with_measured_and_predicted_rows(
    cli: Cli, tiny_pack: Path, tmp_path: Path
) -> None:
    path = tmp_path / "trace.json"
    assert cli("run", tiny_pack, "the dog", "--latency", "5s", "--trace", path).code == 0
    events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    assert {event["pid"] for event in events if event["ph"] == "X"} == {1, 2}


def test_a_target_of_the_configuration_is_used_and_overridden(
    cli: Cli, tiny_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("sti.toml").write_text('[targets.voice]\nlatency="5s"\npreload="1KB"\n', encoding="utf-8")
    named = cli("run", tiny_pack, "the dog", "--target", "voice", "--json").json["plan"]["target"]
    defaults = {"quantile": 0.98, "floor": 0.95, "floor_is_limit": False}
    defaults |= {"memory_bytes": None, "threads": []}
    assert named == {"latency_s": 5.0, "preload_bytes": 1000, **defaults}
    options = ("--target", "voice", "--preload", "2KB")
    changed = cli("run", tiny_pack, "the dog", *options, "--json").json["plan"]["target"]
    assert changed == {"latency_s": 5.0, "preload_bytes": 2000, **defaults}


def test_standard_input_is_run_when_no_text_is_given(tiny_pack: Path) -> None:
    child = process(["run", str(tiny_pack), "--fidelity", "4", "--json"], stdin=subprocess.PIPE)
    out, err = child.communicate("the dog\nüber\n".encode(), timeout=60)
    assert child.returncode == 0, err
    assert json.loads(out)["texts"] == ["the dog", "über"]


# ---- bad input


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["", "--fidelity", "4"], "text 1 is empty"),
        (["a", "--fidelity", "5"], "5 bits is not in the pack"),
        (["a", "--latency", "200"], "no unit"),
        (["a", "--latency", "1us"], "latency"),
        (["a", "--preload", "4 boxes"], "unit"),
        (["a", "--preload", "999GB"], "memory"),
        (["a", "--target", "voice"], "no configuration"),
        (["a", "--config", "missing.toml", "--target", "x"], "cannot read the configuration"),
        (["a", "--plan", "missing.json"], "missing.json"),
        (["a", "--plan", "x.json", "--latency", "1s"], "latency and plan exclude"),
        (["--input", "missing.txt"], "missing.txt"),
        (["a", "--trace", "missing/trace.json", "--fidelity", "4"], "missing: no such directory"),
        (["a", "--trace", "-", "--fidelity", "4"], "-: names no file"),
        (["a", "b", "c", "--pair"], "two by two"),
    ],
)
def test_bad_input_is_refused_in_one_line(
    cli: Cli,
    tiny_pack: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    refused(cli("run", tiny_pack, *options), "sti run: ", said)


def test_damage_is_told_with_its_place_or_left_out(
    cli: Cli, tiny_pack: Path, tmp_path: Path
) -> None:
    options = ("the dog", "--fidelity", 4)
    sound = cli("run", tiny_pack, *options, "--json").json
    assert sound["downgrades"] == []
    with PackReader.open(tiny_pack) as reader:
        group = reader.manifest.groups[-1]
        at = reader.group_offset(group) + sum(group.outlier_bytes)
        above = at + group.slices * group.planes[0].shard_bytes
    data = bytearray(tiny_pack.read_bytes())
    data[above] ^= 1
    bad = tmp_path / "bad"
    bad.write_bytes(data)
    number, layer = group.planes[1].order[0] + group.first, f"layer {group.layer} ffn"
    place = f"{layer}, group {group.number}, slice {number}, plane of 3 bits"
    refused(cli("run", bad, *options), f"sti run: {bad}: ", place)
    refused(cli("run", bad, *options, "--no-comparable", "--strict"), place)
    refused(cli("run", bad, *options, "--verify"), f"sti run: {bad}: ", "SHA-256")
    found = cli("run", bad, *options, "--no-comparable", "--json")
    assert found.code == 0 and place in found.err
    assert [item["bits"] for item in found.json["downgrades"]] == [3]
    data[at] ^= 1
    bad.write_bytes(data)
    refused(cli("run", bad, *options, "--no-comparable"), "plane of 2 bits")


def test_what_is_no_pack_is_refused(cli: Cli, tmp_path: Path, tiny_pack: Path) -> None:
    (tmp_path / "text").write_text("hello " * 100, encoding="utf-8")
    (tmp_path / "short").write_bytes(tiny_pack.read_bytes()[:-16384])
    for name, said in (("text", "not a"), ("short", "truncated"), ("missing", "missing")):
        refused(cli("run", tmp_path / name, "a", "--fidelity", 4), said)
        refused(cli("doctor", tmp_path / name), said)


def test_a_plan_for_another_pack_is_refused(
    cli: Cli, tiny_pack: Path, pack_for: PackFor, tmp_path: Path
) -> None:
    path = tmp_path / "plan.json"
    assert cli("plan", tiny_pack, "--output", path).code == 0
    refused(cli("run", pack_for("tagging"), "a", "--plan", path), "another pack")


@pytest.mark.parametrize(
    "argv",
    [
        [],
        ["fly"],
        ["run"],
        ["run", "p", "a", "--fidelity", "many"],
        ["run", "p", "a", "--fidelity", "4", "--plan", "x"],
        ["run", "p", "a", "--lat", "1s"],
        ["plan", "p", "a"],
        ["plan", "p", "--tokens", "0"],
        ["bench", "p", "--format", "xml"],
    ],
)
def test_bad_usage_exits_with_2_and_shows_the_usage(cli: Cli, argv: list[str]) -> None:
    answer = cli(*argv)
    assert answer.code == 2
    assert answer.err.startswith("usage: sti")
    assert answer.out == ""


def test_storage_that_fails_is_one_line_and_exit_code_2(
    cli: Cli, tiny_pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise StorageError("disk: Input/output error")

    monkeypatch.setattr("sti.storage.file_reader.FileReader.read", fails)
    answer = cli("run", tiny_pack, "a", "--fidelity", 4)
    assert (answer.code, answer.out, answer.err) == (2, "", "sti run: disk: Input/output error\n")


def test_a_full_disk_is_a_failure_and_leaves_nothing(
    cli: Cli, tiny_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("sti.storage.atomic_file.os.replace", full)
    answer = cli("run", tiny_pack, "a", "--fidelity", 4, "--trace", tmp_path / "trace.json")
    assert answer.code == 2
    assert "No space left" in answer.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize(
    ("argv", "name"),
    [
        (["run", "{}", "the dog", "--fidelity", "4", "--json"], "sti run"),
        (["run", "{}", "--fidelity", "4", *["the dog"] * 1000], "sti run"),  # more than a buffer
        (["--help"], "sti"),
    ],
)
def test_a_full_disk_under_standard_output_is_one_line(
    tiny_pack: Path, argv: list[str], name: str
) -> None:
    with open("/dev/full", "wb") as full:
        ended = subprocess.run(
            [sys.executable, "-m", "sti", *(item.format(tiny_pack) for item in argv)],
            stdout=full,
            stderr=subprocess.PIPE,
            env={**os.environ, **ENVIRONMENT, "PYTHONUNBUFFERED": ""},
            check=False,
            timeout=60,
        )
    said = f"{name}: standard output: No space left on device\n"
    assert (ended.returncode, ended.stderr.decode()) == (2, said)


def run_with(pack: Path, redirection: str) -> subprocess.CompletedProcess[bytes]:
    """What `sti run` gives under a shell's redirection."""
    return subprocess.run(
        f"{sys.executable} -m sti run {pack} hello --fidelity 2 {redirection}",
        shell=True,
        capture_output=True,
        env={**os.environ, **ENVIRONMENT},
        check=False,
        timeout=60,
    )


def test_an_answer_without_a_standard_error_to_write_to_is_a_success(tiny_pack: Path) -> None:
    ended = run_with(tiny_pack, "2>&-")
    assert ended.returncode == 0 and ended.stdout.startswith(b"1  hello")
    assert b"plan:" not in ended.stdout


def test_an_answer_without_a_standard_output_is_one_line(tiny_pack: Path) -> None:
    ended = run_with(tiny_pack, ">&-")
    assert (ended.returncode, ended.stderr) == (2, b"sti: standard output: it is closed\n")


def test_without_memory_it_says_what_would_take_less(
    cli: Cli, tiny_pack: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object, **__: object) -> None:
        raise MemoryError

    monkeypatch.setattr("sti.engine.engine.Engine.stream", fails)
    answer = cli("run", tiny_pack, "a", "--fidelity", 4)
    assert (answer.code, answer.out) == (1, "")
    assert "fewer texts at once" in answer.err
    assert "less --memory or --preload" in answer.err


def test_ctrl_c_ends_in_one_line(tiny_pack: Path) -> None:
    child = process(["run", str(tiny_pack)], stdin=subprocess.PIPE)
    assert child.stdin is not None
    wait_until_it_reads(child.pid)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert (child.returncode, out, err) == (130, b"", b"sti run: interrupted\n")


def test_a_reader_that_goes_away_is_no_error_worth_a_word(tiny_pack: Path) -> None:
    child = process(["run", str(tiny_pack), "--fidelity", "4", "--json"], stdin=subprocess.PIPE)
    assert child.stdin is not None
    assert child.stdout is not None
    assert child.stderr is not None
    child.stdout.close()
    child.stdin.write(b"the dog\n")
    child.stdin.close()
    err = child.stderr.read()
    child.stderr.close()
    assert (child.wait(60), err) == (141, b"")


def test_an_unwritable_cache_is_a_notice(
    cli: Cli, tiny_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    answer = cli("run", tiny_pack, "the dog", "--json")
    assert answer.json["bytes_read"] > 0
    assert "sti: notice: measurements cannot be kept" in answer.err


# ---- plan


def test_a_plan_is_a_table_of_every_step(cli: Cli, tiny_pack: Path) -> None:
    answer = cli("plan", tiny_pack, "--tokens", 16, "--latency", "5s", "--preload", "4KB")
    assert answer.code == 0
    for part in ("layer", "slices at bits", "attention", "ffn", "4@8", "limited by", "predicted"):
        assert part in answer.out
    assert sum(line.lstrip().startswith(("0  ", "1  ")) for line in answer.out.splitlines()) == 4


@pytest.mark.parametrize(
    "command", [("plan",), ("bench", "--repeat", 1, "--cold-repeat", 1)], ids=lambda c: c[0]
)
def test_more_tokens_than_the_model_takes_are_cut_with_a_notice(
    cli: Cli, tiny_pack: Path, command: tuple[object, ...]
) -> None:
    with PackReader.open(tiny_pack) as reader:
        most = reader.manifest.dimensions.max_tokens
    options = (tiny_pack, *command[1:], "--fidelity", 4, "--json", "--tokens")
    answer = cli(command[0], *options, 5000)
    assert f"sti: notice: --tokens 5000 was cut to {most} tokens" in answer.err
    found = answer.json
    if command[0] == "plan":
        assert found["workload"]["tokens"] == most
        assert "notice" not in cli(command[0], *options, most).err
    else:
        assert f"1 x {most} tokens" in found["workload"]


def test_a_saved_plan_is_followed(cli: Cli, tiny_pack: Path, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    made = cli("plan", tiny_pack, "--fidelity", 3, "--output", path, "--json").json
    plan = Plan.from_json(made, where="test")
    assert plan.predicted is not None
    assert Plan.from_text(path.read_text(encoding="utf-8"), where="test") == plan
    followed = cli("run", tiny_pack, "the dog", "--plan", path, "--json").json["plan"]
    assert Plan.from_json(followed, where="test") == plan


def test_an_impossible_target_says_which_limit_and_by_how_much(cli: Cli, tiny_pack: Path) -> None:
    answer = cli("plan", tiny_pack, "--latency", "1us")
    refused(answer, "latency")
    assert re.search(r"\d (us|ms)", answer.err)


def test_a_plan_that_cannot_be_made_names_the_workload_asked_for(cli: Cli, tiny_pack: Path) -> None:
    refused(cli("plan", tiny_pack, "--tokens", 32, "--latency", "1us"), "with 1 text of 32 tokens")


# ---- bench, calibrate, doctor


def test_bench_measures_cold_and_warm_runs(cli: Cli, tiny_pack: Path) -> None:
    options = ("--tokens", 8, "--repeat", 2, "--cold-repeat", 1, "--fidelity", 4)
    found = cli("bench", tiny_pack, *options, "--json").json
    assert found["machine"] == machine_line()
    assert [(row["case"], row["kind"]) for row in found["rows"]] == [
        ("4 bits", "cold"),
        ("4 bits", "warm"),
        ("4 bits", "sequential"),
    ]
    for row in found["rows"]:
        assert row["bytes_read"] == found["rows"][0]["bytes_read"]
        assert row["total_ms"] >= row["ideal_ms"] > 0
        assert row["p95_ms"] >= row["total_ms"]
    for row in found["rows"][1:]:
        assert set(row["busy_ms"]) == set(row["roofline_ms"]) == {"storage", "decode", "compute"}
        assert all(least > 0 for least in row["roofline_ms"].values())
        assert max(row["roofline_ms"].values()) / 2 < row["roofline_run_ms"]
        assert row["roofline_run_ms"] <= sum(row["roofline_ms"].values()) + 0.002
    cold = found["rows"][0]
    assert cold["roofline_ms"]["storage"] is cold["roofline_run_ms"] is None
    assert cold["total_ms"] == pytest.approx(cold["open_ms"] + cold["run_ms"])
    assert cold["peak_bytes"] > cold["growth_bytes"] > 0


def test_bench_on_emulated_storage_measures_warm_runs_only(cli: Cli, tiny_pack: Path) -> None:
    found = cli("bench", tiny_pack, "--repeat", 1, "--storage", "2MB/s:1ms", "--json").json
    assert {row["kind"] for row in found["rows"]} == {"warm", "sequential"}
    assert found["storage"].endswith("slowed down to 2.00 MB/s and 1.00 ms per request")
    for row in found["rows"]:
        assert row["busy_ms"]["storage"] >= row["bytes_read"] / 2e6 * 1e3 * 0.9
    refused(cli("bench", tiny_pack, "--storage", "floppy"), "--storage must be one of microsd")


def test_bench_compares_the_plan_with_every_uniform_fidelity(cli: Cli, tiny_pack: Path) -> None:
    options = ("--tokens", 8, "--repeat", 1, "--cold-repeat", 1, "--latency", "5s")
    lines = cli("bench", tiny_pack, *options, "--format", "csv").out.splitlines()
    assert lines[0].startswith("case,kind,runs,total_ms,p95_ms")
    cases = [line.split(",")[0] for line in lines[1:]]
    assert set(cases) == {"planned", "2 bits", "3 bits", "4 bits", "6 bits", "8 bits"}
    assert len(cases) == 18


def test_bench_prints_a_table_under_a_machine_line(cli: Cli, tiny_pack: Path) -> None:
    options = ("--tokens", 8, "--repeat", 1, "--cold-repeat", 1, "--fidelity", 2)
    out = cli("bench", tiny_pack, *options).out
    assert out.startswith("machine: ")
    first, _, roofs = out.partition("ideal: what it would take")
    assert "roofline of the run ms" in roofs and "2 bits |" in roofs
    assert [line.split("|")[2].strip() for line in first.splitlines() if "2 bits |" in line] == [
        "cold",
        "warm",
        "sequential",
    ]


def test_calibrate_measures_remembers_and_lists(
    cli: Cli, tiny_pack: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert "nothing measured yet" in cli("calibrate").out
    refused(cli("calibrate", tiny_pack, "--threads", 10_000), "threads")
    refused(cli("calibrate", "--threads", 1), "name the pack")
    answer = cli("calibrate", tiny_pack, "--threads", 1)
    assert "1 compute thread will be used" in answer.out
    assert "sti: notice: measuring this device" in answer.err
    assert len(list((tmp_path / "sti").glob("threads-*.json"))) == 1
    listed = cli("calibrate", "--json").json["profiles"]
    assert [profile["threads"] for profile in listed] == [1]
    run = cli("run", tiny_pack, "the dog", "--json")
    assert run.json["process"]["threads"] == 1
    assert run.err == ""


@pytest.mark.parametrize(
    ("run_s", "best"),
    [({1: 1.0}, 1), ({1: 1.0, 2: 0.99}, 1), ({1: 1.0, 2: 0.9, 4: 0.89}, 2), ({1: 0.5, 2: 0.9}, 1)],
)
def test_more_threads_are_chosen_only_where_they_pay(run_s: dict[int, float], best: int) -> None:
    assert choose(run_s) == best


def test_doctor_tells_rates_versions_and_advice(cli: Cli, tiny_pack: Path) -> None:
    found = cli("doctor", tiny_pack, "--json").json
    assert found["versions"]["onnxruntime"]
    assert found["pack"]["id"]
    rates = found["storage"]["bytes_per_s"]
    assert all(rate > 0 for rate in rates.values())
    assert "65536" in rates
    out = cli("doctor", tiny_pack).out
    assert found["kernel"] == {"path": kernel_path(), "error": None}
    assert f"kernel    {kernel_path()}, on {found['instructions']} instructions" in out
    for part in ("device", "cores", "memory", "versions", "cache", "pack", "64 KiB"):
        assert part in out


def test_doctor_needs_no_pack(cli: Cli) -> None:
    found = cli("doctor", "--json").json
    assert len(found["storage"]["bytes_per_s"]) == 5
    assert found["cache"]["writable"]


def test_doctor_says_what_is_missing_and_what_to_do(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("", encoding="utf-8")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for module in (
        "sti.backend.onnxruntime.compute",
        "sti.backend.onnxruntime.library",
        "sti.backend.onnxruntime.release",
        "sti.backend.onnxruntime.session",
    ):
        monkeypatch.delitem(sys.modules, module, raising=False)
    monkeypatch.setattr(host, "memory", lambda: host.Memory(10**9, 10**8))
    out = cli("doctor").out
    assert "onnxruntime missing" in out
    assert "pip install onnxruntime" in out
    assert "XDG_CACHE_HOME" in out
    assert "100 MB of memory is free" in out


@pytest.mark.parametrize("path", ["portable", "avx2"])
def test_doctor_says_how_to_get_the_kernel_where_it_is_missing(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setattr(doctor, "kernel_path", lambda: path)
    found = cli("doctor", "--json").json
    assert found["kernel"] == {"path": path, "error": None}
    assert any("compiler" in item for item in found["advice"]) == (path == "portable")
    monkeypatch.setenv("STI_KERNEL", "portable")  # asked for, so nothing is missing
    assert not any("compiler" in item for item in cli("doctor", "--json").json["advice"])


def test_doctor_works_where_the_kernel_asked_for_is_not_to_be_had(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> str:
        raise BackendError("no such path: neon")

    monkeypatch.setattr(doctor, "kernel_path", refuse)
    out = cli("doctor").out
    assert "kernel    none" in out
    assert "weights cannot be decoded: no such path: neon" in out


def test_a_missing_library_is_named_with_the_way_to_install_it(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    for module in (
        "sti.backend.onnxruntime.compute",
        "sti.backend.onnxruntime.library",
        "sti.backend.onnxruntime.release",
        "sti.backend.onnxruntime.session",
        "sti.engine.engine",
        "sti.engine.open_engine",
        "sti.engine.core",
        "sti.calibration.calibrate",
        "sti.cli.run",
    ):
        monkeypatch.delitem(sys.modules, module, raising=False)
    said = f"the Python package onnxruntime is missing: {install_hint('onnxruntime')}"
    answer = cli("run", "pack", "a")
    assert (answer.code, answer.out, answer.err) == (2, "", f"sti run: {said}\n")
    assert cli("run", "pack", "a", "--json").error == {
        "kind": "ModuleNotFoundError",
        "message": said,
        "exit_code": 2,
    }


def test_every_command_explains_itself_with_examples(cli: Cli) -> None:
    for command in ("run", "plan", "report", "bench", "calibrate", "doctor"):
        answer = cli(command, "--help")
        assert (answer.code, answer.err) == (0, "")
        assert f"sti {command} " in answer.out
        assert "examples:" in answer.out


def test_the_version_is_printed(cli: Cli) -> None:
    assert cli("--version").out == f"sti {sti.__version__}\n"


def test_doctor_tells_a_release_of_onnxruntime_that_lets_packs_read_any_file(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sti.backend.onnxruntime.release.ort_version", lambda: "1.23.2")
    assert "- onnxruntime is older than 1.24.1, and lets packs read any file: " in cli("doctor").out
