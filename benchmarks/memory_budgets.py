"""Is a budget of memory kept? Random budgets, packs, targets and texts, each in a fresh process.

In: packs, a seed. Out: for each process how much it grew, over its budget. What is refused is
counted apart, with the growth until then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from math import exp, log
from random import Random
from typing import Any, NamedTuple

from benchmarks.common import Column, Table, at_most, median
from benchmarks.memory_process import MeasuredProcess
from benchmarks.memory_setting import (
    HELD_S,
    MB,
    Pack,
    Setting,
    Spans,
    spans_of,
    target_words,
    threads_of_machine,
)
from benchmarks.rows import Summary, reported, tell
from sti.units import exact_size

BELOW, ABOVE = 0.8, 1.2
"""Budgets: from this share of a pack's least to this one of what holds the whole."""
BATCHES = (1, 1, 1, 1, 1, 1, 4, 16)
LEAST_TOKENS = 3
_MOST_LENGTHS = 4
_TIMES = 3
ANSWERED, AT_OPENING, AT_RUN, FAILED = (
    "answered",
    "refused at opening",
    "refused at a run",
    "failed",
)


class Case(NamedTuple):
    """What one process does."""

    number: int
    pack: str
    target: dict[str, Any]
    memory_bytes: int
    threads: int
    texts: tuple[tuple[int, int], ...]
    """Batches and tokens, one after the other."""
    waits: bool
    """Whether it waits for what is to be held before the first run."""


class Outcome(NamedTuple):
    """What became of it."""

    case: Case
    state: str
    answered: int
    """Batches that were answered."""
    answered_bytes: int
    """The most that the process grew until the last answer; what a graph maps comes on top."""
    peak_bytes: int
    """The most until the end, or until it was refused."""
    counted_bytes: int
    """After the last answer, weights that a graph maps included."""
    form: str
    said: str

    @property
    def ratio(self) -> float:
        """Anonymous memory taken for answers over the budget."""
        return self.answered_bytes / self.case.memory_bytes

    @property
    def counted_ratio(self) -> float:
        """The same, or where that is more, what there was after an answer with mapped weights."""
        return max(self.answered_bytes, self.counted_bytes) / self.case.memory_bytes

    @property
    def refused_ratio(self) -> float:
        """What was taken until the refusal over the budget."""
        return self.peak_bytes / self.case.memory_bytes


def draw(rng: Random, number: int, pack: Pack, spans: Spans) -> Case:
    """A random case for a pack."""

    def between(least: float, most: float) -> float:
        return exp(rng.uniform(log(least), log(max(least, most))))

    target = rng.choice(
        (
            {"fidelity": rng.choice(pack.ladder)},
            {"latency": f"{between(20, 1000):.0f}ms"},
            {},
        )
    )
    lengths = 1 if rng.random() < 0.7 else rng.randint(2, _MOST_LENGTHS)
    texts = [
        (rng.choice(BATCHES), round(between(LEAST_TOKENS, pack.max_tokens))) for _ in range(lengths)
    ]
    memory = between(BELOW * spans.least_bytes, ABOVE * spans.whole_bytes)
    threads = rng.choice(threads_of_machine())
    return Case(number, pack.name, target, round(memory), threads, tuple(texts), rng.random() < 0.5)


def run_case(case: Case, pack: Pack) -> Outcome:
    """One process from its start to its end."""
    given = {**case.target, "memory": exact_size(case.memory_bytes)}
    texts = [pack.texts(*size) for size in case.texts]
    answered = answered_bytes = counted = 0
    form, reply = "-", {}
    with MeasuredProcess(texts) as process:
        reply = process.ask("open", pack=str(pack.path), target=given, threads=case.threads)
        place = AT_OPENING
        if case.waits and "open_s" in reply:
            reply = process.ask("wait", seconds=HELD_S)
        for number in range(len(texts)):
            for last in (False, True):  # with what is held then: a graph may open meanwhile
                if "refused" not in reply and "error" not in reply:
                    place = AT_RUN
                    if last:
                        process.ask("wait", seconds=HELD_S)
                    reply = process.ask("run", texts=number, times=_TIMES)
            if "form" not in reply:
                break
            answered, form = answered + 1, reply["form"]
            answered_bytes = process.peak_bytes
            counted = max(counted, process.growth_bytes + process.mapped_bytes())
        peak = process.peak_bytes
    state = ANSWERED
    if "refused" in reply:
        state = place
    elif "error" in reply:
        state = FAILED
    said = str(reply.get("error") or reply.get("said") or "")
    return Outcome(case, state, answered, answered_bytes, peak, counted, form, said)


def _run_or_fail(case: Case, pack: Pack) -> Outcome:
    try:
        return run_case(case, pack)
    except (OSError, RuntimeError) as error:  # the others go on
        return Outcome(case, FAILED, 0, 0, 0, 0, "-", str(error))


def measure(setting: Setting) -> Iterator[Outcome]:
    """Every outcome as it comes."""
    rng = Random(setting.seed)
    spans = {}
    for pack in setting.packs:
        tell(f"budget: {pack.name}: how large budgets may be")
        spans[pack.name] = found = spans_of(pack)
        tell(f"  {found.least_bytes / MB:.1f} to {found.whole_bytes / MB:.1f} MB")
    packs = {pack.name: pack for pack in setting.packs}
    cases = []
    for number in range(setting.runs):
        pack = rng.choice(setting.packs)
        cases.append(draw(rng, number, pack, spans[pack.name]))
    with ThreadPoolExecutor(setting.jobs, "memory-case") as pool:
        try:
            waiting = [pool.submit(_run_or_fail, case, packs[case.pack]) for case in cases]
            for done, future in enumerate(as_completed(waiting), 1):
                outcome = future.result()
                tell(f"{done} of {setting.runs}: {words(outcome)}")
                yield outcome
        finally:
            pool.shutdown(cancel_futures=True)


def words(outcome: Outcome) -> str:
    """One line about it."""
    case = outcome.case
    texts = ", ".join(f"{batch} x {tokens}" for batch, tokens in case.texts)
    over = "OVER " if outcome.answered and outcome.counted_ratio > 1 else ""
    ratio = outcome.ratio if outcome.answered else outcome.refused_ratio
    mapped = f" ({outcome.counted_ratio:.3f} with mapped weights)" if outcome.answered else ""
    return (
        f"{over}{outcome.state}: {ratio:.3f}{mapped} of {case.memory_bytes / MB:.2f} MB, "
        f"{outcome.form}; case {case.number}: {case.pack}, {target_words(case.target)}, "
        f"{case.threads} threads, texts {texts}{', waits' if case.waits else ''}; {outcome.said}"
    )


def summarize(outcomes: Sequence[Outcome]) -> Summary:
    """Counts, and those over their budget by name."""
    found = Summary()
    states = Counter(outcome.state for outcome in outcomes)
    answered = [outcome for outcome in outcomes if outcome.answered]
    over = [outcome for outcome in answered if outcome.counted_ratio > 1]
    refused = [item for item in outcomes if item.state in (AT_OPENING, AT_RUN)]
    columns = (*(Column("process"), Column("count", ",d"), Column("over the budget", ",d")),)
    columns += (Column("most, of the budget", ".3f"), Column("median", ".3f"))
    table = Table("Budgets", columns)
    for state in (ANSWERED, AT_OPENING, AT_RUN, FAILED):
        mine = [item for item in outcomes if item.state == state]
        ratios = [item.ratio if state == ANSWERED else item.refused_ratio for item in mine]
        figures = (max(ratios), median(ratios)) if ratios else (None, None)
        table.rows.append((state, states[state], sum(ratio > 1 for ratio in ratios), *figures))
    as_graph = sum(item.form == "graph" for item in answered)
    found.tables.append(table)
    found.limits += [
        at_most(
            f"answers over the budget, of {len(answered):,} processes",
            sum(item.ratio > 1 for item in answered),
            0,
        ),
        at_most("answers over the budget with what a graph maps", len(over), 0),
        at_most(f"processes that failed, of {len(outcomes):,}", states[FAILED], 0),
        reported(
            f"refusals over the budget until then, of {len(refused):,}",
            sum(item.refused_ratio > 1 for item in refused),
        ),
    ]
    if answered:
        most = max(item.ratio for item in answered)
        counted = max(item.counted_ratio for item in answered)
        found.limits += [
            reported("the most that was taken, of the budget", most),
            reported("the same with what a graph maps", counted),
        ]
    found.notes.append(
        "over: anonymous memory beyond the imports, at any time until the last answer; mapped "
        f"weights count as they are after an answer; {as_graph:,} processes ended with a graph"
    )
    found.notes += [f"over: {words(outcome)}" for outcome in over]
    found.notes += [words(outcome) for outcome in outcomes if outcome.state == FAILED]
    return found
