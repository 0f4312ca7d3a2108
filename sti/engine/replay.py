"""Repeating runs bit for bit: what a trace file says of the plans that were really run.

In: results, to be written as a trace; or the file of one, an engine, texts. Out: a document that
Perfetto opens and that holds, as ``sti``, what a replay needs; or the same answers again. A single
result needs none of this: ``Result.plan``, pinned, gives its answer again.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from sti.engine.engine import Engine
from sti.engine.results import Result
from sti.engine.targets import TargetSpec
from sti.errors import InputError, PlanError
from sti.json_fields import JsonFields
from sti.model.manifest import Manifest
from sti.planning.check import check_plan
from sti.planning.plan import Plan
from sti.storage.json_input import LARGE, parse_json
from sti.storage.plain_files import read_plain
from sti.text.encoding import Text

RECORDING_VERSION = 2


class RecordedRun(NamedTuple):
    """One run: how much it was of, and the plan as it was run."""

    texts: int
    tokens: int
    """Of all texts, special ones included."""
    crc32: int
    """Of the texts: others of the same length are not these."""
    plan: Plan
    prompt: str
    """What stood in front of each text."""


class Recording(NamedTuple):
    """The runs of a trace file, in their order."""

    where: str
    """The file's name, for messages."""
    pack: str
    """The pack's identity."""
    runs: tuple[RecordedRun, ...]

    @classmethod
    def read(cls, path: str | Path) -> Recording:
        """The recording in a trace file.

        Raises:
            InputError: the file cannot be read.
            PlanError: it is not JSON, holds no recording, or one that is damaged.
        """
        where = str(path)
        try:
            raw = read_plain(Path(path), LARGE.most_bytes)
        except OSError as error:
            raise InputError(f"{where}: cannot read the trace: {error.strerror}") from error
        try:
            parsed = parse_json(raw, LARGE)
        except ValueError as error:
            raise PlanError(f"{where}: not a trace: invalid JSON: {error}") from error
        if not isinstance(parsed, dict) or parsed.get("sti") is None:
            raise PlanError(
                f"{where}: a trace without a recording to replay; `sti run --trace` writes one"
            )
        fields = JsonFields(parsed["sti"], where=f"{where}: sti", error=PlanError)
        fields.require_version("recording", RECORDING_VERSION, remedy="record the run again")
        runs = tuple(
            RecordedRun(
                item.integer("texts", least=1),
                item.integer("tokens", least=1),
                item.integer("crc32"),
                Plan.from_json(item.raw("plan"), where=f"{item.where}: plan"),
                item.text("prompt") if item.has("prompt") else "",
            )
            for item in fields.objects("runs")
        )
        if not runs:
            raise PlanError(f"{where}: the recording has no runs; record one with --trace")
        return cls(where, fields.text("pack"), runs)

    def replay(self, engine: Engine, texts: Sequence[Text]) -> Iterator[Result]:
        """Run the texts again as they were run; a result for each of the recorded runs.

        Nothing is late for a replay: it has no latency. Give an engine that was opened with
        ``strict``, so that it fails where a damaged plane would have to be left out. Afterwards the
        engine aims at the plan of the last run.

        Raises:
            PlanError: a trace of another pack, or of plans that do not fit it.
            InputError: of other texts; and what ``Engine.run`` raises.
        """
        self._check(engine, texts)
        start = 0
        for run in self.runs:
            batch = texts[start : start + run.texts]
            engine.set_target(_target(run))
            yield engine.run(batch, prompt=run.prompt)
            start += run.texts

    @property
    def target(self) -> TargetSpec:
        """What to open an engine with: the plan of the first run."""
        return _target(self.runs[0])

    def check_pack(self, manifest: Manifest, pack_id: str) -> None:
        """Refuse another pack than the recorded one.

        Raises:
            PlanError: it is another one, or the plans do not fit it.
        """
        if self.pack != pack_id:
            raise PlanError(
                f"{self.where}: the trace is of another pack ({self.pack}), this one is {pack_id}; "
                "replay it with the pack that it was recorded with"
            )
        for number, run in enumerate(self.runs):
            check_plan(run.plan, manifest, pack_id, where=self._run(number))

    def _run(self, number: int) -> str:
        """The name of a run, for messages."""
        return f"{self.where}: run {number + 1}"

    def _check(self, engine: Engine, texts: Sequence[Text]) -> None:
        self.check_pack(engine.manifest, engine.pack_id)
        count = sum(run.texts for run in self.runs)
        if len(texts) != count:
            raise InputError(
                f"{self.where}: the trace is of {count} texts, found {len(texts)}; give the texts "
                "that were recorded"
            )
        start = 0
        for number, run in enumerate(self.runs):
            batch = engine.tokenize(texts[start : start + run.texts], prompt=run.prompt)
            tokens = sum(len(encoding.ids) for encoding in batch)
            if tokens != run.tokens:
                raise InputError(
                    f"{self._run(number)}: the trace is of texts of {run.tokens} tokens, these "
                    f"have {tokens}; give the texts that were recorded"
                )
            if _crc32(texts[start : start + run.texts]) != run.crc32:
                raise InputError(
                    f"{self._run(number)}: the trace is of other texts of the same length; give "
                    "the texts that were recorded"
                )
            start += run.texts


def _crc32(texts: Sequence[Text]) -> int:
    return zlib.crc32(json.dumps(list(texts)).encode("utf-8"))


def _target(run: RecordedRun) -> TargetSpec:
    """The plan of a run without its latency: nothing is late, and texts stay one batch."""
    target = run.plan.target._replace(latency_s=None)
    return TargetSpec(plan=replace(run.plan, target=target))


def trace_document(pack_id: str, results: Sequence[Result]) -> dict[str, Any]:
    """What a trace file holds: events of all runs, one after the other, and their recording.

    Args:
        pack_id: identity of the pack (``Engine.pack_id``).
        results: of one or more calls, in the order of their texts.
    """
    events: list[dict[str, Any]] = []
    start_us = 0.0
    parts = [part for result in results for part in result.parts]
    for result in parts:
        for event in result.trace.to_chrome(result.plan)["traceEvents"]:
            events.append(event | ({"ts": event["ts"] + start_us} if "ts" in event else {}))
        start_us += result.timing.total_s * 1e6
    runs = [
        {
            "texts": len(result.texts),
            "tokens": result.tokens,
            "crc32": _crc32(result.texts),
            "plan": result.plan.to_json(),
            **({"prompt": result.prompt} if result.prompt else {}),
        }
        for result in parts
    ]
    recording = {"recording": RECORDING_VERSION, "pack": pack_id, "runs": runs}
    return {"traceEvents": events, "displayTimeUnit": "ms", "sti": recording}
