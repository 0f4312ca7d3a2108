"""Choosing what decodes: the native kernel where there is one, NumPy everywhere.

In: a codebook, and perhaps the name of a path. Out: a ``GroupDecoder``. The environment variable
``STI_KERNEL`` names a path for whoever names none: ``portable`` is NumPy, the others are those of
the kernel. The only module of the package that knows of the kernel's library.
"""

from __future__ import annotations

import importlib
import os
from types import ModuleType

from sti.codec.codebook import Codebook
from sti.codec.decoder import PORTABLE, NumpyDecoder
from sti.codec.pieces import GroupDecoder
from sti.codec.weights import WeightForm
from sti.errors import BackendError

VARIABLE = "STI_KERNEL"


def available_paths() -> tuple[str, ...]:
    """The paths that work here, the best one first, ``portable`` last."""
    native = _library()
    return (*(native.available_paths() if native else ()), PORTABLE)


def make_decoder(
    codebook: Codebook, *, weights: WeightForm, path: str | None = None
) -> GroupDecoder:
    """A decoder for packs with this codebook; threads may share it.

    Args:
        codebook: the codebook of the pack.
        weights: how weights are written.
        path: one of ``available_paths``; None for the best one.

    Raises:
        BackendError: the path that is asked for does not work here.
    """
    found = kernel(path)
    if found is None:
        return NumpyDecoder(codebook, weights=weights)
    native, chosen = found
    made: GroupDecoder = native.NativeDecoder(codebook, weights=weights, path=chosen)
    return made


def kernel_path(path: str | None = None) -> str:
    """The path that ``make_decoder`` takes; arguments and errors are the same."""
    asked_for = path or os.environ.get(VARIABLE)
    if asked_for == PORTABLE:  # without so much as a look at the library
        return PORTABLE
    paths = available_paths()
    chosen = asked_for or paths[0]
    if chosen not in paths:
        asked, remedy = ("", "") if path else (f"{VARIABLE}: ", f"unset {VARIABLE}, or ")
        raise BackendError(
            f"{asked}no decoder {chosen!r} on this machine; {remedy}name one of these: "
            f"{', '.join(paths)}"
        )
    return chosen


def kernel(path: str | None = None) -> tuple[ModuleType, str] | None:
    """``sti.codec.native.kernel`` and which of its paths to take; None where NumPy is to decode.

    Arguments and errors are those of ``kernel_path``.
    """
    chosen = kernel_path(path)
    native = None if chosen == PORTABLE else _library()
    return None if native is None else (native, chosen)


def _library() -> ModuleType | None:
    try:
        found = importlib.import_module("sti.codec.native.kernel")
    except ImportError:  # built without it
        return None
    return found if found.available_paths() else None
