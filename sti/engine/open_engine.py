"""An open engine: how it is opened and closed, what it is, what it holds in memory.

In: a pack's path, a target, options. Out: facts of the pack and of the engine, memory on request.
What an engine answers is in ``engine``; ``core`` does the work.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Self

from sti.device import host
from sti.device.profile import DeviceProfile
from sti.engine.core import EngineCore
from sti.engine.device_options import DeviceOptions
from sti.engine.options import EngineOptions
from sti.engine.targets import TargetSpec, resolve, seconds_of
from sti.model.manifest import Manifest
from sti.notices import log_notice
from sti.pack.pack_reader import PackReader
from sti.planning.plan import Plan
from sti.storage.reader import Reader
from sti.storage.watched_reader import READ_TIMEOUT_S

if TYPE_CHECKING:
    from datetime import timedelta


class OpenEngine:
    """A pack with all that answers from it: threads, memory, the profile of the machine.

    Thread-safe, as ``Engine``.

    Args:
        reader: the open pack; the engine closes it.
        target: what to aim at.
        options: everything else (``open`` describes it).
    """

    def __init__(self, reader: PackReader, target: TargetSpec, options: EngineOptions) -> None:
        try:
            self._core = EngineCore(reader, target, options)
        except BaseException:
            reader.close()
            raise

    @classmethod
    def open(
        cls,
        path: str | Path,
        target: TargetSpec | str | None = None,
        *,
        latency: str | timedelta | None = None,
        memory: str | None = None,
        preload: str | None = None,
        quantile: str | None = None,
        floor: str | None = None,
        fidelity: int | None = None,
        plan: Plan | str | Path | None = None,
        config: str | Path | None = None,
        threads: int | None = None,
        verify: bool = False,
        strict: bool = False,
        comparable: bool = True,
        tokens: int | None = None,
        adapt: bool = True,
        history: bool = True,
        yield_memory: bool = True,
        profile: DeviceProfile | None = None,
        storage: Reader | None = None,
        read_timeout: str | timedelta = f"{READ_TIMEOUT_S:g}s",
        devices: DeviceOptions | str | Path | None = None,
        notify: Callable[[str], None] | None = None,
    ) -> Self:
        """Open a pack. Reads its header, resident tensors, graphs and tokenizer; no slices yet.

        The preload buffer fills in the background; a run may start before it is full.

        Args:
            path: the pack.
            target: what to aim at, or the name of a target in ``config``.
            latency, memory, preload, quantile, floor, fidelity, plan: as ``TargetSpec`` takes them;
                they override ``target``.
            config: the ``sti.toml`` that names targets; None: the one in the working directory,
                else the user's.
            threads: compute threads; None: chosen for this machine.
            verify: compare the whole pack with its SHA-256 now, which reads all of it. (Every read
                of every run is compared with a checksum anyway.)
            strict: fail where a damaged plane could be left out.
            comparable: for embedding packs: one plan for texts of every length, which does not
                change, and fail where a damaged plane could be left out: vectors of other
                submodels or fidelities compare less well. False: plan for every length, and as the
                machine changes, as for other tasks.
            tokens: of the text that this one plan is made for; None: 128. Shorter texts take less
                time; longer ones run under it as well, and may be late. Refused for packs and
                options that have no such plan.
            adapt: let plans follow what runs show of the machine and, while a run is under way,
                leave out planes that would come too late for the latency. False: plans are made
                from the device profile alone, and run exactly. Plans of comparable embeddings
                never change.
            history: keep how runs went, for ``sti report``: by day and target how many there were,
                how many were in time and how long they took, and when each lane worked in the last
                one; no texts or answers. Nothing is kept with ``adapt=False``, with a ``profile``,
                or where the environment variable ``STI_HISTORY`` is ``off``.
            yield_memory: give memory back while the machine, or a memory cgroup that this process
                is in, has less than a sixteenth of it available, and less than 256 MB: the preload
                buffer, and after a few seconds without a run all that ``release`` gives back. When
                there is twice as much, the buffer is filled again. Both are told by ``notify``.
                Plans that stay, such as that of comparable embeddings, only read more meanwhile;
                others are chosen for no preload. False: memory is kept.
            profile: what this machine can do; None: the cached profile, measured if there is none.
            storage: what slice groups and token embeddings are read from, closed with the engine
                once that is open; None: the pack's own file. Needs a ``profile`` of it
                (``sti.device.emulated_storage``).
            read_timeout: how long one read of storage may take. A read that does not return (a
                card that died, a network that is gone) ends with ``StorageError``; the thread that
                hangs in it is left to itself with the memory it reads into, and the engine stays
                usable. After four such threads of the same kind (for slice groups, for token
                embeddings) runs are refused until one of their reads returns.
            devices: other devices that runs may use, each of which runs `sti worker`: a
                ``devices.toml`` for those on this machine, or ``DeviceOptions``, with keys for
                others. Runs use them where that is predicted to be much faster, and give the same
                answers to the bit, unless the file has numbers on links rounded. A device that is
                lost, late or not there is told, and does not keep an answer from coming: this
                machine gives it alone.
            notify: receives notices, for example that the machine is being measured; None: they are
                logged at INFO under ``sti``. Called in the thread that works, which is one of the
                engine's own for what happens between runs; may not use the engine.

        Raises:
            PackError: not a pack, of an unknown version, truncated or damaged.
            PartError: a part of a pack.
            InputError, ConfigError: arguments that cannot be used.
            InfeasibleError: the target cannot be met; says which limit, and by how much.
        """
        given = TargetSpec(
            latency=latency,
            memory=memory,
            preload=preload,
            quantile=quantile,
            floor=floor,
            fidelity=fidelity,
            plan=plan,
        )
        aim = resolve(target, given, config=config)
        options = EngineOptions(
            before_bytes=host.anonymous_bytes(),
            threads=threads,
            verify=verify,
            strict=strict,
            comparable=comparable,
            tokens=tokens,
            adapt=adapt,
            history=history,
            read_timeout_s=seconds_of(read_timeout, name="read_timeout"),
            yield_memory=yield_memory,
            profile=profile,
            storage=storage,
            notify=log_notice if notify is None else notify,
            devices=DeviceOptions(devices) if isinstance(devices, str | Path) else devices,
            config=config,
        )
        options.validate()
        return cls(PackReader.open(Path(path), timeout_s=options.read_timeout_s), aim, options)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        kind, closed = type(self).__name__, ", closed" if self._core.closed else ""
        return (
            f"{kind}({self.manifest.name!r}, {self.task}, dimension {self.dimension}, "
            f"{self.target!r}, threads {self.threads}{closed})"
        )

    def close(self) -> None:
        """End the threads and give back memory and descriptors. Idempotent.

        Waits for a run that is at work in another thread. Amid the thread's own run (in a signal
        handler) that stops at its next step with ``ClosedError``, and the engine is closed then.
        """
        self._core.close()

    @property
    def task(self) -> str:
        """``embedding``, ``classification``, ``multi_label``, ``regression`` or ``tagging``."""
        return self.manifest.task

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the classes or values, in the order of the logits; none for embedding packs."""
        return self.manifest.labels

    @property
    def dimension(self) -> int:
        """Numbers in one embedding; for other tasks outputs of the head, one for each label."""
        return self.manifest.embedding_size if self.task == "embedding" else len(self.labels)

    @property
    def max_tokens(self) -> int:
        """The most tokens of a text or pair, special ones included; more are cut off."""
        return self.manifest.dimensions.max_tokens

    @property
    def target(self) -> TargetSpec:
        """What the engine aims at."""
        return self._core.plans.target

    @property
    def manifest(self) -> Manifest:
        """What the pack says about itself."""
        return self._core.reader.manifest

    @property
    def reader(self) -> PackReader:
        """The open pack; closed with the engine."""
        return self._core.reader

    @property
    def pack_id(self) -> str:
        """Names the pack; plans carry it."""
        return self._core.reader.pack_id

    @property
    def threads(self) -> int:
        """Compute threads."""
        return self._core.threads

    @property
    def direct(self) -> bool:
        """Whether slice groups are read past the page cache."""
        return self._core.runner.direct

    @property
    def held_bytes(self) -> int:
        """Compressed bytes in the preload buffer now."""
        return self._core.runner.preloading.held_bytes

    @property
    def mapped_bytes(self) -> int:
        """Bytes of weights that are mapped from the file of a graph now, which runs go through
        while a budget of memory (``TargetSpec.memory``) has room for it; 0 where none is. They do
        not count as preloaded, and the system may take their memory back.
        """
        return self._core.held.mapped_bytes

    @property
    def profile(self) -> DeviceProfile:
        """What this machine can do; measured and cached when first asked for."""
        return self._core.use(lambda: self._core.machine.speeds.profile)

    def preloaded(self, timeout_s: float | None = None) -> bool:
        """Wait until the preload buffer is filled; False if it is not within ``timeout_s``, or was
        given back (``release``, ``yield_memory``) and is not being filled again yet.

        Raises:
            RunError: the engine was opened in another process, or is at work in this very thread.
        """
        self._core.check_idle_here()
        return self._core.held.wait(timeout_s)

    def release(self) -> None:
        """Give back the memory that runs take: the preload buffer, buffers, sessions, plans.

        For an app that goes into the background. The engine stays open; the next run makes anew
        what it needs, which takes about as long as the first run of an engine, and the preload
        buffer is filled again in the background, for the plan of that run. Waits for a run that is
        at work, and for the read of one slice group. Safe to call from any thread; in a signal
        handler amid the caller's own run, memory is given back when that has ended.

        Raises:
            ClosedError, RunError: it was closed, or opened in another process.
        """
        self._core.release()
