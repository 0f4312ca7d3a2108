"""Graphs that mean harm, made from sound ones.

In: the kinds by what they attack. Out: all of them, ``HOSTILE``: from a serialized graph of a pack
to one that a pack must not be used with. Most compute what the sound one does, with the harm beside
it.
"""

from __future__ import annotations

from collections.abc import Mapping

from benchmarks.security_graph_bytes import BYTES
from benchmarks.security_graph_changes import Harm
from benchmarks.security_graph_operators import OPERATORS
from benchmarks.security_graph_sizes import SIZES
from benchmarks.security_graph_structure import STRUCTURE

HOSTILE: Mapping[str, Harm] = {**OPERATORS, **SIZES, **STRUCTURE, **BYTES}
"""By kind. Any graph of a pack will do, and each must be refused."""
