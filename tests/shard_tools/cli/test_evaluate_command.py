"""``sti-shard evaluate`` as a user meets it: tables, plots, files, and mistakes."""

from __future__ import annotations

import csv
import io
import json
import xml.etree.ElementTree as ET
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from shard_tools.cli.main import main
from shard_tools.evaluation import report, report_data
from shard_tools.evaluation.cells import Cell, Comparison, Entry, Evaluation, forecast, summarise
from shard_tools.evaluation.plots import as_svg
from shard_tools.evaluation.timing import Latency
from sti.model.quality import Estimate
from sti.version import JSON_VERSION
from tests.support.commands import Cli
from tests.support.drawings import check_layout
from tests.support.packs import PROFILE, tiny_pack
from tests.support.ranked_packs import ranked_pack, texts, write_data

SVG = "{http://www.w3.org/2000/svg}"


def entry(measured: float, *, name: str = "x", expected: float = 0.9) -> Entry:
    estimate = Estimate("accuracy", expected, expected - 0.02, expected + 0.02)
    latency = Latency(0.01, 0.012, measured=True)
    return Entry(name, 6, 12, 4.5, estimate, measured, latency, 1_000_000, 2_500_000)


def baseline(name: str, measured: float, plan: float, *, error: float = 0.01) -> Comparison:
    return Comparison(name, "with" not in name, entry(measured), "", plan - measured, error)


def cell(worth: float, measured: Mapping[str, float], **changes: Any) -> Cell:
    listed = tuple(baseline(name, value, worth) for name, value in measured.items())
    return replace(Cell(0.01, 0, entry(worth), None, listed), **changes)


NOTHING = Comparison("pipeline", True, None, "needs 1.00 s", None, None)

CELLS = (
    cell(0.90, {"in memory": 0.80, "pipeline with preload": 0.91}),
    cell(0.90, {"in memory": 0.93, "pipeline with preload": 0.94}, latency_s=0.02),
    cell(0.95, {"in memory": 0.945, "pipeline with preload": 0.95}, latency_s=0.04),
    cell(0.70, {}, baselines=(NOTHING,), preload_bytes=1000),
    cell(
        0.0, {}, plan=None, needed_s=0.5, baselines=(NOTHING,), latency_s=0.02, preload_bytes=1000
    ),
)
FOUND = Evaluation(
    pack="intents",
    pack_id="0" * 16,
    data="val.tsv",
    metric="accuracy",
    examples=400,
    truncated=0,
    tokens=16,
    device="a | device",
    jitter=1.2,
    runs=20,
    seed=0,
    full=entry(0.95, name="full model"),
    cells=CELLS,
    uniform=tuple(
        replace(entry(value), bits=bits, depth=depth)
        for depth in (3, 6)
        for bits, value in ((2.0, 0.80 + depth / 100), (8.0, 0.90 + depth / 100))
    ),
    forecast_plans=forecast([(Estimate("accuracy", 0.9, 0.88, 0.92), 0.95)]),
    forecast_all=None,
)


def test_the_best_baseline_is_the_one_measured_best() -> None:
    best = (
        CELLS[0].best(in_paper=True),
        CELLS[0].best(in_paper=False),
        CELLS[3].best(in_paper=False),
    )
    assert [item and item.name for item in best] == ["in memory", "pipeline with preload", None]


def test_a_summary_counts_cells_and_averages_the_hard_ones() -> None:
    paper = summarise(CELLS, 0.95, in_paper=True)
    assert (paper.compared, paper.beaten, paper.alone, paper.hard) == (3, 1, 1, 1)
    assert paper.advantage == pytest.approx(0.10)
    stronger = summarise(CELLS, 0.95, in_paper=False)
    assert (stronger.beaten, stronger.hard) == (1, 1)
    assert stronger.advantage == pytest.approx(-0.01)
    assert summarise(CELLS[2:3], 0.95, in_paper=True).advantage is None
    harder = [cell(0.80, {"in memory": value}) for value in (0.70, 0.79, 0.78)]
    found = summarise(harder, 0.95, in_paper=True)
    assert found.advantage == pytest.approx(0.13 / 3)
    assert found.median_advantage == pytest.approx(0.02)


def test_a_baseline_where_there_is_no_plan_wins() -> None:
    lonely = Cell(0.01, 0, None, 0.02, (Comparison("in memory", True, entry(0.5), "", None, None),))
    assert summarise([lonely], 0.95, in_paper=True).beaten == 1


def test_a_forecast_is_judged_by_its_mean_error_and_interval() -> None:
    near, far = Estimate("accuracy", 0.9, 0.88, 0.92), Estimate("accuracy", 0.8, 0.79, 0.81)
    judged = forecast([(near, 0.91), (far, 0.83)])
    assert judged is not None
    assert (judged.plans, judged.inside) == (2, 1)
    assert judged.mean_error == pytest.approx(0.02)
    assert forecast([]) is None


def test_markdown_tells_it_all() -> None:
    text = report.as_markdown(FOUND)
    assert "The full model, every shard at 4 bits: 95.0 % in 10.0 ms, reading 1.00 MB" in text
    assert "90.0 % (88.0 to 92.0 %)" in text
    assert "| needs 500 ms |" in text
    assert "+10.00 ± 1.00" in text
    assert "in 1 of 3 cells (in 1 more, none of them fits)" in text
    assert "is ahead by 10.00 points on average, 10.00 in the median." in text
    assert "| submodel | 8 bits | 2 bits |" in text
    assert "|   6 x 12 | 96.0 % | 86.0 % |\n|   3 x 12 | 93.0 % | 83.0 % |" in text
    for block in text.split("\n\n"):
        if block.startswith("|"):
            assert len({line.count(" | ") for line in block.splitlines()}) == 1
            assert len({len(line) for line in block.splitlines()}) == 1


def test_targets_that_were_kept_are_counted_where_the_clock_is_real() -> None:
    late = replace(CELLS[0], latency_s=0.011)
    assert replace(FOUND, cells=(late, CELLS[1], CELLS[4])).kept == (2, 2, 1)
    line = "the median meets the target in 4, the 95th percentile in 2"
    assert line in report.as_markdown(FOUND)
    assert line not in report.as_markdown(replace(FOUND, runs=0))


def test_csv_has_a_line_for_each_plan_and_baseline() -> None:
    rows = list(csv.DictReader(io.StringIO(report_data.as_csv(FOUND))))
    assert len(rows) == sum(1 + len(item.baselines) for item in CELLS)
    assert all(None not in row and None not in row.values() for row in rows)
    first, second = rows[:2]
    assert (first["name"], float(first["measured"]), first["plan_ahead"]) == ("plan", 0.9, "")
    assert (float(second["plan_ahead"]), second["in_paper"]) == (0.1, "true")
    assert int(second["memory_bytes"]) == 2_500_000
    assert [row["why_not"] for row in rows[-2:]] == ["needs 500 ms", "needs 1.00 s"]


def test_json_holds_everything() -> None:
    document = json.loads(report_data.as_json(FOUND))
    assert document["version"] == JSON_VERSION
    assert len(document["cells"]) == len(CELLS)
    assert document["cells"][4]["plan"] is None
    assert document["against_paper"]["beaten"] == 1
    assert document["full"]["measured"] == 0.95


def test_the_plot_is_svg_with_text_the_same_every_time() -> None:
    drawn = as_svg(FOUND)
    root = ET.fromstring(drawn)
    assert root.tag == f"{SVG}svg"
    said = {"".join(item.itertext()).strip() for item in root.iter(f"{SVG}text")}
    assert {"preload: none", "preload: 1.00 KB", "plan, measured", "full model"} <= said
    assert "accuracy on val.tsv, %" in said
    assert "latency target, ms" in said
    assert drawn == as_svg(FOUND)
    check_layout(drawn)
    simulated = as_svg(replace(FOUND, runs=0))
    assert "latency target (simulated), ms" in simulated


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with data and a device."""
    place = tmp_path_factory.mktemp("evaluate")
    write_data(place / "data.tsv", ranked_pack(), texts(40))
    (place / "device.json").write_text(json.dumps(PROFILE.to_json()))
    (place / "unknown.tsv").write_text("sentence\tlabel\nthe dog\tred\nthe cat\tpurple\n")
    (place / "ragged.tsv").write_text("sentence\tlabel\nthe dog\n")
    return place


def arguments(place: Path, **changes: str) -> list[str]:
    options = {
        "--data": str(place / "data.tsv"),
        "--targets": "1.6ms,20ms",
        "--device": str(place / "device.json"),
        **{f"--{key}": value for key, value in changes.items()},
    }
    return ["evaluate", str(ranked_pack()), *(part for item in options.items() for part in item)]


def test_it_prints_markdown(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(place, preload="0,4KB")) == 0
    said = capsys.readouterr()
    assert said.out.startswith("# checkpoint: plans and baselines\n")
    assert "| 1.60 ms | 4.00 KB |" in said.out
    assert "times are simulated" in said.out
    assert said.err == ""


@pytest.mark.parametrize("form", ["json", "csv", "svg"])
def test_other_formats_are_printed_alone(
    place: Path, form: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(place, format=form)) == 0
    said = capsys.readouterr().out
    if form == "json":
        assert json.loads(said)["examples"] == 40
    elif form == "csv":
        assert {row["latency_measured"] for row in csv.DictReader(io.StringIO(said))} == {"false"}
    else:
        assert ET.fromstring(said).tag == f"{SVG}svg"


def test_json_is_printed_beside_a_file_in_another_format(
    place: Path, tmp_path: Path, shard: Cli
) -> None:
    answer = shard(*arguments(place), "--json", "-o", tmp_path / "a.csv", "--quiet")
    assert answer.json["examples"] == 40
    assert answer.err == ""
    assert (tmp_path / "a.csv").read_text().startswith("latency_target_s,")


def test_files_get_the_format_of_their_names(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ("a.md", "a.json", "a.svg", "a.csv", "a")
    files = [part for name in names for part in ("-o", str(tmp_path / name))]
    assert main([*arguments(place), *files]) == 0
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.splitlines() == [f"saved to {tmp_path / name}" for name in names]
    json.loads((tmp_path / "a.json").read_text())
    ET.fromstring((tmp_path / "a.svg").read_text())
    assert (tmp_path / "a.csv").read_text().startswith("latency_target_s,")
    assert (tmp_path / "a.md").read_text() == (tmp_path / "a").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["-o", "plot.png"], "plot.png: .png is none of the formats md, csv, json, svg; name one"),
        (["--format", "json", "-o", "a.svg"], "a.svg: its name asks for svg, --format for json"),
    ],
)
def test_a_file_whose_name_and_format_do_not_go_together_is_refused(
    place: Path, options: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*arguments(place), *options]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"targets": "20"}, "--targets must be a time above zero"),
        ({"targets": "20ms,,40ms"}, "--targets must be a time above zero"),
        ({"preload": "1parsec"}, "--preload must be a size"),
        ({"data": "{}/unknown.tsv"}, "unknown.tsv: line 3: label 'purple' is unknown"),
        ({"data": "{}/ragged.tsv"}, "ragged.tsv: line 2: has 1 TAB-separated fields"),
        ({"data": "{}/none.tsv"}, "none.tsv: cannot be read"),
        ({"device": "{}/ragged.tsv"}, "ragged.tsv"),
        ({"tokens": "1"}, "--tokens must be at least 2"),
    ],
)
def test_a_users_mistake_is_one_line_and_exit_code_2(
    place: Path, changes: dict[str, str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    filled = {key: value.format(place) for key, value in changes.items()}
    assert main(arguments(place, **filled)) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("sti-shard evaluate: ")
    assert message in said.err
    assert said.err.count("\n") == 1


def test_a_pack_that_was_never_ranked_is_refused(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluated, _, *options = arguments(place)
    assert main([evaluated, str(tiny_pack("classification")), *options]) == 2
    assert "rank it first" in capsys.readouterr().err


def test_files_that_cannot_be_written_are_found_before_the_work(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "shard_tools.evaluation.evaluate.evaluate", lambda *_, **__: pytest.fail("worked")
    )
    assert main([*arguments(place), "-o", str(tmp_path / "no" / "x.md")]) == 2
    assert main([*arguments(place), "-o", str(tmp_path)]) == 2
    said = capsys.readouterr().err
    assert "no such directory" in said
    assert "is a directory" in said
    monkeypatch.setattr("os.access", lambda *_: False)  # a superuser may write everywhere
    assert main([*arguments(place), "-o", str(tmp_path / "x.md")]) == 2
    assert f"{tmp_path}: nothing can be written there" in capsys.readouterr().err


def test_help_has_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["evaluate", "--help"])
    assert caught.value.code == 0
    assert "  sti-shard evaluate intents.sti.safetensors --data" in capsys.readouterr().out
