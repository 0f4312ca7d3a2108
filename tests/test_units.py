"""Times and sizes as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sti.errors import InputError
from sti.units import format_size, format_time, parse_size, parse_time


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("200ms", 0.2),
        ("1.5s", 1.5),
        (" 2 s ", 2.0),
        ("750us", 750e-6),
        (".5S", 0.5),
        ("1.ms", 0.001),
        (0.25, 0.25),
        (3, 3.0),
    ],
)
def test_times_are_read_as_seconds(text: str | float, seconds: float) -> None:
    assert parse_time(text) == pytest.approx(seconds, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4MB", 4_000_000),
        ("512KB", 512_000),
        ("512 kb", 512_000),
        ("2MiB", 2 * 2**20),
        ("1.5GiB", 3 * 2**29),
        ("0", 0),
        ("17", 17),
        ("17B", 17),
        (0, 0),
        (4096, 4096),
    ],
)
def test_sizes_are_read_as_bytes(text: str | int, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "value",
    [
        *("", "ms", "200", "200m", "-1s", "1e3s", "1,5s", "0s", "0", "nan s", "1 0s", "٣s"),
        *("9" * 400 + "s", 0, -1.0, float("nan"), float("inf"), True, None, b"1s"),
    ],
)
def test_what_is_not_a_time_is_refused_by_name(value: object) -> None:
    with pytest.raises(InputError, match="--latency must be a time"):
        parse_time(value, name="--latency")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "value", ["", "MB", "4M", "4 parsecs", "-4MB", "1e6", "9" * 400, -1, 1.5, True, None]
)
def test_what_is_not_a_size_is_refused_by_name(value: object) -> None:
    with pytest.raises(InputError, match="--preload must be a size"):
        parse_size(value, name="--preload")  # type: ignore[arg-type]


def test_a_time_without_unit_says_that_the_unit_is_missing() -> None:
    with pytest.raises(InputError, match="no unit"):
        parse_time("200")


def test_a_long_value_is_cut_in_the_message() -> None:
    with pytest.raises(InputError) as caught:
        parse_time("x" * 10_000)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0.00 ms"),
        (0.0561, "56.1 ms"),
        (1.234, "1.23 s"),
        (7.5e-6, "7.50 us"),
        (0.12345, "123 ms"),
        (12.34, "12.3 s"),
    ],
)
def test_times_are_shown_with_three_digits(seconds: float, text: str) -> None:
    assert format_time(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0 B"), (999, "999 B"), (2_100_000, "2.10 MB"), (83_512_345, "83.5 MB")]
)
def test_sizes_are_shown_with_three_digits(size: int, text: str) -> None:
    assert format_size(size) == text


@given(st.integers(0, 10**15))
def test_a_size_survives_the_way_through_text(size: int) -> None:
    assert parse_size(str(size)) == size
    assert parse_size(f"{size}B") == size


@given(st.floats(1e-6, 1e6))
def test_a_shown_time_is_read_back_within_its_digits(seconds: float) -> None:
    assert parse_time(format_time(seconds)) == pytest.approx(seconds, rel=6e-3)


@given(st.integers(0, 10**14))
def test_a_shown_size_is_read_back_within_its_digits(size: int) -> None:
    assert parse_size(format_size(size)) == pytest.approx(size, rel=6e-3)
