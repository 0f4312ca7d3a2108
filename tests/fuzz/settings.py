"""Readers of what a user or another process says: ``sti.toml``, quantities, answers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from contextlib import suppress

from sti.device.process_answers import NoAnswer, answer_of
from sti.engine.config import load_config
from sti.engine.targets import TargetSpec
from sti.errors import ConfigError, InputError, StiError
from sti.storage.json_input import SMALL, parse_json
from sti.units import exact_size, exact_time, parse_share, parse_size, parse_time
from tests.fuzz import sources
from tests.fuzz.target import Target, must

_TOML = b"""[targets.voice]
latency = "150ms"
preload = "2MB"
quantile = "99%"
[targets.small]
memory = "64MiB"
floor = "90.5%"
fidelity = 4
[targets."a b"]
plan = "plan.json"
"""


def _config(data: bytes) -> None:
    path = sources.written("sti.toml", data)
    for name in load_config(path).targets:
        spec = TargetSpec.named(name, config=path)
        for text in (spec.latency, spec.memory, spec.preload, spec.quantile, spec.floor):
            must(text is None or bool(text), "quantities can be said")
        again = TargetSpec(
            latency=spec.latency,
            memory=spec.memory,
            preload=spec.preload,
            quantile=spec.quantile,
            floor=spec.floor,
            fidelity=spec.fidelity,
            plan=spec.plan,
        )
        must(again == spec, "a target said reads back the same")
        repr(spec)
        spec.limits()


def _units(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    with suppress(InputError):
        must(parse_time(exact_time(parse_time(text))) == parse_time(text), "times read back")
    with suppress(InputError):
        must(parse_size(exact_size(parse_size(text))) == parse_size(text), "sizes read back")
    with suppress(InputError):
        must(0.0 <= parse_share(text) <= 1.0, "a share is one")


def _answers(data: bytes) -> None:
    def say(notice: str) -> None:
        must(isinstance(notice, str), "notices are text")

    with suppress(StiError):  # what the process raised
        answer_of(data.splitlines(keepends=True), say)


def _json(data: bytes) -> None:
    try:
        found = parse_json(data, SMALL)
    except ValueError:
        return
    must(repr(found) == repr(json.loads(data)), "what is taken is read as any reader would")


_FIELDS = {"limit": "memory", "asked": 1.0, "needed": 2.0}
_ERROR = {"type": "InfeasibleError", "message": "no", "fields": _FIELDS}


def targets() -> Sequence[Target]:
    """The targets of this module."""
    return (
        Target(
            "config",
            _config,
            lambda: [_TOML],
            "bytes",
            ("latency", "memory", "quantile", "floor", "fidelity", "plan", "[targets.a]", '"""'),
            allowed=(ConfigError, InputError),
            most_bytes=8192,
        ),
        Target(
            "units",
            _units,
            lambda: [b"200ms", b"1.5 s", b"4MB", b"2MiB", b"99.5%", b"0"],
            "bytes",
            ("ms", "us", "KiB", "TB", "%", "1e9", ".", "0" * 400, "\u0661"),
            most_bytes=2048,
        ),
        Target(
            "json", _json, lambda: [sources.dumped(_ERROR), b'[0, "\\\\", "\\"[", -1e5]'], "json"
        ),
        Target(
            "answers",
            _answers,
            lambda: [
                b'{"notice": "busy"}\n{"answer": {"a": 1}}\n',
                sources.dumped({"error": _ERROR}) + b"\n",
            ],
            "json",
            ("notice", "answer", "error", "type", "fields", "StiError", "NoAnswer", "annotations"),
            allowed=(NoAnswer,),
        ),
    )
