"""What runs take beyond their price, for one price and for many."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sti.planning.extra_time import LEAST_OF_PRICE, Extra

SECONDS = st.floats(-1.0, 1.0)
PRICES = st.lists(st.floats(1e-4, 10.0), min_size=1, max_size=6)


@given(st.builds(Extra, SECONDS, SECONDS, st.floats(0.0, 1.0)), PRICES)
def test_many_prices_take_what_each_takes(extra: Extra, prices: list[float]) -> None:
    found = extra.totals_s(np.array(prices))
    assert found == pytest.approx([extra.total_s(price) for price in prices], rel=1e-9)
    assert all(total >= LEAST_OF_PRICE * price for total, price in zip(found, prices, strict=True))


def test_shorter_runs_take_as_much_less_of_what_is_shared_and_longer_ones_no_more() -> None:
    extra = Extra(shared_s=0.4, own_s=0.1, reference_s=2.0)
    assert extra.total_s(1.0) == pytest.approx(1.0 + 0.2 + 0.1)
    assert extra.total_s(2.0) == pytest.approx(2.0 + 0.4 + 0.1)
    assert extra.total_s(8.0) == pytest.approx(8.0 + 0.4 + 0.1)
