"""All that is fuzzed, by name."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache

from tests.fuzz import graphs, messages, offline, packs, plans, settings, tokenizers
from tests.fuzz.names import NAMES
from tests.fuzz.target import Target


@cache
def all_targets() -> Mapping[str, Target]:
    """The targets by name."""
    found = [
        target
        for module in (packs, graphs, tokenizers, settings, plans, messages, offline)
        for target in module.targets()
    ]
    assert sorted(NAMES) == sorted(target.name for target in found)
    return {target.name: target for target in found}
