"""Quantiles of the normal distribution, without the modules that ``statistics`` imports. Pure."""

from __future__ import annotations

from sti.model.quality import interpolate

_SHARES = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.975, 0.98, 0.99, 0.995, 0.998, 0.999)
_PLACES = (
    0.0,
    0.2533,
    0.5244,
    0.8416,
    1.2816,
    1.6449,
    1.96,
    2.0537,
    2.3263,
    2.5758,
    2.8782,
    3.0902,
)


def normal_quantile(share: float) -> float:
    """Standard deviations above the mean below which ``share`` of a normal distribution lies.

    From a table with straight lines between its rows, from the median to 0.999; beyond both ends as
    at them.
    """
    return interpolate(_SHARES, _PLACES, share)
