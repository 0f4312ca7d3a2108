"""Names of the lanes: what works side by side in a run. Pure.

Whatever is told by lane (profiles, plans, predictions, traces, timings) is a mapping from these
names, so that a lane can be added or left out without another field anywhere.
"""

from __future__ import annotations

STORAGE, DECODE, COMPUTE = "storage", "decode", "compute"

LANES = (STORAGE, DECODE, COMPUTE)
"""In the order in which a block passes through them."""
