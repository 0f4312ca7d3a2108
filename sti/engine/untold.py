"""What is to be told with the next result: of the pack's file, and of texts that are too long.

In: an open pack, the plan of each run. Out: notices. What a run that fails had to tell is told by
the next one. Not thread-safe.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from sti.engine.inputs import Batch
from sti.errors import PackCorruptError
from sti.model.workload import Workload
from sti.pack.pack_reader import PackReader
from sti.planning.plan import Plan


class Untold:
    """The notices of one engine.

    Args:
        reader: the pack.
    """

    def __init__(self, reader: PackReader) -> None:
        self._reader = reader
        self._notices: list[str] = []
        self._told: set[tuple[Workload, Workload]] = set()
        """For which sizes it was said that a pinned plan was made for another one."""

    def note_length(self, plan: Plan, batch: Batch) -> None:
        """Note, once for each size, texts that are longer than a pinned plan was made for."""
        from sti.engine.pinned_plan import longer_than_planned  # few targets bring a plan

        most = self._reader.manifest.dimensions.max_tokens
        found = longer_than_planned(plan, batch, most=most)
        if found is not None and (plan.workload, found[0]) not in self._told:
            self._told.add((plan.workload, found[0]))
            self._notices.append(found[1])

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Refuse a file that is changed before or during a run; note one that is replaced.

        Raises:
            PackCorruptError: it was changed.
        """
        self._look()
        try:
            yield
        except PackCorruptError:
            self._look()  # what was changed looks damaged, and has another remedy
            raise
        self._look()

    def take(self) -> tuple[str, ...]:
        """What is to be told now."""
        found = tuple(self._notices)
        self._notices.clear()
        return found

    def _look(self) -> None:
        notice = self._reader.check_unchanged()
        if notice is not None:
            self._notices.append(notice)
