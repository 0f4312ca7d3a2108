"""The switch of an emulated network: compiled, started, told what to change.

In: files of network namespaces, a rate, a delay. Out: a process that joins them, until it is
closed; ``tunswitch.c`` beside this file says how. Needs a C compiler and the right to make devices.
Knows nothing of how namespaces are made or what runs in them.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from threading import Lock

from kernel_build.library import NoLibrary, host_compiler

SOURCE = Path(__file__).with_name("tunswitch.c")
DEVICE = "net0"
"""The network device that it makes in each namespace."""
SUBNET = "10.78.0"
"""The i-th namespace, counted from 1, gets what is for the i-th address."""

_FLAGS = ("-O2", "-std=c11", "-Wall", "-Wextra")
_PATIENCE_S = 60.0
_END_S = 5.0
_MOST_SAID = 2000


class NoNetwork(RuntimeError):
    """There can be no emulated network here, or it broke; says why, and what to do."""


class Switch:
    """A running switch. Thread-safe.

    Args:
        spaces: files of the namespaces.
        mbit: the rate of each port, or of the one medium.
        delay_s: one way.
        shared: one medium for all ports.

    Raises:
        NoNetwork: it cannot be compiled, or not be started here.
    """

    def __init__(
        self, spaces: Sequence[Path], *, mbit: float, delay_s: float, shared: bool
    ) -> None:
        self._lock = Lock()
        with ExitStack() as stack:
            # Nothing outlives a process that is killed: a file without a name, a folder soon gone.
            self._errors = stack.enter_context(tempfile.TemporaryFile())
            with tempfile.TemporaryDirectory() as folder:
                kind = "shared" if shared else "switched"
                figures = (str(round(delay_s * 1e9)), repr(mbit))
                self._process = subprocess.Popen(
                    [str(compile_switch(Path(folder))), kind, *figures, *map(str, spaces)],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=self._errors,
                    text=True,
                )
                stack.callback(self.close)
                self._answer("ready")
            stack.pop_all()

    @property
    def said(self) -> str:
        """What it warned of."""
        found = os.pread(self._errors.fileno(), _MOST_SAID, 0)
        return found.decode(errors="replace").strip()

    def tell(self, command: str) -> None:
        """Have it obey a command; it has when this returns.

        Raises:
            NoNetwork: it does not, or has ended.
        """
        with self._lock:
            stdin = self._process.stdin
            assert stdin is not None, "it was asked for"
            try:
                stdin.write(f"{command}\n")
                stdin.flush()
            except (OSError, ValueError):
                pass  # it ended, as the answer shows
            self._answer("ok")

    def close(self) -> None:
        """End it, and with it its devices. Idempotent."""
        with self._lock, self._process as process:
            try:
                assert process.stdin is not None, "it was asked for"
                process.stdin.close()  # which ends it
                process.wait(_END_S)
            finally:
                process.kill()
        self._errors.close()

    def _answer(self, expected: str) -> None:
        stdout = self._process.stdout
        assert stdout is not None, "it was asked for"
        found = "" if stdout.closed else stdout.readline().strip()
        if found != expected:
            said = "" if self._errors.closed else self.said
            raise NoNetwork(f"the switch of the network failed: {said or found or 'it ended'}")


def compile_switch(folder: Path) -> Path:
    """Compile the switch into a folder; returns the program.

    Raises:
        NoNetwork: there is no compiler, or it failed.
    """
    program = folder / SOURCE.stem
    try:
        compiler = host_compiler()
    except NoLibrary as error:
        raise NoNetwork(f"the switch of an emulated network cannot be compiled: {error}") from error
    do([*compiler, *_FLAGS, "-o", str(program), str(SOURCE)])
    return program


def do(command: Sequence[str], *, told: str = "") -> str:
    """What a command writes, told something on its standard input.

    Raises:
        NoNetwork: it failed; repeats what it said.
    """
    try:
        ended = subprocess.run(
            command,
            input=told,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_PATIENCE_S,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise NoNetwork(f"{command[0]}: {error}") from error
    if ended.returncode:
        said = ended.stderr.strip() or f"ended with code {ended.returncode}"
        raise NoNetwork(f"{' '.join(command)}: {said}")
    return ended.stdout
