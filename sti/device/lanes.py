"""Names of the lanes: the parts of a run that work in parallel. Pure.

Everything that is stated per lane (profiles, plans, predictions, traces, timings) is a mapping from
these names, so that a lane can be added or left out without adding a field anywhere.
"""

from __future__ import annotations

STORAGE, DECODE, COMPUTE = "storage", "decode", "compute"

LANES = (STORAGE, DECODE, COMPUTE)
"""In the order in which a step passes through them."""
