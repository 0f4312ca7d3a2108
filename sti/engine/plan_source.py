"""Where the plans of a target come from, as an interface."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from sti.engine.prepared import PreparedPlan
from sti.model.workload import Workload


class Source(Protocol):
    """Where the plans of a target come from."""

    @property
    def replans(self) -> int:
        """How often a workload went over to another plan."""

    @property
    def changes(self) -> bool:
        """Whether plans follow the machine."""

    def prepare(self, workload: Workload, asked: Workload, *, running: bool) -> PreparedPlan:
        """The plan for a run of this workload now."""

    def ahead(
        self, last: Workload | None, usual: Sequence[Workload]
    ) -> Sequence[Callable[[], object]]:
        """Jobs that make ready for the next run, on any thread."""

    def forget(self) -> None:
        """Give back the memory of what can be made anew."""
