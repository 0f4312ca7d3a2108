"""How many threads may be asked for: checked alike wherever a user says so.

In: the number of an option ``--threads``. Out: nothing, or an error with the limit. Knows nothing
of what the threads are for.
"""

from __future__ import annotations

from sti.errors import InputError
from sti.machine import most_threads


def check_threads(threads: int | None) -> None:
    """Refuse a number of threads that no processor has; None is the caller's own choice.

    Raises:
        InputError: it is not within 1 and what the machine can be asked for.
    """
    most = most_threads()
    if threads is not None and not 1 <= threads <= most:
        raise InputError(f"--threads must lie within 1..{most}; found {threads}")
