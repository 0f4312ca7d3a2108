"""What the pipeline asks of a back end, and a back end of a pack: protocols only.

No import of onnxruntime: whoever writes another back end implements these.
"""

from __future__ import annotations

from typing import Any, Protocol

from numpy.typing import NDArray

from sti.backend.block_bytes import BlockBytes
from sti.backend.weight_buffer import WorkingBuffer
from sti.model.manifest import Manifest
from sti.planning.jobs import BlockJob


class ResidentTensors(Protocol):
    """What graphs are made from: a pack, or copies of its resident tensors."""

    @property
    def manifest(self) -> Manifest:
        """What the pack says about itself."""

    def resident(self, name: str) -> NDArray[Any]:
        """A resident tensor; always the same memory for a name."""

    def has_resident(self, name: str) -> bool:
        """Whether there is one of this name."""


class BlockDecoder(Protocol):
    """Decodes blocks on one thread."""

    def decode(
        self, job: BlockJob, data: BlockBytes, out: WorkingBuffer, *, part: int, parts: int
    ) -> None:
        """Decode every ``parts``-th group of the job's shards, starting with group ``part``."""
