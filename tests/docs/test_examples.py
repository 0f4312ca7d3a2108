"""The examples do what they say, as a user would run them: as processes, from their source."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from xml.etree import ElementTree

import pytest

import sti
from sti.model.manifest import Manifest, Submodel
from sti.model.quality import Quality, Rejection
from tests.support.checkpoints import LABELS
from tests.support.drawings import check_layout, texts_of
from tests.support.edited_packs import edited
from tests.support.packs import PROFILE, SHAPE, TEXTS, tiny_pack
from tests.support.paths import ROOT

EXAMPLES = ROOT / "examples"
OUTSIDE = "out of scope"

Started = Callable[..., subprocess.Popen[str]]


def with_measurements(manifest: Manifest) -> Manifest:
    """A submodel of one layer, an accuracy for every loss, a threshold nothing reaches."""
    return manifest._replace(
        quality=Quality("accuracy", 400, 0.005, (0.0, 1.0), (0.96, 0.5)),
        rejection=Rejection(OUTSIDE, 1.0, 0.95, (0.0,), (0.99,)),
        submodels=(*manifest.submodels, Submodel(1, SHAPE.heads, (1,), 0.5)),
    )


@pytest.fixture(scope="module")
def ranked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier that knows its accuracy and finds every text out of scope."""
    path = tmp_path_factory.mktemp("ranked") / "ranked.sti.safetensors"
    return edited(tiny_pack("classification"), path, with_measurements)


@pytest.fixture
def start(tmp_path: Path) -> Started:
    """Starts an example in an empty directory, warnings being errors."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
    environment.pop("PYTHONUNBUFFERED", None)  # whether lines come at once is the example's affair

    def begin(name: str, *argv: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, EXAMPLES / f"{name}.py", *map(str, argv)],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return begin


def ended(child: subprocess.Popen[str], given: str = "") -> tuple[int, str, str]:
    out, err = child.communicate(given, timeout=60)
    return child.returncode, out, err


# ---- intent_loop


def test_each_line_is_answered_with_the_plan_beside_what_happened(start: Started) -> None:
    pack = tiny_pack("classification")
    code, out, err = ended(start("intent_loop", pack, "--latency", "10s"), "the dog\n\na cat\n")
    assert code == 0, err
    lines = out.splitlines()
    assert [line.split()[0] in LABELS for line in lines] == [True, False, True, False]
    for line in lines[1::2]:
        assert "target 10000.0" in line and "planned" in line and "MB read" in line
        assert "expected accuracy" not in line
    assert err.splitlines()[-1].startswith("2 answered; 2 within 10000.0 ms (100 %); median ")


def test_json_lines_hold_the_whole_answer(start: Started, ranked: Path) -> None:
    options = ("--latency", "10s", "--preload", "1KB", "--json")
    code, out, err = ended(start("intent_loop", ranked, *options), "\n".join(TEXTS))
    assert code == 0, err
    found: list[dict[str, Any]] = [json.loads(line) for line in out.splitlines()]
    assert [item["text"] for item in found] == list(TEXTS)
    with sti.Engine.open(
        ranked, latency="10s", preload="1KB", profile=PROFILE, threads=1
    ) as engine:
        for item in found:
            label, best, *_ = engine.classify([item["text"]])[0]
            assert (item["intent"], item["best_guess"]) == (label.name, best.name)
            assert item["score"] == pytest.approx(best.score, abs=1e-6)
    for item in found:
        assert item["intent"] == OUTSIDE and item["accepted"] is False
        assert item["threshold"] == 0.99 and item["target_ms"] == 10_000
        assert item["in_time"] is True and item["total_ms"] > 0 and item["expected_ms"] > 0
        assert item["bytes_read"] > 0 and (item["depth"], item["width"]) == (3, 4)
        assert 0.9575 <= item["expected_quality"]["value"] <= 0.96
        assert item["expected_quality"]["low"] < 0.9575 and item["expected_quality"]["high"] > 0.96
    assert "4 of them out of scope" in err


def test_out_of_scope_and_expected_accuracy_are_shown(start: Started, ranked: Path) -> None:
    code, out, err = ended(start("intent_loop", ranked), "the dog\n")
    assert code == 0, err
    first, second = out.splitlines()
    assert first.startswith(f"{OUTSIDE}  (best guess ") and first.endswith(", below 0.990)")
    assert "expected accuracy 96.0 %" in second and "target" not in second
    assert "within" not in err


def test_lines_come_from_a_file_too(start: Started, tmp_path: Path) -> None:
    (tmp_path / "lines.txt").write_text("the dog\na cat\n", encoding="utf-8")
    pack = tiny_pack("classification")
    code, out, _ = ended(start("intent_loop", pack, "--input", "lines.txt", "--json"))
    assert code == 0
    assert len(out.splitlines()) == 2


def test_ctrl_c_ends_the_loop_with_a_summary(start: Started) -> None:
    child = start("intent_loop", tiny_pack("classification"), "--json")
    assert child.stdin is not None and child.stdout is not None
    child.stdin.write("the dog\n")
    child.stdin.flush()
    assert json.loads(child.stdout.readline())["text"] == "the dog"
    child.send_signal(signal.SIGINT)
    code, out, err = ended(child)
    assert (code, out) == (130, "")
    assert "1 answered" in err and "Traceback" not in err


def test_answers_nobody_reads_end_the_loop_quietly(start: Started) -> None:
    child = start("intent_loop", tiny_pack("classification"), "--json")
    assert child.stdout is not None
    child.stdout.close()
    _, err = child.communicate("the dog\n" * 3, timeout=60)
    assert child.returncode == 141
    assert "Error" not in err and "error" not in err


def test_no_lines_give_a_summary_of_none(start: Started) -> None:
    code, out, err = ended(start("intent_loop", tiny_pack("classification"), "--latency", "9s"))
    assert (code, out) == (0, "")
    assert err.splitlines()[-1] == "0 answered"


@pytest.mark.parametrize(
    ("task", "options", "said"),
    [
        ("embedding", [], "a pack for embedding has no intents"),
        ("classification", ["--latency", "1us"], "cannot be met"),
        ("classification", ["--latency", "soon"], "latency"),
        ("classification", ["--input", "missing.txt"], "missing.txt"),
        ("classification", ["--beside", "no-such-command"], "no-such-command"),
        ("classification", ["--beside", "an 'open quote"], "quotation"),
    ],
)
def test_the_loop_refuses_in_one_line(
    start: Started, task: Any, options: list[str], said: str
) -> None:
    code, out, err = ended(start("intent_loop", tiny_pack(task), *options))
    assert (code, out) == (2, "")
    last = err.splitlines()[-1]
    assert last.startswith("error: ") and said in last
    assert "Traceback" not in err


def loop_module() -> Any:
    """The example as a module, to be fed with times that no machine has to keep."""
    from importlib.util import module_from_spec, spec_from_file_location

    spec = spec_from_file_location("intent_loop", EXAMPLES / "intent_loop.py")
    assert spec is not None and spec.loader is not None
    module = module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def test_late_answers_are_told_and_counted(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    module = loop_module()
    times = iter([10.0, 31.5, 20.0, 30.0])

    def answer(_: object, text: str) -> dict[str, Any]:
        if text == "long":
            raise sti.InfeasibleError("too long", limit="latency", asked=1, needed=2)
        spent = next(times)
        late = f"late by {spent - 30.0:.1f} ms" if spent > 30.0 else None
        found = {"total_ms": spent, "target_ms": 30.0, "in_time": late is None}
        return {**found, "late": late, "accepted": True}

    monkeypatch.setattr(module, "answer", answer)
    tally = module.Tally()
    module.loop(None, iter(["a", "b", "long", " ", "c", "d"]), tally, as_json=True)
    out, err = capsys.readouterr()
    assert len(out.splitlines()) == 4
    assert err.splitlines() == ["late by 1.5 ms", "not answered: too long"]
    tally.take(
        SimpleNamespace(replans=1, adapted=0, causes={"reading": 1}),
        SimpleNamespace(replans=3, adapted=1, causes={"reading": 2, "decoding": 3}),
    )
    assert tally.summary() == (
        "4 answered; 1 not answered; 3 within 30.0 ms (75 %); median 25.0 ms, p95 31.5 ms, "
        "p99 31.5 ms; plan changed 2 times; planes left out in 1 run; "
        "late because of decoding (3), reading (1)"
    )


@pytest.mark.parametrize(("count", "p95"), [(1, 1), (2, 2), (19, 19), (20, 19), (100, 95)])
def test_the_95th_percentile_leaves_out_one_in_20(count: int, p95: int) -> None:
    tally = loop_module().Tally(times_ms=[float(value) for value in range(count, 0, -1)])
    assert f", p95 {p95}.0 ms, p99 " in tally.summary()


@pytest.mark.parametrize(("given", "options"), [(True, ["--input", "lines.txt"]), (False, [])])
def test_so_many_lines_are_answered_beside_a_command(
    start: Started, tmp_path: Path, given: bool, options: list[str]
) -> None:
    (tmp_path / "lines.txt").write_text("the dog\n\na cat\n", encoding="utf-8")
    argv = [*options, "--lines", "5", "--latency", "10s", "--json", "--beside", "sleep 1000"]
    code, out, err = ended(start("intent_loop", tiny_pack("classification"), *argv))
    assert code == 0, err
    texts = [json.loads(line)["text"] for line in out.splitlines()]
    assert len(texts) == 5
    if given:
        assert texts == ["the dog", "a cat", "the dog", "a cat", "the dog"]
    else:
        assert set(texts) == set(loop_module().SAMPLE[:5])
    assert err.splitlines()[-1].startswith("5 answered; 5 within")


def test_a_command_beside_is_kept_running_and_ended(tmp_path: Path) -> None:
    place = tmp_path / "ran"
    with loop_module().Neighbour(f"sh -c 'echo >> {place}'") as beside:
        while beside.ended < 2:
            beside.keep()
    assert len(place.read_text().splitlines()) >= 2
    with loop_module().Neighbour("sleep 1000"):
        pass  # would not end in the time of a test


def test_a_command_that_fails_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    with loop_module().Neighbour("sh -c 'exit 3'") as beside:
        while not beside.ended:
            beside.keep()
        beside.keep()
    assert capsys.readouterr().err == "beside: `sh -c 'exit 3'` failed with code 3\n"
    assert beside.ended == 1


# ---- draw_frontier


def test_the_frontier_is_a_table_and_a_drawing(
    start: Started, ranked: Path, tmp_path: Path
) -> None:
    options = ("--tokens", 8, "--points", 4, "--preload", "0", "--preload", "2KB")
    code, out, err = ended(start("draw_frontier", ranked, *options, "-o", "frontier.svg"))
    assert code == 0, err
    lines = out.splitlines()
    assert [line for line in lines if not line.startswith(" ")] == [
        "preload 0 B; expected accuracy, %",
        "preload 2.00 KB; expected accuracy, %",
    ]
    for part in (lines[1:5], lines[6:10]):
        assert "1 layer, 4 slices" in part[0] and "3 layers, 4 slices" in part[-1]
        values = [float(line.split()[2]) for line in part]
        # Fewer bytes may cost half the residual of .5 points, at every latency.
        assert all(after >= before - 0.25 for before, after in pairwise(values))
        assert 95.75 <= values[-1] <= 96.0 and values[0] < 80
    drawing = ElementTree.parse(tmp_path / "frontier.svg").getroot()
    assert drawing.tag.endswith("svg")
    texts = {element.text for element in drawing.iter() if element.tag.endswith("text")}
    assert {"full model", "preload 2.00 KB", "expected accuracy, %"} <= texts


def test_the_frontier_needs_a_ranked_pack(start: Started) -> None:
    code, out, err = ended(start("draw_frontier", tiny_pack("classification")))
    assert (code, out) == (2, "")
    assert "sti-shard rank" in err.splitlines()[-1] and "Traceback" not in err


# ---- draw_fidelities


def test_the_fidelities_of_a_plan_are_a_map_of_each_kind_of_block(
    start: Started, ranked: Path, tmp_path: Path
) -> None:
    code, out, err = ended(start("draw_fidelities", ranked, "--tokens", 8, "-o", "map.svg"))
    assert code == 0, err
    drawing = ElementTree.parse(tmp_path / "map.svg").getroot()
    texts = {element.text for element in drawing.iter() if element.tag.endswith("text")}
    assert {"attention", "ffn", "8 bits"} <= texts
    assert "expected accuracy" in out.splitlines()[0]


def test_a_plan_that_cannot_be_drawn_is_told(start: Started, ranked: Path) -> None:
    code, out, err = ended(start("draw_fidelities", ranked, "--latency", "1us"))
    assert (code, out) == (1, "")
    assert "cannot be met" in err and "Traceback" not in err


# ---- draw_timeline


def test_the_timeline_shows_every_lane_and_what_colours_mean(
    start: Started, tmp_path: Path
) -> None:
    code, out, err = ended(start("draw_timeline", tiny_pack(), "the dog", "--runs", 3))
    assert (code, out) == (0, "timeline.svg\n"), err
    drawn = (tmp_path / "timeline.svg").read_text(encoding="utf-8")
    check_layout(drawn)
    said = {text.said for text in texts_of(drawn)}
    assert {"storage", "decode", "compute", "attention", "FFN"} <= said
    assert "0 ffn 0" in drawn
