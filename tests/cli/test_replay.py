"""Runs that are repeated from their trace, and what `sti run` says of late planes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sti
from sti.engine.replay import Recording, trace_document
from sti.model.quality import Estimate
from sti.planning.plan import Plan
from tests.engine.test_late_planes import late
from tests.support.commands import Cli
from tests.support.packs import TEXTS, tiny_pack


def written(place: Path, pack_id: str, *results: sti.Result) -> Path:
    path = place / "trace.json"
    path.write_text(json.dumps(trace_document(pack_id, results)))
    return path


def test_a_trace_is_replayed_bit_for_bit(cli: Cli, tmp_path: Path) -> None:
    pack_id, result = late()
    path, pack = written(tmp_path, pack_id, result), tiny_pack("classification")
    answer = cli("run", pack, TEXTS[0], "--replay", path, "--json")
    assert answer.code == 0, answer.err
    found = answer.json
    np.testing.assert_array_equal(np.float32(found["logits"]), result.logits)
    assert Plan.from_json(found["plan"], where="plan").steps == result.plan.steps
    assert found["met"] is None and found["downgrades"] == []
    with sti.Engine.open(pack, fidelity=2, threads=1) as engine:
        (again,) = Recording.read(path).replay(engine, TEXTS[:1])
    np.testing.assert_array_equal(again.logits, result.logits)


def test_a_trace_that_the_command_wrote_is_replayed_batch_by_batch(
    cli: Cli, tmp_path: Path
) -> None:
    pack = tiny_pack("classification")
    lines, path, again = tmp_path / "texts", tmp_path / "trace.json", tmp_path / "again.json"
    lines.write_text("".join(f"{TEXTS[number % 4]}\n" for number in range(40)))
    first = cli("run", pack, "--input", lines, "--fidelity", 3, "--json", "--trace", path).json
    runs = Recording.read(path).runs
    assert [run.texts for run in runs] == [32, 8]
    found = cli("run", pack, "--input", lines, "--replay", path, "--json", "--trace", again).json
    assert found["logits"] == first["logits"] and len(found["batches"]) == 2
    assert Recording.read(again).runs == runs


@pytest.fixture(scope="module")
def recorded() -> dict[str, Any]:
    """What a trace file holds."""
    with sti.Engine.open(tiny_pack("classification"), fidelity=2, threads=1) as engine:
        return json.loads(json.dumps(trace_document(engine.pack_id, [engine.run(TEXTS[:2])])))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda found: found.pop("sti"), "a trace without a recording"),
        (lambda found: found["sti"].update(pack="0" * 16), "of another pack (0000000000000000)"),
        (lambda found: found["sti"].update(recording=99), "recording version 99, from a newer STI"),
        (lambda found: found["sti"].update(runs=[]), "the recording has no runs"),
        (lambda found: found["sti"].update(runs=7), "'runs' must be a list"),
        (lambda found: found["sti"]["runs"][0].pop("plan"), "expected an object"),
        (lambda found: found["sti"]["runs"][0].update(texts=0), "'texts' must be an integer"),
        (lambda found: found["sti"]["runs"][0].update(texts=3), "of 3 texts, found 2"),
        (lambda found: found["sti"]["runs"][0].update(tokens=99), "of texts of 99 tokens"),
        (
            lambda found: found["sti"]["runs"][0]["plan"]["steps"].pop(),
            "not the slice groups of the submodel",
        ),
    ],
)
def test_a_trace_that_cannot_be_replayed_says_why(
    cli: Cli, tmp_path: Path, recorded: dict[str, Any], change: Any, told: str
) -> None:
    document = json.loads(json.dumps(recorded))
    change(document)
    path = tmp_path / "trace.json"
    path.write_text(json.dumps(document))
    answer = cli("run", tiny_pack("classification"), *TEXTS[:2], "--replay", path)
    assert answer.code == 2
    assert told in answer.err and str(path) in answer.err and not answer.out


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "cannot read the trace: No such file"),
        (b"{", "not a trace: invalid JSON"),
        (b"[]", "a trace without a recording"),
        (b"\xff\xfe", "not text in UTF-8"),
        (b"[" * 100_000, "not a trace: invalid JSON"),
    ],
)
def test_a_file_that_is_no_trace_is_refused(
    cli: Cli, tmp_path: Path, content: bytes | None, told: str
) -> None:
    path = tmp_path / "trace.json"
    if content is not None:
        path.write_bytes(content)
    answer = cli("run", tiny_pack("classification"), "a", "--replay", path)
    assert answer.code == 2 and told in answer.err


def test_a_replay_decides_what_to_run(cli: Cli, tmp_path: Path) -> None:
    answer = cli("run", tiny_pack("classification"), "a", "--replay", tmp_path, "--latency", "1s")
    assert answer.code == 2 and "--replay and --latency exclude each other" in answer.err


def test_sti_run_says_in_a_phrase_what_was_left_out_to_be_in_time(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, result = late()
    result = replace(result, quality=Estimate("accuracy", 0.958, 0.9, 1.0))
    monkeypatch.setattr("sti.engine.core.EngineCore.run", lambda *_: result)
    monkeypatch.setattr("sti.engine.batches.Batches.results", lambda *_: iter([result]))
    err = cli("run", tiny_pack("classification"), TEXTS[0], "--fidelity", 8).err
    steps = len({item.step for item in result.downgrades})
    told = f"left out to be in time: planes of {steps} of {len(result.plan.steps)} steps"
    assert f"{told}, expected accuracy 95.8 %" in err
