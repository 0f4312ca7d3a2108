"""`sti bench --against`: other systems beside ours, in processes of their own. Nothing is timed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.common import text_of
from sti.benchmark.comparison import IN_A_ROW, Figures, compare, try_system
from sti.benchmark.comparison_rows import nothing_to_compare_with
from sti.benchmark.runs import p95
from sti.benchmark.system_child import System
from sti.benchmark.system_process import Spec
from sti.cli.main import main
from sti.errors import RunError
from sti.pack.pack_reader import PackReader
from tests.support.packs import tiny_bert


@pytest.fixture(scope="module")
def place() -> Path:
    return tiny_bert()


def spec_of(pack: Path, **options: object) -> Spec:
    with PackReader.open(pack) as reader:
        text, ids = text_of(reader, 12)
    return Spec(str(pack), (text,), (tuple(map(int, ids)),), 1, dict(options))


def test_every_system_answers_the_same_texts(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = [str(place / "models" / name) for name in ("fp32.onnx", "int8.onnx")]
    options = ["--fidelity", "8", "--tokens", "12", "--batch", "2", "--repeat", "2", "--json"]
    options += ["--threads", "1", "--cold-repeat", "1", "--against", models[0]]
    assert main(["bench", str(place / "pack"), *options, "--against", models[1]]) == 0
    found = json.loads(capsys.readouterr().out)
    rows = {row["system"]: row for row in found["rows"]}
    assert list(rows) == [
        "STI",
        "STI, all cores",
        "STI, load then execute",
        *("fp32.onnx", "fp32.onnx, all cores", "int8.onnx", "int8.onnx, all cores"),
    ]
    for row in rows.values():
        assert row["failed"] is None
        assert row["cold_ms"] > row["open_ms"] > 0 and row["warm_ms"] > 0
        assert row["cosine"] > 0.98
        assert row["peak_growth_bytes"] > 0
    assert rows["fp32.onnx"]["cosine"] == 1.0
    assert rows["STI"]["cold_bytes_read"] > 0


def test_a_model_that_cannot_answer_is_refused_before_anything_is_measured(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def measuring(*_: object, **__: object) -> None:
        raise AssertionError("measured")

    monkeypatch.setattr("sti.cli.against.compare", measuring)
    monkeypatch.setattr("sti.engine.machine.load_or_measure", measuring)
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    models = ["--against", str(place / "models" / "fp32.onnx"), "--against", str(broken)]
    assert main(["bench", str(place / "pack"), "--latency", "5s", *models, "--json"]) == 2
    said = capsys.readouterr()
    error = json.loads(said.out)["error"]
    assert (error["kind"], error["exit_code"]) == ("InputError", 2)
    assert error["message"].startswith(f"--against {broken}: it cannot be run beside the pack: ")
    assert "refused by onnxruntime" in error["message"]
    assert said.err == f"sti bench: {error['message']}\n"


def failing(system: System) -> Figures:
    return Figures(system, failed=f"{system.name}: its process ended: killed")


def test_a_comparison_with_nothing_left_to_compare_is_an_error(place: Path) -> None:
    spec = spec_of(place / "pack")
    ours, theirs, others = (System(name, "m", spec, ()) for name in ("STI", "a.onnx", "b.onnx"))
    error = nothing_to_compare_with([Figures(ours), failing(theirs), failing(others)])
    assert error is not None and error.exit_code == 1
    assert str(error).endswith("a.onnx: its process ended: killed")
    assert nothing_to_compare_with([Figures(ours), failing(theirs), Figures(others)]) is None
    assert nothing_to_compare_with([failing(ours), Figures(theirs)]) is None
    assert nothing_to_compare_with([failing(ours)]) is None


def test_a_report_without_any_other_system_is_printed_and_the_exit_code_is_not_zero(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def compared(systems: Sequence[System], **_: object) -> list[Figures]:
        return [
            failing(system) if system.name.startswith("fp32") else Figures(system)
            for system in systems
        ]

    monkeypatch.setattr("sti.cli.against.compare", compared)
    options = [str(place / "pack"), "--fidelity", "2", "--tokens", "8"]
    options += ["--against", str(place / "models" / "fp32.onnx")]
    assert main(["bench", *options]) == 1
    said = capsys.readouterr()
    assert "| STI " in said.out and "| fp32.onnx" not in said.out
    assert "no figures: fp32.onnx: its process ended: killed" in said.out
    assert said.err.startswith("sti bench: no other system could be measured: fp32.onnx: ")
    assert main(["bench", *options, "--json"]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["error"]["kind"] == "RunError"
    assert [row["failed"] is None for row in document["rows"] if "STI" in row["system"]]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--against", "nowhere.onnx"], "there is no such model"),
        (["--against", "fp32.onnx", "--storage", "emmc"], "leave out --storage"),
        (["--against", "fp32.onnx", "--plan", "x.json"], "leave out --storage, --plan"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    place: Path, capsys: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    options = [str(place / "models" / item) if item.endswith(".onnx") else item for item in options]
    assert main(["bench", str(place / "pack"), *options]) == 2
    assert said in capsys.readouterr().err


def test_one_that_fails_does_not_keep_the_others_from_being_measured(place: Path) -> None:
    spec = spec_of(place / "pack", fidelity=2)
    bad = System(
        "bad", "sti.benchmark.systems.sti_pack", replace(spec, file=str(place / "no pack")), ()
    )
    absent = System("absent", "sti.benchmark.systems.nothing", spec, ())
    good = System("good", "sti.benchmark.systems.sti_pack", spec, (place / "pack",))
    said: list[str] = []
    found = compare([bad, absent, good], cold=1, warm=2, progress=said.append)
    assert "no pack: cannot be opened" in found[0].failed
    assert "No module named sti.benchmark.systems.nothing" in found[1].failed
    assert not found[2].failed and len(found[2].cold_s) == 1
    assert (len(found[2].rested_s), len(found[2].warm_s)) == (2, 2 * IN_A_ROW)
    assert len(said) == 3 + 2


def test_a_system_may_have_a_command_before_it_and_little_time(place: Path) -> None:
    spec = spec_of(place / "pack", fidelity=2)
    plain = System("plain", "sti.benchmark.systems.sti_pack", spec, ())
    try_system(replace(plain, before=("env",), answer_s=60.0))
    with pytest.raises(RunError, match="plain: its process ended: exit code 1"):
        try_system(replace(plain, before=("false",)))
    with pytest.raises(RunError, match=r"plain: no answer within 0\.01 s"):
        try_system(replace(plain, answer_s=0.01))


def test_trying_a_system_says_why_it_cannot_answer(place: Path) -> None:
    spec = spec_of(place / "pack", fidelity=2)
    try_system(System("good", "sti.benchmark.systems.sti_pack", spec, ()))
    absent = System("absent", "sti.benchmark.systems.nothing", spec, ())
    with pytest.raises(RunError, match=r"absent: its process ended: .*No module named"):
        try_system(absent)


def test_a_pack_is_opened_within_the_memory_that_is_asked_for(place: Path) -> None:
    spec = spec_of(place / "pack", fidelity=2, memory="1B")
    with pytest.raises(RunError, match="a memory of 1 B is not enough"):
        try_system(System("tight", "sti.benchmark.systems.sti_pack", spec, ()))


def test_the_same_engine_one_lane_after_the_other_gives_the_same_answer(place: Path) -> None:
    systems = [
        System(
            mode,
            "sti.benchmark.systems.sti_pack",
            spec_of(place / "pack", fidelity=4, mode=mode),
            (),
        )
        for mode in ("planned", "sequential")
    ]
    one, other = compare(systems, cold=1, warm=0)
    assert one.answer is not None and other.answer is not None
    np.testing.assert_array_equal(one.answer, other.answer)


def test_answers_of_other_shapes_are_not_compared(place: Path) -> None:
    system = System("one", "sti.benchmark.systems.sti_pack", spec_of(place / "pack"), ())
    one = Figures(system, answer=np.ones((1, 4)))
    assert one.cosine(Figures(system, answer=np.ones((1, 5)))) is None
    assert one.cosine(Figures(system)) is None
    assert one.cosine(one) == pytest.approx(1.0)


def test_the_95th_percentile_is_a_sample() -> None:
    assert p95([1.0]) == 1.0
    assert p95([float(n) for n in range(1, 101)]) == 95.0
