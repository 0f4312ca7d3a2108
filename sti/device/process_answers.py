"""What a process of STI answers to the one that started it: lines of JSON, one way for all of them.

In the process that was started: what it did for a job. In the other one: the lines that it wrote.
Out there: notices for the caller, then the answer, or the error as it was raised. Knows nothing of
jobs, or of how processes are started and ended.
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable, Iterable
from time import sleep
from typing import Any, BinaryIO

from sti import errors
from sti.errors import StiError
from sti.notices import Notify

PARENT = "STI_PARENT_PROCESS"
"""The environment variable that tells a process which one started it."""
_NOTICE, _ANSWER, _ERROR = "notice", "answer", "error"
_LOOK_S = 0.5
"""How often a process looks whether the one that started it is still there."""
_UNWANTED = 3


class NoAnswer(Exception):
    """A process wrote something else, or ended before it answered."""


def answer_of(lines: Iterable[bytes], notify: Notify) -> Any:
    """The answer in the lines that a process wrote.

    Args:
        notify: told the notices, each when its line is there.

    Raises:
        StiError: as the process raised it: of the same type, with the same text and fields.
        NoAnswer: the lines hold neither.
    """
    for line in lines:
        kind, value = _parsed(line)
        if kind == _ANSWER:
            return value
        if kind == _ERROR:
            raise _error_of(value)
        notify(str(value))
    raise NoAnswer("it ended before it answered")


def own_answers() -> BinaryIO:
    """Standard output, for answers alone: all else that is printed goes to standard error."""
    stream = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return stream


def answer(work: Callable[[Notify], object], stream: BinaryIO) -> None:
    """Do what was asked for, and write what came of it as ``answer_of`` reads it.

    Args:
        work: is given where to send notices; what it returns must be JSON.

    Raises:
        Whatever ``work`` raises that is no ``StiError``.
    """

    def say(kind: str, value: object) -> None:
        stream.write(json.dumps({kind: value}).encode() + b"\n")
        stream.flush()

    try:
        found = work(lambda words: say(_NOTICE, words))
    except StiError as error:
        fields = {name: value for name, value in vars(error).items() if name[0] != "_"}
        say(_ERROR, {"type": type(error).__name__, "message": str(error), "fields": fields})
    else:
        say(_ANSWER, found)


def serve(work: Callable[[Any, Notify], object]) -> None:
    """Read a job, a line of JSON, from standard input; ``answer`` it on standard output.

    The process ends when the one that started it has ended, however that was.
    """
    threading.Thread(target=_end_with_parent, args=(_parent(),), daemon=True).start()
    with own_answers() as stream:
        job = json.loads(sys.stdin.buffer.readline())
        answer(lambda notify: work(job, notify), stream)


def _parent() -> int:
    """The process that started this one, even if it has ended by now."""
    return int(os.environ.get(PARENT) or os.getppid())


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        sleep(_LOOK_S)
    os._exit(_UNWANTED)


def _parsed(line: bytes) -> tuple[str, Any]:
    """What a line is, and what it holds."""
    try:
        said = json.loads(line)
    except ValueError as error:
        raise NoAnswer(f"{line!r:.80} is no JSON") from error
    if isinstance(said, dict) and len(said) == 1:
        ((kind, value),) = said.items()
        if kind in (_NOTICE, _ANSWER, _ERROR):
            return kind, value
    raise NoAnswer(f"{line!r:.80} is no answer")


def _error_of(said: Any) -> StiError:
    try:
        kind: object = getattr(errors, said["type"])
        if isinstance(kind, type) and issubclass(kind, StiError):
            return kind(said["message"], **said["fields"])
        raise TypeError(f"{kind!r} is no error of STI's")
    except (KeyError, TypeError, AttributeError) as error:
        raise NoAnswer(f"{said!r:.80} is no error of STI's") from error
