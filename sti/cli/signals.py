"""How a program ends when it is asked to: by Ctrl-C, SIGTERM or SIGHUP.

In: the signals of the process. Out: while a program starts, its end at once, as nothing is to be
put right yet; while a command works, one ``KeyboardInterrupt``, which takes it through all that
cleans up. Belongs to the programs alone: who imports the library keeps their own handlers. Knows
no command. Imports little, as it stands before all that takes time.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from sys import UnraisableHookArgs
    from types import FrameType

_WORDS = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "terminated",
    signal.SIGHUP: "ended with its terminal",
}
_PATIENCE_S = 5.0
"""For so long after the first signal others change nothing: the same Ctrl-C may come twice."""
_AGAIN_S = 0.005
"""After which a signal is looked at again that came at a moment when nothing could be raised."""
_IMPORTING = "<frozen importlib._bootstrap>"


class Signals:
    """Signals of this process, from ``starts`` on. One for a process; its main thread's."""

    def __init__(self) -> None:
        self._program = ""
        self._code: int | None = None
        self._number = 0
        self._patient_s = 0.0
        self._works = self._raised = False

    @property
    def word(self) -> str:
        """What the signal that came did to the program."""
        return _WORDS.get(signal.Signals(self._number or signal.SIGINT), "ended")

    @property
    def code(self) -> int:
        """The conventional exit code for it; 130 where none came."""
        return 128 + (self._number or signal.SIGINT)

    @property
    def came(self) -> bool:
        """Whether one came while a command worked."""
        return self._number != 0

    def starts(self, program: str) -> None:
        """From now on signals end the process at once, with one line."""
        self._program = program
        for number in _WORDS:
            # One that is ignored stays so: nohup, and what a shell starts in the background.
            if signal.getsignal(number) not in (signal.SIG_IGN, None):
                signal.signal(number, self._take)

    def works(self) -> None:
        """From now on the first signal raises ``KeyboardInterrupt``, and further ones do nothing
        for a few seconds; then one ends the process at once.
        """
        if not self._program:
            return
        signal.signal(signal.SIGALRM, self._look_again)
        sys.unraisablehook = self._lost
        self._works = True

    def ends(self, code: int) -> None:
        """From now on signals end the process at once, silently, with this exit code."""
        self._code, self._works = code, False

    def _take(self, number: int, frame: FrameType | None) -> None:
        if not self._works:
            self._end_now(number)
        if self._number == 0:
            self._number = number
            self._raise(frame)
        elif monotonic() > self._patient_s:
            self._end_now(self._number)

    def _raise(self, frame: FrameType | None) -> None:
        """Raise, unless that would be lost or leave a half imported library: then soon."""
        self._patient_s = monotonic() + _PATIENCE_S
        while frame is not None:
            if frame.f_code.co_filename == _IMPORTING:
                signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)
                return
            frame = frame.f_back
        self._raised = True
        raise KeyboardInterrupt

    def _look_again(self, _: int, frame: FrameType | None) -> None:
        if self._works and not self._raised:
            self._raise(frame)

    def _lost(self, lost: UnraisableHookArgs) -> None:
        """Raise again what came amid a finalizer, from which nothing can be raised."""
        if self._raised and isinstance(lost.exc_value, KeyboardInterrupt):
            self._raised = False
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)
        else:
            sys.__unraisablehook__(lost)

    def _end_now(self, number: int) -> None:
        if self._code is None:
            word = _WORDS[signal.Signals(number)]
            with suppress(OSError):  # nobody to tell
                os.write(2, f"{self._program}: {word}\n".encode())
        os._exit(128 + number if self._code is None else self._code)


SIGNALS = Signals()
"""Those of this process."""
