"""The benchmark of configurations: what it asks of refusals, and what it has."""

from __future__ import annotations

import pytest

from benchmarks.checkpoint_config_cases import Case
from benchmarks.checkpoint_config_refused import REFUSED
from benchmarks.checkpoint_config_supported import SUPPORTED
from benchmarks.checkpoint_configs import LEAST_CONFIGS, Found, refusal, report_of


def test_there_are_enough_configurations_each_of_its_own() -> None:
    cases = (*SUPPORTED, *REFUSED)
    assert len({case.name for case in cases}) == len(cases) >= LEAST_CONFIGS
    assert all(case.refused for case in REFUSED)
    assert not any(case.refused for case in SUPPORTED)


@pytest.mark.parametrize(
    ("refused", "told", "right"),
    [
        ("alibi", "DIR: alibi is not supported", True),
        ("alibi", "DIR: unknown positions", False),
        ("alibi", "DIR: alibi\nis not supported", False),
        ("", "DIR: alibi is not supported", False),
    ],
)
def test_a_refusal_is_right_where_it_names_in_one_line_what_is_not_supported(
    refused: str, told: str, right: bool
) -> None:
    assert refusal(Case("x", "Bert", refused=refused), told).right == right


def test_one_that_differs_is_short_of_the_limits() -> None:
    found = [Found("a", "equal", 1e-6, 0.999), Found("b", "another answer", 1e-6, 0.9)]
    rows = report_of(found).tables[0].rows
    assert [row[-1] for row in rows] == ["SHORT", "SHORT", "met", "SHORT", "met"]
