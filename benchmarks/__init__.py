"""Benchmarks. Their runs are not those of a user, and are kept in no history."""

from __future__ import annotations

import os

from sti.calibration.cache import HISTORY_VARIABLE, OFF

os.environ[HISTORY_VARIABLE] = OFF
