"""Benchmarks. Their runs are not those of a user, and are kept in no history."""

from __future__ import annotations

import os

from sti.calibration.history_file import OFF, VARIABLE

os.environ[VARIABLE] = OFF
