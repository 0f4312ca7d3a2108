"""Asking another process: its answer, its notices and its errors arrive as they were there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from sti import errors
from sti.device.other_process import ask
from sti.errors import InfeasibleError, InputError, LimitError, PeerLostError, RunError, StiError
from tests.support.processes import interpreter

KINDS = [
    kind
    for kind in vars(errors).values()
    if isinstance(kind, type)
    and issubclass(kind, StiError)
    and kind not in (InfeasibleError, LimitError, PeerLostError)  # which have fields
]


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Asks a module whose work is the given lines; gives what it answers and told."""
    monkeypatch.syspath_prepend(tmp_path)

    def ask_it(*lines: str, told: list[str] | None = None, patience_s: float = 60.0) -> Any:
        body = "\n".join(f"    {line}" for line in lines)
        (tmp_path / "serving.py").write_text(
            "import sys, time\n"
            "from sti import errors\n"
            "from sti.device.process_answers import serve\n\n"
            f"def work(job, notify):\n{body}\n\nserve(work)\n",
            encoding="utf-8",
        )
        return ask(
            "serving",
            {"words": "dog"},
            what="answering",
            remedy="do without",
            patience_s=patience_s,
            notify=str if told is None else told.append,
        )

    return ask_it


def test_answers_and_notices_arrive_in_order_and_nothing_else_does(served: Any) -> None:
    told: list[str] = []
    found = served(
        "notify('first')",
        "print('no notice')",
        "notify('zwei\\nä')",
        "return [job, None, 'x' * 300_000]",
        told=told,
    )
    assert found == [{"words": "dog"}, None, "x" * 300_000]
    assert told == ["first", "zwei\nä"]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_errors_arrive_with_their_type_and_text(served: Any, kind: type[StiError]) -> None:
    with pytest.raises(StiError) as caught:
        served(f"raise errors.{kind.__name__}('layer 2: \"no\"\\nfree some')")
    assert type(caught.value) is kind
    assert str(caught.value) == 'layer 2: "no"\nfree some'


def test_errors_arrive_with_their_fields_after_the_notices(served: Any) -> None:
    told: list[str] = []
    with pytest.raises(InfeasibleError, match=r"^too late$") as caught:
        served(
            "notify('slow')",
            "raise errors.InfeasibleError('too late', limit='latency', asked=0.5, needed=1.5)",
            told=told,
        )
    assert (caught.value.limit, caught.value.asked, caught.value.needed) == ("latency", 0.5, 1.5)
    assert told == ["slow"]


def test_other_errors_name_the_last_line_and_the_remedy(served: Any) -> None:
    told: list[str] = []
    with pytest.raises(RunError, match="answering failed: KeyError: 'cat'; do without") as caught:
        served("notify('hm')", "return job['cat']", told=told)
    assert type(caught.value) is RunError and told == ["hm"]


@pytest.mark.parametrize(
    "written",
    [
        "nothing",
        "[]",
        "{}",
        '{"answer": 1, "notice": 2}',
        '{"error": {"type": "StiError"}}',
        '{"error": {"type": "KeyError", "message": "m", "fields": {}}}',
        '{"error": {"type": "annotations", "message": "m", "fields": {}}}',
        '{"error": {"type": "RunError", "message": "m", "fields": {"depth": 3}}}',
        '{"error": 3}',
    ],
)
def test_what_is_no_answer_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, written: str
) -> None:
    monkeypatch.setattr(sys, "executable", interpreter(tmp_path, f"echo '{written}'"))
    with pytest.raises(RunError, match=r"answering gave no answer: .*; do without"):
        ask("any", {}, what="answering", remedy="do without", patience_s=60.0, notify=str)


def test_a_process_that_takes_too_long_is_ended_and_its_notices_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = """echo '{"notice": "slow today"}'\nexec sleep 1000"""
    monkeypatch.setattr(sys, "executable", interpreter(tmp_path, words))
    told: list[str] = []
    with pytest.raises(RunError, match="took over 1 s; do without"):
        ask("any", {}, what="answering", remedy="do without", patience_s=1.0, notify=told.append)
    assert told == ["slow today"]


def test_input_errors_are_not_taken_for_what_is_no_json(served: Any) -> None:
    with pytest.raises(InputError, match=r"^bad$"):
        served("raise errors.ConfigError('bad')")
