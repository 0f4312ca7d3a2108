"""Common to both programs: arguments in; messages, JSON documents and an exit code out.

Errors that a command raises become messages, JSON documents and exit codes here, and notices are
shown here. Answers go to standard output, everything else to standard error; neither carries
control characters to a terminal (``sti.report.terminal``). Knows no command.

Exit codes: 0; 1 for a failure; 2 for what the user can fix: bad usage, bad input, a file that is
damaged or does not fit, a missing package, failing storage, a limit of the system; 130 for Ctrl-C,
143 for SIGTERM, 129 for SIGHUP; 141 if standard output was closed (broken pipe).
"""

from __future__ import annotations

import argparse
import gc
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple, NoReturn, TextIO

from sti.cli.arguments import UsageError, wants_json
from sti.cli.signals import SIGNALS
from sti.device.process_limits import FILES, MEMORY, check_start, limit_error
from sti.errors import InputError, LimitError, StiError, StiWarning
from sti.report.terminal import make_output_plain, plain_output
from sti.text.control_characters import one_line

_OBJECTS_UNCOLLECTED = 50_000
"""Objects made, and not freed, before garbage is collected; a start makes half as many."""


class Program(NamedTuple):
    """One of the two programs."""

    name: str
    parse: Callable[[Sequence[str]], argparse.Namespace]
    """Understands the arguments; the answer has ``command``, its name."""
    execute: Callable[[argparse.Namespace], int | None]
    """Carries a command out: prints its answer on standard output, and returns an exit code if that
    is not 0. Raises ``StiError``; and ``KeyboardInterrupt``, with a message about the state things
    were left in if there is something to say."""
    out_of_memory: str = ""
    """What would take less memory."""

    def main(self, argv: Sequence[str] | None = None) -> int:
        """Run one command.

        Args:
            argv: the arguments behind the program's name; those of the process by default.

        Returns:
            The exit code. ``--help`` and ``--version`` leave through ``SystemExit``.
        """
        with plain_output():
            return self._run(list(sys.argv[1:] if argv is None else argv))

    def _run(self, given: Sequence[str]) -> int:
        """Run one command; ``main`` says what comes of it."""
        speaker, args = self.name, argparse.Namespace()
        try:
            try:
                args = self.parse(given)
            finally:
                sys.stdout.flush()  # help and the version leave through SystemExit
            speaker = f"{self.name} {args.command}"
            with _notices(self.name):
                check_start(many_blas_threads=getattr(args, "many_blas_threads", False))
                code = self.execute(args)
                sys.stdout.flush()
            return code or 0
        except OSError as error:
            if limit_error(error) is not None:
                return self._failed(error, speaker, args, as_json=wants_json(given))
            return _output_failed(error, speaker)
        except (Exception, KeyboardInterrupt) as error:
            return self._failed(error, speaker, args, as_json=wants_json(given))

    def command(self) -> NoReturn:
        """``main`` as a process of its own.

        After a success the process ends as it is: the command has closed what it opened and flushed
        its answer, and taking the interpreter apart would take some 20 ms, an eighth of a start.
        """
        _hold_standard_descriptors()
        if getattr(sys, "stdout", None) is None:  # Python has none where it is closed
            say(f"{self.name}: standard output: it is closed")
            sys.exit(2)
        make_output_plain()
        # What imports make is there to stay: looking through it for garbage, dozens of times, would
        # find none and take a twentieth of a start.
        gc.set_threshold(_OBJECTS_UNCOLLECTED)
        try:
            SIGNALS.works()
            code = self.main()
        except KeyboardInterrupt:  # between two lines of these, or amid telling of a failure
            say(f"{self.name}: {SIGNALS.word}")
            code = SIGNALS.code
        SIGNALS.ends(code)
        if code == 0 and sys.getprofile() is None and sys.gettrace() is None:
            os._exit(0)  # standard error is written line by line
        sys.exit(code)

    def _failed(
        self, error: BaseException, speaker: str, args: argparse.Namespace, *, as_json: bool
    ) -> int:
        """Tell an error, and return the exit code; raises it again where it is a fault of ours."""
        if SIGNALS.came and not isinstance(error, KeyboardInterrupt):
            error = KeyboardInterrupt()  # what came of it in other libraries
        error = self._limit(error) or error
        known = self._known(error, getattr(args, "extra", None))
        message, code = known or (str(error), 1)
        try:
            if as_json:
                from sti.report.json_document import error_members

                print_json(error_members(error, message, code))
                sys.stdout.flush()
        except OSError as failure:
            return _output_failed(failure, speaker)
        if known is None:
            raise error
        if isinstance(error, UsageError):
            say(f"{error.usage}{error.program}: error: {one_line(message)}")
        else:
            say(f"{speaker}: {one_line(message)}")
        return code

    def _limit(self, error: BaseException) -> LimitError | None:
        """The limit of this process that an error comes of, with what would take less memory."""
        if isinstance(error, StiError):
            why = None if error.__cause__ is None else limit_error(error.__cause__)
            if why is None or why.limit != FILES or isinstance(error, LimitError):
                return None  # it has said what to do
            return LimitError(f"{error}: {why}", limit=FILES)
        found = limit_error(error)
        if found is None or found.limit != MEMORY or not self.out_of_memory:
            return found
        return LimitError(f"{found}, or {self.out_of_memory}", limit=found.limit)

    def _known(self, error: BaseException, extra: str | None) -> tuple[str, int] | None:
        """Message and exit code of an error that is no fault of ours."""
        if isinstance(error, StiError):
            return str(error), error.exit_code
        if isinstance(error, KeyboardInterrupt):
            return "; ".join([SIGNALS.word, *map(str, error.args)]), SIGNALS.code
        if isinstance(error, MemoryError):
            return "; ".join(filter(None, ["out of memory", self.out_of_memory])), 1
        if isinstance(error, ModuleNotFoundError) and error.name:
            from sti.report.installation import missing

            message = missing(error.name, extra=extra)
            return None if message is None else (message, InputError.exit_code)
        return None


def _hold_standard_descriptors() -> None:
    """Keep files from being opened as the descriptors 0 to 2 where those were closed.

    A message would else be written into one, or one be read as texts.
    """
    try:
        while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
            os.set_inheritable(descriptor, True)  # as those that it stands for
        os.close(descriptor)
    except OSError:
        return  # what lacks descriptors is told later


def say(text: str) -> None:
    """A line on standard error, where there is one to write to."""
    if sys.stderr is not None:  # print() would take standard output instead
        print(f"{text}\n", end="", file=sys.stderr)  # whole, also beside those of other threads


def tell_failure(failure: StiError | None, speaker: str) -> int:
    """Say what failed, if anything did, beside the answer that was printed; the exit code."""
    if failure is None:
        return 0
    say(f"{speaker}: {one_line(str(failure))}")
    return failure.exit_code


def notice(text: str, program: str = "sti") -> None:
    """A notice on standard error: something the user should know, that stops nothing."""
    say(f"{program}: notice: {one_line(text)}")


def print_json(members: Mapping[str, Any]) -> None:
    """Print the one JSON document of a command on standard output."""
    from sti.report.json_document import json_document

    print(json_document(members))


@contextmanager
def _notices(program: str) -> Iterator[None]:
    """Show our warnings as notices of one line; those of other libraries as Python does."""
    usual = warnings.showwarning

    def show(
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        if issubclass(category, StiWarning):
            notice(str(message), program)
        else:
            usual(message, category, filename, lineno, file, line)

    with warnings.catch_warnings():
        warnings.simplefilter("always", StiWarning)
        warnings.showwarning = show
        yield


def _output_failed(error: OSError, speaker: str) -> int:
    """Say what kept the answer from being printed, and return the exit code.

    Files are opened with their errors translated, so what comes here is standard output's.
    """
    # What is still buffered goes nowhere, or the interpreter complains when it flushes at exit.
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        return 141  # nobody reads the rest
    name = one_line(str(error.filename or "standard output"))
    say(f"{speaker}: {name}: {error.strerror or error}")
    return 2
