"""What runs have taken of memory and not given back, by part.

In: the parts of each run, how its texts are grouped. Out: what is taken in all once it has run.
Most of it grows to what the most demanding run takes, and stays; for each part that may be another
run. Pure.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import zip_longest

from sti.model.workload import Workload
from sti.planning.memory import RING, STATES, VALUES, MemoryPart


class MemoryTaken:
    """The memory of one engine's runs. Mutable.

    Memory that ONNX Runtime's arena has for values of one size is of little use for larger ones,
    and stays: a run that is larger in any way takes all of its own beside it.
    """

    def __init__(self) -> None:
        self._kept: dict[str, int] = {}
        self._places: list[int] = []
        """Tokens that the memory of each group's hidden states has room for."""
        self._arena = self._tokens = self._pairs = 0
        self.taken = self.unknown = 0
        """Bytes that runs took and did not give back; that the process grew by beside what is known
        of: results that the caller keeps, memory that is of no use again."""

    def after(self, parts: Sequence[MemoryPart], groups: Sequence[Workload]) -> int:
        """Bytes that are taken in all once such a run is through.

        Args:
            parts: of the run.
            groups: of its texts.
        """
        taken = {part.name: self._kept_with(part) for part in parts if part.name != VALUES}
        return sum((self._kept | taken).values()) + self._arena_with(parts, groups)

    def has_states(self, groups: Sequence[Workload]) -> bool:
        """Whether there is memory for the hidden states of all of these groups, so that it stays as
        it is. Where it would grow beside what other groups have, it is to be given back first.
        """
        tokens = _tokens(groups)
        rooms = zip(tokens, self._places, strict=False)
        return len(tokens) <= len(self._places) and all(count <= room for count, room in rooms)

    def states_are_given_back(self) -> None:
        """Take note that the memory of hidden states was."""
        self._places = []
        self._kept.pop(STATES, None)

    def note(self, parts: Sequence[MemoryPart], groups: Sequence[Workload]) -> int:
        """Take note of a run; as ``after``."""
        found = self.after(parts, groups)
        self._arena = self._arena_with(parts, groups)
        tokens, pairs = _extent(groups)
        self._tokens, self._pairs = max(tokens, self._tokens), max(pairs, self._pairs)
        mine = zip_longest(_tokens(groups), self._places, fillvalue=0)
        self._places = [max(found) for found in mine]
        for part in parts:
            if part.name != VALUES:
                self._kept[part.name] = self._kept_with(part)
        self.taken = found
        return found

    def compare(self, grown: int, beside: int, most: int) -> None:
        """Compare what is known with what the process grew by.

        Args:
            grown: bytes.
            beside: bytes of them that are known and not of runs.
            most: bytes; what is unknown beyond is taken for the caller's own.
        """
        if self.taken:
            self.unknown = min(max(0, grown - self.taken - beside), most)

    def arena_is_empty(self) -> None:
        """Take note that the arena gave all back."""
        self._arena = self._tokens = self._pairs = 0

    def all_is_given_back(self) -> None:
        """Take note that everything was."""
        self._kept.clear()
        self.states_are_given_back()
        self.arena_is_empty()
        self.taken = 0

    def _kept_with(self, part: MemoryPart) -> int:
        # The ring is made as large as each plan takes (sti.pipeline.runner).
        return part.size if part.name == RING else max(part.size, self._kept.get(part.name, 0))

    def _arena_with(self, parts: Sequence[MemoryPart], groups: Sequence[Workload]) -> int:
        values = sum(part.size for part in parts if part.name == VALUES)
        tokens, pairs = _extent(groups)
        fits = tokens <= self._tokens and pairs <= self._pairs
        return max(values, self._arena) if fits else self._arena + values


def _tokens(groups: Sequence[Workload]) -> list[int]:
    return [group.batch * group.tokens for group in groups]


def _extent(groups: Sequence[Workload]) -> tuple[int, int]:
    """The most tokens of a group, and the most pairs of tokens that attend to each other."""
    return max(_tokens(groups)), max(group.batch * group.tokens**2 for group in groups)
