"""Packs that mean harm, by kind: what is changed in a sound one before its checksums are made good.

In: the kinds by what they attack. Out: all of them. Knows nothing of processes.
"""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.security_harms import Kind
from benchmarks.security_hostile_header import HEADER
from benchmarks.security_hostile_manifest import MANIFEST
from benchmarks.security_hostile_residents import RESIDENTS
from benchmarks.security_hostile_tables import TABLES
from benchmarks.security_hostile_tokenizer import TOKENIZER
from benchmarks.security_hostile_weights import WEIGHTS

KINDS: Mapping[str, Kind] = {**HEADER, **MANIFEST, **TOKENIZER, **TABLES, **RESIDENTS, **WEIGHTS}
"""By name."""
