"""The process that measures for an engine whose memory is limited.

In: a job of ``sti.calibration.measuring_apart``. Out: what was measured, with notices.
"""

from __future__ import annotations

from typing import Any

from sti.backend.onnxruntime.compute import OrtBackend
from sti.calibration.calibrate import BUDGET_S, measure_parts
from sti.device.process_answers import serve
from sti.notices import Notify
from sti.pack.pack_reader import PackReader


def measure(job: Any, notify: Notify) -> dict[str, object]:
    """Measure with the pack of a ``path`` and so many ``threads``.

    Raises:
        PackError: the pack cannot be used.
        As ``measure_parts``.
    """
    threads = int(job["threads"])
    with PackReader.open(job["path"]) as reader:
        backend = OrtBackend(reader, lanes=threads)
        try:
            storage, profile = measure_parts(
                reader, backend, threads=threads, budget_s=BUDGET_S, notify=notify
            )
        finally:
            backend.close()
    assert storage is not None, "it was asked for"
    assert profile is not None, "it was asked for"
    return {"storage": storage.to_json(), "profile": profile.to_json()}


if __name__ == "__main__":
    serve(measure)
