"""A reader that goes wrong when it is told to: for tests of what an engine does then.

    reader = FaultyReader(FileReader(path), Fault(effect=Fails(errno.EIO), at=3))
    with sti.Engine.open(path, profile=profile, storage=reader) as engine: ...

In: any reader, and faults (``sti.testing.faults``). Out: a ``Reader`` that injects them. What the
engine reads while it opens a pack does not go through it: see ``faulty_file`` beside it.
"""

from __future__ import annotations

from sti.arrays import ByteArray, Int64Array
from sti.errors import PackCorruptError, StorageError
from sti.storage.byte_ranges import ByteRange
from sti.storage.reader import Reader
from sti.testing.faults import Call, Effect, Fault, Injected, Injector, arriving, refusal


class FaultyReader:
    """A ``Reader`` that does what another one does, but for the faults that are injected.

    Errors are those that ``FileReader`` would raise: ``StorageError`` where the system refuses,
    ``PackCorruptError`` where the data ends early. As safe to share between threads as ``inner``.

    Args:
        inner: reads the bytes; owned, closed with this one.
        faults: what waits for calls.
        name: of what is read, for messages.
        seed: of the faults that have a chance.
    """

    def __init__(
        self, inner: Reader, *faults: Fault, name: str = "a faulty reader", seed: int = 0
    ) -> None:
        self._inner, self._name = inner, name
        self._injector = Injector(faults, seed=seed)

    @property
    def direct(self) -> bool:
        """As the inner reader."""
        return self._inner.direct

    def inject(self, *faults: Fault) -> None:
        """As ``Injector.inject``."""
        self._injector.inject(*faults)

    def release(self) -> None:
        """As ``Injector.release``."""
        self._injector.release()

    @property
    def injected(self) -> tuple[Injected, ...]:
        """As ``Injector.injected``."""
        return self._injector.injected

    @property
    def calls(self) -> int:
        """As ``Injector.calls``."""
        return self._injector.calls

    def read(self, item: ByteRange, out: ByteArray) -> None:
        """As ``Reader.read``, with faults."""
        effects = self._meet(Call("read", item))
        self._inner.read(item, out)
        if effects:
            self._arrive(effects, item.offset, out[: item.length], short=True)

    def read_rows(self, base: int, rows: Int64Array, out: ByteArray) -> None:
        """As ``Reader.read_rows``, with faults."""
        row_bytes = out.shape[1]
        first, last = (int(rows[0]), int(rows[-1])) if len(rows) else (0, -1)
        place = ByteRange(base + first * row_bytes, (last - first + 1) * row_bytes)
        effects = self._meet(Call("rows", place))
        self._inner.read_rows(base, rows, out)
        if effects:
            for row, line in zip(rows.tolist(), out, strict=True):
                self._arrive(effects, base + row * row_bytes, line, short=row == last)

    def _meet(self, call: Call) -> tuple[Effect, ...]:
        effects = self._injector.meet(call)
        error = refusal(effects)
        if error is not None:
            raise StorageError(
                f"{self._name}: reading {call.place.length} bytes at {call.place.offset} failed: "
                f"{error.strerror}; check the storage and the pack (`sti-shard verify`)"
            ) from error
        return effects

    def _arrive(
        self, effects: tuple[Effect, ...], offset: int, data: ByteArray, *, short: bool
    ) -> None:
        size = arriving(effects, offset, data, short=short)
        if size < len(data):
            raise PackCorruptError(
                f"{self._name}: ends at byte {offset + size}, inside a read of {len(data)} bytes "
                f"at {offset}; the pack is truncated, fetch it again"
            )

    def close(self) -> None:
        """Release what stalls, and close the inner reader. Idempotent."""
        self._injector.release()
        self._inner.close()
