"""What Git LFS leaves in place of a large file that it has not fetched.

In: the first bytes of a file. Out: what to tell of it. Pure.
"""

from __future__ import annotations

_START = b"version https://git-lfs"


def lfs_words(raw: bytes) -> str:
    """What a file is and what to do, if it is a pointer of Git LFS; else empty.

    Args:
        raw: the file, or its first bytes: 8 are enough, since no other file we read begins so.
    """
    if len(raw) < 8 or not raw.startswith(_START[: len(raw)]):
        return ""
    return "is a pointer of Git LFS, not the file itself; fetch it: git lfs pull"
