"""Times and sizes as people write them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sti.errors import InputError
from sti.units import (
    exact_share,
    exact_size,
    exact_time,
    format_size,
    format_time,
    parse_share,
    parse_size,
    parse_time,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("200ms", 0.2),
        ("1.5s", 1.5),
        (" 2 s ", 2.0),
        ("750us", 750e-6),
        (".5S", 0.5),
        ("1.ms", 0.001),
    ],
)
def test_times_are_read_as_seconds(text: str, seconds: float) -> None:
    assert parse_time(text) == pytest.approx(seconds, rel=1e-12)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4MB", 4_000_000),
        ("512KB", 512_000),
        ("512 kb", 512_000),
        ("2MiB", 2 * 2**20),
        ("1.5GiB", 3 * 2**29),
        ("1TB", 10**12),
        ("0.5tib", 2**39),
        ("0", 0),
        ("0B", 0),
        ("17B", 17),
    ],
)
def test_sizes_are_read_as_bytes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "value",
    [
        *("", "ms", "200", "200m", "-1s", "1e3s", "1,5s", "0s", "0", "nan s", "1 0s", "٣s"),
        *("9" * 400 + "s", 0, 3, 0.25, -1.0, float("nan"), float("inf"), True, None, b"1s"),
    ],
)
def test_what_is_not_a_time_is_refused_by_name(value: object) -> None:
    with pytest.raises(InputError, match="--latency must be a time"):
        parse_time(value, name="--latency")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "value",
    ["", "MB", "4M", "4 parsecs", "-4MB", "1e6", "9" * 400, "17", 0, 4096, -1, 1.5, True, None],
)
def test_what_is_not_a_size_is_refused_by_name(value: object) -> None:
    with pytest.raises(InputError, match="--preload must be a size"):
        parse_size(value, name="--preload")  # type: ignore[arg-type]


def test_a_time_without_unit_says_what_to_write() -> None:
    with pytest.raises(InputError, match='found \'200\': it has no unit; write "200ms" or "200s"'):
        parse_time("200")


@pytest.mark.parametrize(
    ("value", "spelled"),
    [
        ("4000000", '"4000000B" or "4MB"'),
        (4_000_000, '"4000000B" or "4MB"'),
        ("4096", '"4096B" or "4KiB"'),
        (17, '"17B"'),
        (0, '"0B"'),
    ],
)
def test_a_size_without_unit_says_what_to_write(value: object, spelled: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_size(value)  # type: ignore[arg-type]
    assert str(caught.value).endswith(f"found {value!r}: it has no unit; write {spelled}")
    first = spelled.split('"')[1]
    assert parse_size(first) == int(str(value))


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
    assert parse_size(f"{size}B") == size
    assert parse_size(exact_size(size)) == size


@given(st.floats(1e-7, 1e6))
def test_an_exact_time_is_read_back_to_the_bit(seconds: float) -> None:
    assert parse_time(exact_time(seconds)) == seconds


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.03, "30ms"), (1.5, "1.5s"), (750e-6, "750us"), (0.1 + 0.2, "0.30000000000000004s")],
)
def test_an_exact_time_is_short_where_it_can_be(seconds: float, text: str) -> None:
    assert exact_time(seconds) == text


@pytest.mark.parametrize(
    ("size", "text"), [(0, "0B"), (12_345, "12345B"), (4096, "4KiB"), (2_000_000, "2MB")]
)
def test_an_exact_size_has_the_largest_unit_that_fits(size: int, text: str) -> None:
    assert exact_size(size) == text


@given(st.floats(1e-6, 1e6))
def test_a_shown_time_is_read_back_within_its_digits(seconds: float) -> None:
    assert parse_time(format_time(seconds)) == pytest.approx(seconds, rel=6e-3)


@given(st.integers(0, 10**14))
def test_a_shown_size_is_read_back_within_its_digits(size: int) -> None:
    assert parse_size(format_size(size)) == pytest.approx(size, rel=6e-3)


@pytest.mark.parametrize(
    ("text", "share"), [("98%", 0.98), (" 99.9 % ", 0.999), ("100%", 1.0), (".5%", 0.005)]
)
def test_shares_have_a_percent_sign(text: str, share: float) -> None:
    assert parse_share(text) == share
    assert parse_share(exact_share(share)) == share


@pytest.mark.parametrize(
    "value", ["98", 0.98, True, None, "0%", "101%", "-1%", "nan%", "1e1%", "%"]
)
def test_what_is_no_share_is_refused(value: object) -> None:
    with pytest.raises(InputError, match="floor must be a share in percent, such as 95%"):
        parse_share(value, name="floor")


def test_a_number_is_refused_with_the_right_spelling() -> None:
    with pytest.raises(InputError, match='write "95%"'):
        parse_share(0.95, name="floor")


@given(st.floats(1e-6, 1.0))
def test_shares_read_back_to_the_bit(share: float) -> None:
    assert parse_share(exact_share(share)) == share
