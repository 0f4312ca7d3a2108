"""Workers that answer what they should not: the controller answers by itself, and says why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sti.devices import commands
from sti.engine.device_options import DeviceOptions
from sti.exchange.interface import Message
from tests.support.packs import SHAPE, TEXTS, tiny_pack
from tests.support.raw_controllers import WORKER
from tests.support.raw_workers import Answer, raw_worker
from tests.support.workers import asking, write_config

REPORT = {"total_s": 0.1, "waited_s": 0.0, "read_bytes": 1}
COUNT, SIZE = len(TEXTS), SHAPE.hidden
ROWS = np.zeros(COUNT * SIZE, np.float32)


def answer(**changes: Any) -> Mapping[str, Any]:
    sound = {"is": commands.ANSWER, "report": REPORT, "shapes": [[COUNT, SIZE]]}
    return {**sound, **changes}


@pytest.mark.parametrize(
    ("head", "arrays", "why"),
    [
        (answer(shapes=[[COUNT - 1, SIZE]]), (ROWS[SIZE:],), "is of other texts than were due"),
        (answer(shapes=[[SIZE, COUNT]]), (ROWS,), "is of other texts than were due"),
        (answer(shapes=[[COUNT * SIZE]]), (ROWS,), "is of other texts than were due"),
        (answer(shapes=[]), (), "sent no answers of the shapes"),
        (answer(shapes=[[COUNT, SIZE]]), (ROWS[1:],), "sent no answers of the shapes"),
        (answer(shapes=[[1 << 40, 1 << 40]]), (ROWS,), "sent no answers of the shapes"),
        (answer(shapes=[["4", -1]]), (ROWS,), "sent no answers of the shapes"),
        (answer(shapes=1), (ROWS,), "field 'shapes' must be a list"),
        (answer(), (), "sent no answers of the shapes"),
        (answer(), (ROWS.astype(np.float16),), "sent no answers of the shapes"),
        (answer(), (np.full_like(ROWS, np.nan),), "has numbers that are not finite"),
        (answer(report=None), (ROWS,), "report: expected an object"),
        (answer(report={**REPORT, "total_s": "1"}), (ROWS,), "field 'total_s' must be a number"),
        (answer(report={**REPORT, "more": 1}), (ROWS,), "unknown field 'more'"),
        (answer(**{"is": commands.DONE}), (), "is 'done', and 'answer' was due"),
        (answer(**{"is": commands.HIDDEN}), (ROWS,), "is 'hidden', and 'answer' was due"),
        (answer(**{"is": ["answer"]}), (ROWS,), "and 'answer' was due"),
        ({}, (), "is None, and 'answer' was due"),
        ({"is": commands.FAILED, "why": "a moth"}, (), "a: a moth"),
        ({"is": commands.FAILED, "why": "a moth", "without": "z"}, (), "a: a moth"),
        ({"is": commands.FAILED, "why": "a moth", "more": 1}, (), "a: a moth"),
        ({"is": commands.FAILED, "why": "a moth", "without": []}, (), "'without' must be a string"),
        ({"is": commands.FAILED}, (), "field 'why' must be a string"),
    ],
)
def test_an_answer_that_is_none_is_not_taken(
    tmp_path: Path, head: Mapping[str, Any], arrays: Sequence[NDArray[Any]], why: str
) -> None:
    def run(asked: Message) -> Answer | None:
        return head, arrays

    config, said = tmp_path / "devices.toml", []
    write_config(config, {WORKER: "127.0.0.1:7000"})
    with raw_worker(run=run) as exchange:
        options = DeviceOptions(config, strategy="chain", exchange=exchange)
        with asking(tiny_pack(), TEXTS, options, said.append) as asked:
            (notice,) = asked.once().notices
            assert why in notice and "a" in notice
            assert not asked.once().notices
