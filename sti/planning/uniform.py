"""Plans with every shard at one fidelity, made without a search. Pure.

In: manifest, workload, bits, a target (only its preload is used). Out: a plan, with a prediction if
a device profile is given.
"""

from __future__ import annotations

from dataclasses import replace

from sti.device.profile import DeviceProfile
from sti.errors import InputError
from sti.model.fidelity import groups_of, uniform_counts
from sti.model.manifest import Manifest, Submodel
from sti.planning.check import check_target
from sti.planning.decode_threads import clamp_decode_threads
from sti.planning.plan import Plan, PlanRequest
from sti.planning.preload_placement import READ_AHEAD, bare_plan, place


def uniform_plan(
    request: PlanRequest,
    *,
    bits: int,
    profile: DeviceProfile | None = None,
    decode_threads: int | None = None,
    depth: int | None = None,
    width: int | None = None,
    read_ahead: int = READ_AHEAD,
) -> Plan:
    """A plan with every shard at ``bits``, whatever the latency.

    Args:
        request: its preload is placed; its latency is recorded but not checked.
        profile: adds a prediction, and its decode threads where ``decode_threads`` is None
            (without either: 1).
        decode_threads: cut to what the pack has use for (``sti.planning.decode_threads``).
        depth, width: of the submodel; the full model's where None.

    Raises:
        InputError: the pack has no such fidelity or submodel; names those it has.
        ProfileError: the profile lacks a graph or a fidelity of the pack.
    """
    manifest, target = request.manifest, request.target
    check_target(target)
    if bits not in manifest.ladder:
        known = ", ".join(str(step) for step in manifest.ladder)
        raise InputError(f"a fidelity of {bits} bits is not in the pack; it has {known} bits")
    submodel = _find(manifest, depth, width)
    if decode_threads is None:
        decode_threads = 1 if profile is None else profile.decoders
    decode_threads = clamp_decode_threads(manifest, decode_threads)
    groups = groups_of(manifest, submodel)
    counts = [uniform_counts(group, submodel.width, bits) for group in groups]
    placed = place(groups, counts, target.preload_bytes)
    plan = bare_plan(request, submodel, placed, decode_threads, read_ahead)
    if profile is None:
        return plan
    from sti.planning.prediction import predict  # only needed with a profile

    return replace(plan, predicted=predict(manifest, profile, plan))


def _find(manifest: Manifest, depth: int | None, width: int | None) -> Submodel:
    full = manifest.submodels[0]
    depth, width = depth or full.depth, width or full.width
    if (found := manifest.submodel(depth, width)) is not None:
        return found
    known = ", ".join(f"{item.depth} x {item.width}" for item in manifest.submodels)
    raise InputError(f"depth {depth} x width {width} is not a submodel of the pack; it has {known}")
