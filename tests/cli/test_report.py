"""``sti report``: one whole page that says what ``sti plan`` says, and how runs went."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import sti
from sti.calibration.cache import Cache
from sti.calibration.history_file import history_files
from sti.pack.pack_reader import PackReader
from sti.report.wording import show_metric
from sti.units import format_size, format_time
from tests.support.commands import Cli, refused
from tests.support.pages import Page
from tests.support.paths import INTENTS, MINILM

SECTIONS = [
    *("expected", "frontier", "fidelities", "predicted", "measured"),
    *("limits", "memory", "machine", "kept"),
]
ASKED = ("--tokens", 16, "--latency", "10s")
NEVER = "This pack was not run on this machine yet"


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory; nothing was run before."""
    monkeypatch.chdir(tmp_path)
    for path in history_files(Cache()):
        path.unlink()
    return tmp_path


def made(cli: Cli, pack: Path, *options: object) -> Page:
    answer = cli("report", pack, *options, "-o", "-")
    assert answer.code == 0, answer.err
    return Page.read(answer.out)


@pytest.mark.parametrize(
    ("pack", "asked"),
    [
        (INTENTS, ASKED),
        (INTENTS, ("--tokens", 8, "--preload", "1MB")),
        (INTENTS, ("--fidelity", 4, "--batch", 3)),
        (INTENTS, ("--latency", "10s", "--quantile", "90%", "--floor", "90%")),
        (MINILM, ("--latency", "10s", "--preload", "1MB")),
        (MINILM, ()),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, tuple) else value.stem,
)
def test_a_page_is_whole_and_loads_nothing(cli: Cli, pack: Path, asked: tuple[object, ...]) -> None:
    page = made(cli, pack, *asked)
    assert page.ids == SECTIONS
    assert page.headings == ["h1", *["h2"] * len(SECTIONS)]
    assert not page.tags & {"script", "img", "link", "iframe", "object", "image", "use"}
    outside = [value for _, value in page.attributes if "//" in value]
    assert set(outside) <= {"http://www.w3.org/2000/svg"}
    assert not [name for name, _ in page.attributes if name in ("src", "href") or name[:2] == "on"]
    assert ("lang", "en") in page.attributes
    assert page.svgs >= 2 * 3
    assert page.svgs == sum(pair == ("role", "img") for pair in page.attributes)


def test_a_page_says_what_the_plan_says(cli: Cli) -> None:
    plan = cli("plan", INTENTS, *ASKED, "--json").json
    page = made(cli, INTENTS, *ASKED)
    predicted = plan["predicted"]
    for said in (
        format_time(predicted["total_s"]),
        format_size(predicted["bytes_read"]),
        show_metric("accuracy", predicted["quality"]["value"]),
        f"uses {plan['depth']} of",
    ):
        assert said in page.text


def test_the_document_holds_what_the_plan_and_its_explanation_say(cli: Cli) -> None:
    plan = cli("plan", INTENTS, *ASKED, "--explain", "--json").json
    report = cli("report", INTENTS, *ASKED, "--json").json
    assert report["output"] is None
    explanation, memory = plan.pop("explanation"), plan.pop("memory")
    plan.pop("version")
    assert report["plan"] == plan
    assert report["explanation"] == explanation
    points = report["frontier"]
    assert len(points) >= 8
    latencies = [point["latency_s"] for point in points]
    assert latencies == sorted(latencies) and len(set(latencies)) == len(latencies)
    losses = [point["loss"] for point in points]
    assert losses[-1] == plan["predicted"]["loss"]
    with PackReader.open(INTENTS) as reader:
        quality = reader.manifest.quality
    assert quality is not None
    for shorter, longer in pairwise(losses):  # more time may go into fewer bytes, if unnoticed
        assert longer <= quality.indistinct_from(shorter)
    assert [part["name"] for part in report["memory"]] == [part["name"] for part in memory]
    assert report["history"]["days"] == [] and report["history"]["last"] is None


def test_points_of_the_frontier_are_plans(cli: Cli) -> None:
    for point in cli("report", INTENTS, *ASKED, "--json").json["frontier"][1:9:3]:
        latency = f"{point['latency_s'] * 1e3!r}ms"
        plan = cli("plan", INTENTS, "--tokens", 16, "--latency", latency, "--json").json
        assert plan["predicted"]["loss"] == pytest.approx(point["loss"], rel=0.05, abs=1e-4)


def test_a_pack_that_was_never_run_says_so_and_how_to_run_it(cli: Cli) -> None:
    page = made(cli, INTENTS, *ASKED)
    assert page.text.count(NEVER) == 2
    assert f"sti run {INTENTS} 'a text' --latency 10s" in page.text


def test_runs_of_both_interfaces_are_told(cli: Cli) -> None:
    assert cli("run", INTENTS, "play some music", "--latency", "10s").code == 0
    with sti.Engine.open(INTENTS, latency="10s") as engine:
        engine.run(["set an alarm"])
    page = made(cli, INTENTS, *ASKED)
    assert NEVER not in page.text
    assert "Timeline, measured" in page.text
    assert "2 runs since" in page.text and "100.0 % were in time" in page.text
    document = cli("report", INTENTS, *ASKED, "--json").json["history"]
    (day,) = document["days"]
    assert sum(number for _, number in day["classes"]) == day["inside"] == 2
    assert document["last"]["lanes"]["compute"]


def test_planning_and_reports_are_no_runs(cli: Cli) -> None:
    cli("plan", INTENTS, *ASKED)
    made(cli, INTENTS, *ASKED)
    assert cli("run", INTENTS, "play", "--no-adapt").code == 0
    assert history_files(Cache()) == []


def test_runs_that_are_not_kept_are_told(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STI_HISTORY", "off")
    assert cli("run", INTENTS, "play some music").code == 0
    assert "STI_HISTORY is off" in made(cli, INTENTS, *ASKED).text


def test_a_damaged_history_is_told_and_the_rest_is_there(cli: Cli) -> None:
    assert cli("run", INTENTS, "play some music").code == 0
    (path,) = history_files(Cache())
    path.write_bytes(b"{")
    answer = cli("report", INTENTS, *ASKED, "-o", "-")
    assert answer.code == 0 and path.name in answer.err
    page = Page.read(answer.out)
    assert page.ids == SECTIONS and path.name in page.text
    assert "begins anew" in cli("run", INTENTS, "play some music").err


def change(path: Path, **changes: Any) -> None:
    """Change members of the last run that is kept."""
    document = json.loads(path.read_text())
    document["value"]["last"] |= changes
    path.write_text(json.dumps(document))


def test_what_a_file_says_is_escaped(cli: Cli) -> None:
    assert cli("run", INTENTS, "play some music").code == 0
    (path,) = history_files(Cache())
    hostile = "</text><script>alert(1)</script>"
    change(path, lanes={hostile: [[0.0, 0.1, f"{hostile}\x00"]]})
    page = made(cli, INTENTS, *ASKED)
    assert "script" not in page.tags
    assert hostile in page.text


def test_a_last_run_without_a_timeline_says_so(cli: Cli) -> None:
    assert cli("run", INTENTS, "play some music").code == 0
    (path,) = history_files(Cache())
    change(path, lanes={"compute": []}, ended_at=1e9)
    assert "too long for its timeline to be kept" in made(cli, INTENTS, *ASKED).text


def test_the_page_is_named_after_the_pack(cli: Cli, place: Path) -> None:
    answer = cli("report", INTENTS, *ASKED)
    name = f"{INTENTS.name.removesuffix('.sti.safetensors')}.html"
    assert answer.out == "" and f"saved to {name}" in answer.err
    assert Page.read((place / name).read_text(encoding="utf-8")).ids == SECTIONS
    assert cli("report", INTENTS, *ASKED).code == 0  # it replaces a page of its own


def test_with_json_the_document_is_printed_beside_a_page_that_was_asked_for(
    cli: Cli, place: Path
) -> None:
    assert cli("report", INTENTS, *ASKED, "--json", "-o", "a.html").json["output"] == "a.html"
    assert Page.read((place / "a.html").read_text(encoding="utf-8")).ids == SECTIONS


def test_another_file_is_replaced_on_demand_alone(cli: Cli, place: Path) -> None:
    (place / "thesis.html").write_text("years of work")
    refused(cli("report", INTENTS, *ASKED, "-o", "thesis.html"), "thesis.html", "--force")
    assert (place / "thesis.html").read_text() == "years of work"
    assert cli("report", INTENTS, *ASKED, "-o", "thesis.html", "--force").code == 0
    assert "years of work" not in (place / "thesis.html").read_text()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--json", "-o", "-"), "exclude each other"),
        (("-o", "missing/page.html"), "no such directory"),
        (("-o", "."), "is a directory"),
        (("--latency", "soon"), "latency"),
        (("--latency", "1us"), "cannot be met"),
    ],
    ids=str,
)
def test_bad_input_is_refused(cli: Cli, options: tuple[str, ...], said: str) -> None:
    answer = cli("report", INTENTS, *options)
    assert answer.code == 2 and said in answer.err
    assert os.listdir() == []


def test_other_machines_are_refused(cli: Cli) -> None:
    answer = cli("report", INTENTS, "--device", "paper-board")
    assert answer.code == 2 and "sti plan" in answer.err


def test_what_is_no_pack_is_refused(cli: Cli, place: Path) -> None:
    (place / "junk").write_bytes(b"junk")
    refused(cli("report", place / "junk"), "junk")
    assert not (place / "junk.html").exists()


def test_a_saved_plan_is_shown_beside_what_the_planner_would_choose(cli: Cli, place: Path) -> None:
    assert cli("plan", INTENTS, "--tokens", 16, "--fidelity", 3, "-o", "plan.json").code == 0
    report = cli("report", INTENTS, "--tokens", 16, "--plan", "plan.json", "--json").json
    assert report["plan"]["steps"] == json.loads((place / "plan.json").read_text())["steps"]
    assert report["explanation"]["targets"] == [] and len(report["frontier"]) >= 8


def test_the_doctor_says_whether_runs_are_kept(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli("run", INTENTS, "play some music").code == 0
    assert cli("doctor", "--json").json["history"] == {"kept": True, "packs": 1}
    assert "STI_HISTORY=off keeps none" in cli("doctor").out
    monkeypatch.setenv("STI_HISTORY", "off")
    assert cli("doctor", "--json").json["history"] == {"kept": False, "packs": 1}
    assert "not kept" in cli("doctor").out
