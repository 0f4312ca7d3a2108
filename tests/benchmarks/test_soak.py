"""The figures of a soak: a leak is found, noise is none, and what else must stay the same."""

from __future__ import annotations

import numpy as np

from benchmarks.security_soak import Sample, slope_of, summarize

RUNS = np.arange(500, 100_001, 500)


def walk(seed: int) -> list[float]:
    """Sizes as they are without a leak: each like the one before it, now and then a page more."""
    steps = np.random.default_rng(seed).normal(0, 4096, len(RUNS))
    found = [0.0]
    for step in steps:
        found.append(0.5 * found[-1] + step)
    return found[1:]


def samples(sizes: list[float], *, answer: str = "a", threads: int = 3) -> list[Sample]:
    """Samples of such sizes; the last one has another answer, the last half other threads."""
    made = [
        Sample(int(runs), 1.0, "a", int(size), None, 3, 5, int(size), int(size), 1, 4, {"a": 1})
        for runs, size in zip(RUNS, sizes, strict=True)
    ]
    half = len(made) // 2
    made[half:] = [item._replace(open_threads=threads) for item in made[half:]]
    return [*made[:-1], made[-1]._replace(answer=answer)]


def test_a_leak_of_a_few_bytes_is_found_and_noise_is_none() -> None:
    for seed in range(5):
        noise = walk(seed)
        assert slope_of(RUNS, noise).bound < 1.0
        leaking = slope_of(
            RUNS, [size + 3.5 * runs for size, runs in zip(noise, RUNS, strict=True)]
        )
        assert abs(leaking.found - 3.5) < 0.5
        assert leaking.bound >= leaking.found


def test_every_change_that_must_not_be_is_short_of_its_limit() -> None:
    def verdicts(items: list[Sample]) -> list[str]:
        return [str(name) for name, *_, said in summarize(items).limits if said == "SHORT"]

    assert verdicts(samples(walk(1))) == []
    (other,) = verdicts(samples(walk(1), answer="b"))
    assert "other answers" in other
    (more,) = verdicts(samples(walk(1), threads=4))
    assert "more threads" in more
    leaking = [size + 5.0 * runs for size, runs in zip(walk(1), RUNS, strict=True)]
    assert len(verdicts(samples(leaking))) == 3
