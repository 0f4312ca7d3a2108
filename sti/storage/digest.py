"""SHA-256 of short texts, without loading OpenSSL.

In: nothing. Out: ``sha256``, which is called like that of ``hashlib``. Importing ``hashlib`` loads
OpenSSL, for some 3 ms and 3 MB of every start; what a start hashes is a few kilobytes. Whole packs
are hashed with ``hashlib``, which is faster for megabytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hashlib import sha256
else:
    try:  # as ``random`` of the standard library does, for the same reason
        from _sha2 import sha256
    except ImportError:
        try:  # its name before Python 3.12
            from _sha256 import sha256
        except ImportError:
            from hashlib import sha256

__all__ = ["sha256"]
