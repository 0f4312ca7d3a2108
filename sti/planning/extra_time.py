"""What runs take beyond their price: seconds that are added, to one price or to many. Pure."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from sti.arrays import Float64Array

LEAST_OF_PRICE = 0.3
"""Share of its price that a run takes at least, whatever runs have shown."""


class Extra(NamedTuple):
    """Seconds of runs of a workload, under one kind of threads, beyond their price."""

    shared_s: float = 0.0
    """What runs of all workloads showed, whose price was about ``reference_s``."""
    own_s: float = 0.0
    """What those of this workload showed besides."""
    reference_s: float = 0.0
    """A run of a lower price takes as much less of what is shared; 0: of any price as much."""

    def share_of(self, price_s: float) -> float:
        """The share of ``shared_s`` that a run of this price takes."""
        return min(1.0, price_s / self.reference_s) if self.reference_s > 0.0 else 1.0

    def beyond_s(self, price_s: float) -> float:
        """Seconds that a run of this price takes besides."""
        return self.shared_s * self.share_of(price_s) + self.own_s

    def total_s(self, price_s: float) -> float:
        """Typical seconds of a run; never less than ``LEAST_OF_PRICE`` of the price."""
        return max(price_s + self.beyond_s(price_s), LEAST_OF_PRICE * price_s)

    def totals_s(self, price_s: Float64Array) -> Float64Array:
        """``total_s`` of many prices."""
        found = price_s + self.own_s
        if self.reference_s > 0.0:
            found += self.shared_s * np.minimum(1.0, price_s * (1.0 / self.reference_s))
        else:
            found += self.shared_s
        return np.maximum(found, LEAST_OF_PRICE * price_s)
