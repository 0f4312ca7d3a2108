"""Shared by commands that open an engine: the target their options ask for, and opening it.

In: parsed arguments. Out: a ``TargetSpec``, or an open engine whose notices go to standard error.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from sti.cli.program import notice
from sti.engine.device_options import AUTO, MPI, ZEROMQ, DeviceOptions
from sti.engine.targets import TargetSpec, resolve
from sti.errors import InputError
from sti.planning.plan import LOCAL

if TYPE_CHECKING:
    from sti.engine.engine import Engine


def target_of(args: argparse.Namespace) -> TargetSpec:
    """The target that ``--target`` names, overridden by the other target options."""
    given = TargetSpec(
        latency=args.latency,
        memory=args.memory,
        preload=args.preload,
        quantile=args.quantile,
        floor=args.floor,
        fidelity=args.fidelity,
        plan=args.plan,
    )
    return resolve(args.target, given, config=args.config)


def devices_of(args: argparse.Namespace) -> DeviceOptions | None:
    """The other devices that the options name; None where there are none.

    Raises:
        InputError: options for devices without any.
    """
    if getattr(args, "devices", None) is None and getattr(args, "engine", ZEROMQ) != MPI:
        for name, default in (("keys", None), ("strategy", AUTO)):
            if getattr(args, name, default) not in (default, LOCAL):
                raise InputError(f"--{name} needs --devices FILE, which names the devices")
        return None
    exchange = getattr(args, "exchange", None)
    ranks = () if exchange is None else exchange.peers
    return DeviceOptions(args.devices, args.keys, args.strategy, args.engine, exchange, ranks)


def open_engine(
    args: argparse.Namespace,
    target: TargetSpec | None = None,
    *,
    verify: bool = False,
    strict: bool = False,
    comparable: bool = True,
    adapt: bool = True,
    history: bool = True,
    yield_memory: bool = True,
    tokens: int | None = None,
) -> Engine:
    """The engine that the options common to ``run`` and ``plan`` ask for.

    Args:
        target: instead of the one that the options ask for.
        verify, strict, comparable, adapt, history, yield_memory, tokens: as ``Engine.open``
            takes them.
    """
    from sti.engine.engine import Engine  # plans for other devices are made without onnxruntime

    return Engine.open(
        args.pack,
        target or target_of(args),
        devices=devices_of(args),
        threads=args.threads,
        verify=verify,
        strict=strict,
        comparable=comparable,
        tokens=tokens,
        adapt=adapt,
        history=history,
        yield_memory=yield_memory,
        notify=notice,
    )
