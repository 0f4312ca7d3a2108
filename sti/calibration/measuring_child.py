"""The process that measures for an engine whose memory is limited.

In: a job of ``sti.calibration.measuring_apart`` on standard input. Out: what was measured, on
standard output, and notices on standard error.
"""

from __future__ import annotations

import json
import sys

from sti.backend.onnxruntime.compute import OrtBackend
from sti.calibration.calibrate import BUDGET_S, measure_parts
from sti.pack.pack_reader import PackReader


def main() -> int:
    """Measure what standard input asks for; print it as JSON."""
    job = json.loads(sys.stdin.readline())
    threads = int(job["threads"])

    def tell(line: str) -> None:
        print(line, file=sys.stderr)

    with PackReader.open(job["path"]) as reader:
        backend = OrtBackend(reader, lanes=threads)
        storage, profile = measure_parts(
            reader, backend, threads=threads, budget_s=BUDGET_S, notify=tell
        )
        backend.close()
    assert storage is not None, "it was asked for"
    assert profile is not None, "it was asked for"
    print(json.dumps({"storage": storage.to_json(), "profile": profile.to_json()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
