"""Every error STI raises on purpose, in one tree.

    StiError
    |-- InputError            bad arguments, texts, options or configuration of the caller
    |   `-- ConfigError       a sti.toml that cannot be used
    |-- CheckpointError       a checkpoint that is missing, malformed or of an unsupported kind
    |-- PackError             a pack that cannot be used
    |   |-- PackFormatError   not a pack, or one of an unknown format version
    |   `-- PackCorruptError  truncated, changed while open, or with a wrong checksum
    |-- PlanError             a plan that cannot be made or does not fit the pack
    |   `-- InfeasibleError   the target cannot be met; says which limit, and by how much
    |-- ProfileError          a device profile that cannot be read or does not fit
    `-- RunError              a failure while running
        |-- LimitError        a limit that the system sets on this process is too low
        |-- StorageError      storage that fails under a read or a write
        |-- BackendError      the back end refused a graph or an input
        |-- GraphError        a plan cannot be held as a graph here
        |-- AnswerError       an answer that is not finite
        |-- PeerError         another device that cannot be reached or is refused
        |   |-- PeerLostError   one that was there and is gone
        |   `-- DeadlineError   one that was waited for in vain
        `-- ClosedError       an engine or an exchange that was closed

``exit_code`` is what the command lines return: 2 if the caller can fix it (input, a file that is
damaged or does not fit, storage that is full or unreadable), 1 for other failures. Notices that
stop nothing are ``StiWarning``. Messages name whichever of file, layer, group, slice and limit
apply, and end with a remedy. Errors of other libraries are translated at the edge and kept as
``__cause__``.
"""

from __future__ import annotations


class StiError(Exception):
    """Base of every error raised on purpose; copies, and goes to other processes, as it is."""

    exit_code = 2

    def __reduce__(self) -> tuple[object, ...]:
        # Python's own would call the class with the message alone, which some need more than.
        return _made_again, (type(self), self.args), self.__dict__


def _made_again(kind: type[StiError], args: tuple[object, ...]) -> StiError:
    """An error without its attributes, which pickle sets."""
    error = kind.__new__(kind)
    error.args = args
    return error


class InputError(StiError, ValueError):
    """The caller's arguments, texts or options cannot be used."""


class ConfigError(InputError):
    """A configuration file or a named target in it cannot be used."""


class CheckpointError(StiError):
    """A checkpoint is missing, malformed or of an unsupported architecture."""


class PackError(StiError):
    """A pack cannot be used."""


class PackFormatError(PackError):
    """The file is not a pack, or its format version is unknown."""


class PackCorruptError(PackError):
    """The pack is truncated, was changed while open, or a checksum in it does not match."""


class PlanError(StiError):
    """A plan is malformed or belongs to another pack."""


class InfeasibleError(PlanError):
    """The target cannot be met.

    Attributes:
        limit: the limit that binds: ``"latency"``, ``"preload"`` or ``"memory"``.
        asked: what was asked for: for ``"latency"`` the seconds a run may take, for ``"preload"``
            and ``"memory"`` the bytes of memory that would be taken.
        needed: the least that would do, in the same unit: for ``"latency"`` the least latency that
            can be kept, for ``"preload"`` and ``"memory"`` the bytes of memory that would have to
            be free (more than would be taken: some is left to others).
    """

    def __init__(self, message: str, *, limit: str, asked: float, needed: float) -> None:
        super().__init__(message)
        self.limit = limit
        self.asked = asked
        self.needed = needed


class ProfileError(StiError):
    """A device profile cannot be read, or does not fit the pack."""


class RunError(StiError):
    """A failure while running."""

    exit_code = 1


class LimitError(RunError):
    """A limit that the system sets on this process is too low to go on.

    Attributes:
        limit: which: ``"memory"`` (address space, data segment), ``"files"`` (open descriptors) or
            ``"threads"`` (processes and threads).
    """

    exit_code = 2

    def __init__(self, message: str, *, limit: str) -> None:
        super().__init__(message)
        self.limit = limit


class StorageError(RunError):
    """Storage failed under a read or a write: mended by another place, or by freeing some of it."""

    exit_code = 2


class BackendError(RunError):
    """ONNX Runtime refused a graph or an input."""


class GraphError(RunError):
    """A plan's graph cannot be built or kept here; runs without one give the same answers."""


class AnswerError(RunError):
    """What a run computed is no answer: numbers that are not finite."""


class PeerError(RunError):
    """Another device cannot be reached, or one of the two refuses the other."""

    exit_code = 2


class PeerLostError(PeerError):
    """Another device was there and is gone: killed, frozen, unplugged or closed.

    Attributes:
        peer: its name.
    """

    def __init__(self, message: str, *, peer: str) -> None:
        super().__init__(message)
        self.peer = peer


class DeadlineError(PeerError):
    """Another device did not send in time what was waited for."""


class ClosedError(RunError):
    """The engine or the exchange was closed, or what is waited for was given up."""


class StiWarning(UserWarning):
    """Notices: texts that were cut, a cache that cannot be written, and the like."""
