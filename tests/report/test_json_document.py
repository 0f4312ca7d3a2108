"""The JSON documents of the command lines."""

from __future__ import annotations

import json
import math

import pytest

from sti.errors import InfeasibleError, InputError, RunError
from sti.report.json_document import error_members, json_document
from sti.version import JSON_VERSION


def test_a_document_is_one_line_of_ascii_that_begins_with_its_version() -> None:
    text = json_document({"texts": ["über\n", "\ud800"]})
    assert text.startswith(f'{{"version": {JSON_VERSION}, ')
    assert text.isascii() and "\n" not in text
    assert json.loads(text)["texts"] == ["über\n", "\ud800"]


@pytest.mark.parametrize("value", [math.inf, math.nan])
def test_a_number_that_json_cannot_hold_is_an_error_instead_of_a_broken_document(
    value: float,
) -> None:
    with pytest.raises(RunError, match="cannot be written as JSON"):
        json_document({"embeddings": [[value]]})


def test_an_error_carries_the_limit_that_was_missed() -> None:
    error = InfeasibleError("too slow", limit="latency", asked=0.1, needed=0.2)
    assert error_members(error, "too slow", 2) == {
        "error": {
            "kind": "InfeasibleError",
            "message": "too slow",
            "exit_code": 2,
            "limit": "latency",
            "asked": 0.1,
            "needed": 0.2,
        }
    }


def test_a_limit_that_nothing_would_meet_is_null() -> None:
    error = InfeasibleError("never", limit="latency", asked=0.1, needed=math.inf)
    assert error_members(error, "never", 2)["error"]["needed"] is None
    json_document(error_members(error, "never", 2))


def test_an_error_without_a_limit_has_none() -> None:
    assert set(error_members(InputError("x"), "x", 2)["error"]) == {"kind", "message", "exit_code"}
