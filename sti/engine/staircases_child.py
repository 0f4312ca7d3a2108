"""The process that makes staircases for an engine whose memory is limited.

In: a job of ``sti.engine.staircases_apart`` on standard input: a pack's path. Out: the staircases,
on standard output, and in the cache where that can be.
"""

from __future__ import annotations

import base64
import json
import sys

from sti.engine.staircase_source import staircases_of
from sti.pack.pack_reader import PackReader


def main() -> int:
    """Make what standard input asks for."""
    job = json.loads(sys.stdin.readline())
    with PackReader.open(job["path"]) as reader:
        found = staircases_of(reader, lambda line: print(line, file=sys.stderr))
        raw = found.to_bytes(reader.manifest)
    print(json.dumps({"staircases": base64.b64encode(raw).decode("ascii")}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
