"""Fuzz one target for so many seconds of processor time: ``python -m tests.fuzz TARGET``.

In: the name of a target, a directory to work in. Out: a JSON line for each finding, whose input is
saved, and at the end one with what was done. With atheris, inputs that reach more of the reader are
kept and changed further (libFuzzer); without it, or with ``--plain``, those of the corpus are
changed at random. ``--replay`` gives the reader saved inputs once; ``--keep`` puts them into the
corpus, and of those that were reached the fewest that reach all of it.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import nullcontext
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.fuzz.target import Target

HUNG_S = 60
"""After which a process ends itself with the input that it is at."""
_MORE_BYTES = 3 << 29
"""Of address space, beyond what is in use before the first input."""
_TOLD_S = 10.0


class Session:
    """Runs inputs of one target, and tells what is found."""

    def __init__(self, target: Target, place: Path, seconds: float, *, guided: bool) -> None:
        self._target, self._findings, self._seconds = target, place / "findings", seconds
        self._findings.mkdir(parents=True, exist_ok=True)
        self._guided = guided
        self._known: set[str] = set()
        self._runs = 0
        self._begun_s = self._told_s = time.process_time()

    def run(self, data: bytes) -> None:
        """Give the reader one input; ends the process when its time is up."""
        from tests.fuzz.target import examine

        self._runs += 1
        found = examine(self._target, data)
        if found is not None and found.kind not in self._known:
            self._known.add(found.kind)
            path = self._findings / found.name
            path.write_bytes(data)
            say({"finding": {**found._asdict(), "file": str(path)}})
        now = time.process_time()
        if now - self._told_s > _TOLD_S:
            self._told_s = now
            self._tell()
        if now - self._begun_s > self._seconds:
            self._tell()
            os._exit(0)  # libFuzzer's own way out would not be told from a crash

    def _tell(self) -> None:
        seconds = time.process_time() - self._begun_s
        say({"runs": self._runs, "seconds": seconds, "guided": self._guided})


def say(words: dict[str, Any]) -> None:
    """A line for whoever started this."""
    print(json.dumps(words), flush=True)


def main() -> int:
    """Do what the command line asks for."""
    options = _options()
    guided = not (options.plain or options.replay or options.keep is not None)
    guided = guided and find_spec("atheris") is not None
    if guided:
        import atheris

        instrumented: Any = atheris.instrument_imports(include=["sti", "shard_tools"])
    else:
        instrumented = nullcontext()
    with instrumented:
        from tests.fuzz import corpus
        from tests.fuzz.registry import all_targets

        target = all_targets()[options.target]
    place: Path = options.place
    if options.keep is not None:
        return _keep(target, place, options.keep)
    if options.replay:
        return _replay(target, options.replay)
    inputs = [*target.seeds(), *corpus.stored(target.name)]
    for number, data in enumerate(inputs):
        _write(place / "seeds" / f"{number:04}", data)
    _limit_memory()
    session = Session(target, place, options.seconds, guided=guided)
    for data in inputs:
        session.run(data)
    if guided:
        _guide(session, target, place, options)
    else:
        rng = Random(options.seed)
        for data in _mutants(target, inputs, rng):
            session.run(data)
    return 0


def _guide(session: Session, target: Target, place: Path, options: argparse.Namespace) -> None:
    import atheris

    from tests.fuzz.mutations import mutated

    def mutate(data: bytes, most: int, seed: int) -> bytes:
        rng = Random(seed)
        if rng.random() < 0.3:
            return bytes(atheris.Mutate(data, most))
        return mutated(data, target.form, target.words, rng)[:most]

    (place / "reached").mkdir(exist_ok=True)
    arguments = [sys.argv[0], f"-max_len={target.most_bytes}", f"-timeout={HUNG_S}"]
    arguments += [f"-seed={options.seed + 1}", "-rss_limit_mb=0", "-print_final_stats=0"]
    arguments += [f"-artifact_prefix={place}/findings/{target.name}-"]
    arguments += [str(place / "reached"), str(place / "seeds")]
    atheris.Setup(arguments, session.run, custom_mutator=mutate)
    atheris.Fuzz()


def _mutants(target: Target, inputs: list[bytes], rng: Random) -> Iterator[bytes]:
    from tests.fuzz.mutations import mutated

    while True:
        data = mutated(rng.choice(inputs), target.form, target.words, rng)
        yield data[: target.most_bytes]


def _replay(target: Target, files: list[Path]) -> int:
    from tests.fuzz.target import examine

    for path in files:
        found = examine(target, path.read_bytes())
        if found is not None:
            say({"finding": {**found._asdict(), "file": str(path)}})
    return 0


def _keep(target: Target, place: Path, findings: list[Path]) -> int:
    from tests.fuzz import corpus
    from tests.fuzz.keeping import fewest

    reached = [path.read_bytes() for path in sorted((place / "reached").glob("*"))]
    inputs = [*target.seeds(), *corpus.stored(target.name), *reached]
    seeds = set(target.seeds())
    least = [data for data in fewest(target, inputs) if data not in seeds]
    always = [path.read_bytes() for path in findings]
    say({"kept": corpus.store(target.name, least, always), "of": len(inputs)})
    return 0


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _limit_memory() -> None:
    """What asks for much more ends in a MemoryError, which is a finding."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    most = pages * resource.getpagesize() + _MORE_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _options() -> argparse.Namespace:
    from tests.fuzz.names import NAMES

    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("target", choices=NAMES)
    parser.add_argument("--seconds", type=float, default=60.0, help="of processor time")
    parser.add_argument("--place", type=Path, default=Path("build/fuzz"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plain", action="store_true", help="do without atheris")
    parser.add_argument("--replay", type=Path, nargs="+", metavar="FILE")
    parser.add_argument("--keep", type=Path, nargs="*", metavar="FILE")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
