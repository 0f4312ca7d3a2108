"""Where the programs start: before anything is imported that takes time, signals are seen to.

In: the program's name, and what carries it out. Knows neither.
"""

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn


def start(program: str, command: "Callable[[], NoReturn]") -> "NoReturn":
    """Run a program, which ends the process.

    Ctrl-C, SIGTERM and SIGHUP end it with one line and the exit code 130, 143 or 129, from here on.

    Args:
        command: imports the program and runs it.
    """
    try:
        from sti.cli.signals import SIGNALS

        SIGNALS.starts(program)
    except KeyboardInterrupt:  # amid these lines
        os.write(2, f"{program}: interrupted\n".encode())
        os._exit(130)
    command()


def sti() -> "NoReturn":
    """The ``sti`` command."""
    start("sti", _command)


def _command() -> "NoReturn":
    from sti.cli.main import command

    command()
