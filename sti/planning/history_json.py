"""Histories as JSON. Pure.

In: a history, or a parsed document from outside. Out: a JSON object, or the history with every
field checked.
"""

from __future__ import annotations

import re
from typing import Any

from sti.errors import ProfileError
from sti.json_fields import JsonFields
from sti.model.workload import Workload
from sti.planning.history import (
    HIGHEST_CLASS,
    MOST_SPANS,
    DayRuns,
    History,
    KeptTarget,
    LastRun,
)
from sti.planning.span import Span

HISTORY_VERSION = 1
_MOST_RUNS, _MOST_S, _MOST_LANES, _MOST_SIZE = 10**12, 1e6, 256, 10**6
"""Of a class, of a span, of a run, of a workload: more is no history."""
_MOST_TIME = 253_402_300_799.0
"""Seconds since the epoch at the end of the last year that calendars know, 9999."""
_MONTH_DAYS = (31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31)


def history_json(history: History) -> dict[str, Any]:
    """A JSON object that ``read_history`` reads back to an equal history."""
    return {
        "history": HISTORY_VERSION,
        "days": [
            {
                "day": item.day,
                "target": item.target._asdict(),
                "inside": item.inside,
                "late": item.late,
                "classes": [[place, item.classes[place]] for place in sorted(item.classes)],
            }
            for item in history.days
        ],
        "last": None if history.last is None else _last_json(history.last),
    }


def read_history(value: object, *, where: str) -> History:
    """Parse a history.

    Raises:
        ProfileError: an unknown version, or a field that makes no sense; names ``where``.
    """
    fields = JsonFields(value, where=where, error=ProfileError)
    fields.require_version("history", HISTORY_VERSION, remedy="delete the file")
    last = _last(fields.object("last")) if fields.has("last") else None
    return History(tuple(map(_day, fields.objects("days"))), last)


def _day(fields: JsonFields) -> DayRuns:
    day = fields.text("day")
    if not _is_day(day):
        raise fields.fail("day", "a day such as 2026-01-31")
    classes: dict[int, int] = {}
    for pair in fields.items("classes"):
        if not (isinstance(pair, list) and [type(item) for item in pair] == [int, int]):
            raise fields.fail("classes", "a list of pairs of integers")
        place, number = pair
        if not (0 <= place <= HIGHEST_CLASS and 1 <= number <= _MOST_RUNS):
            raise fields.fail("classes", "classes of times with at least one run in each")
        classes[place] = number
    found = DayRuns(
        day,
        _target(fields.object("target")),
        fields.integer("inside"),
        fields.integer("late"),
        classes,
    )
    if not classes or found.inside + found.late > found.runs:
        raise fields.fail("classes", "those of at least as many runs as were inside or late")
    return found


def _is_day(text: str) -> bool:
    """Whether it is a day of the calendar, as ``2026-01-31``."""
    found = re.fullmatch(r"([0-9]{4})-([0-9]{2})-([0-9]{2})", text)
    if found is None:
        return False
    year, month, day = map(int, found.groups())
    if not (year >= 1 and 1 <= month <= 12):
        return False
    leap = month == 2 and year % 4 == 0 and (year % 100 != 0 or year % 400 == 0)
    return 1 <= day <= _MONTH_DAYS[month - 1] + leap


def _target(fields: JsonFields) -> KeptTarget:
    return KeptTarget(
        fields.number("latency_s", least=0.0) if fields.has("latency_s") else None,
        fields.integer("memory_bytes") if fields.has("memory_bytes") else None,
        fields.integer("preload_bytes"),
        fields.number("quantile", least=0.0, most=1.0),
    )


def _last_json(last: LastRun) -> dict[str, Any]:
    names = ("ended_at", "plan", "depth", "width", "total_s", "predicted_s")
    return {
        **{name: getattr(last, name) for name in names},
        "target": last.target._asdict(),
        "workload": last.workload._asdict(),
        "lanes": {
            lane: [[round(span.start_s, 7), round(span.end_s, 7), span.name] for span in spans]
            for lane, spans in last.lanes.items()
        },
    }


def _last(fields: JsonFields) -> LastRun:
    workload, lanes = fields.object("workload"), fields.object("lanes")
    names = lanes.keys()
    if len(names) > _MOST_LANES or sum(len(lanes.items(name)) for name in names) > MOST_SPANS:
        raise fields.fail("lanes", "the spans of a few lanes")
    return LastRun(
        ended_at=fields.number("ended_at", least=0.0, most=_MOST_TIME),
        plan=fields.text("plan"),
        target=_target(fields.object("target")),
        workload=Workload(
            *(workload.integer(name, least=1, most=_MOST_SIZE) for name in Workload._fields)
        ),
        depth=fields.integer("depth", least=1),
        width=fields.integer("width", least=1),
        total_s=fields.number("total_s", least=0.0, most=_MOST_S),
        predicted_s=fields.number("predicted_s", least=0.0, most=_MOST_S)
        if fields.has("predicted_s")
        else None,
        lanes={lane: tuple(map(_span_of(lanes, lane), lanes.items(lane))) for lane in names},
    )


def _span_of(fields: JsonFields, lane: str) -> Any:
    def parse(item: object) -> Span:
        if isinstance(item, list) and len(item) == 3 and isinstance(item[2], str):
            start, end, name = item
            good = all(type(time) in (int, float) for time in (start, end))
            if good and 0.0 <= start <= end <= _MOST_S:  # which no NaN is
                return Span(start, end, name)
        raise fields.fail(lane, "spans of start, end and name")

    return parse
