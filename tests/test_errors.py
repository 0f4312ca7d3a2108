"""Errors: they are copied, and go to other processes, with all that they tell."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Iterator

import pytest

from sti.errors import InfeasibleError, LimitError, PeerLostError, StiError


def kinds(base: type[StiError] = StiError) -> Iterator[type[StiError]]:
    """Every error of the tree."""
    yield base
    for kind in base.__subclasses__():
        yield from kinds(kind)


def made(kind: type[StiError]) -> StiError:
    if issubclass(kind, InfeasibleError):
        return kind("a message", limit="memory", asked=1.0, needed=2.0)
    if issubclass(kind, LimitError):
        return kind("a message", limit="files")
    if issubclass(kind, PeerLostError):
        return kind("a message", peer="board")
    return kind("a message")


@pytest.mark.parametrize("kind", [kind for kind in kinds() if kind.__module__ == "sti.errors"])
def test_every_error_survives_being_pickled_and_copied(kind: type[StiError]) -> None:
    error = made(kind)
    error.__dict__["note"] = "more"
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(again) is kind and again is not error
        assert (str(again), again.args, vars(again)) == (str(error), error.args, vars(error))
