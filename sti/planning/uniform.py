"""Plans with every shard at one fidelity, made without a search. Pure.

In: manifest, workload, bits, a target (only its preload is used). Out: a plan, with a prediction if
a device profile is given.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from sti.device.lanes import PIPELINED, LaneThreads
from sti.device.profile import DeviceProfile
from sti.errors import InputError
from sti.model.fidelity import groups_of, uniform_counts
from sti.model.manifest import Manifest, Submodel
from sti.planning.check import check_target
from sti.planning.lane_threads import measured_choices
from sti.planning.plan import EXACT, Plan, PlanRequest
from sti.planning.preload_placement import READ_AHEAD, bare_plan, better, place, placements


def uniform_plan(
    request: PlanRequest,
    *,
    bits: int,
    profile: DeviceProfile | None = None,
    threads: LaneThreads | None = None,
    variants: Sequence[str] | None = None,
    depth: int | None = None,
    width: int | None = None,
    read_ahead: int = READ_AHEAD,
) -> Plan:
    """A plan with every shard at ``bits``, whatever the latency.

    Args:
        request: its preload is placed; its latency is recorded but not checked.
        profile: adds a prediction.
        threads: who reads, decodes and computes; where None, those that are the fastest by the
            profile, or without one ``PIPELINED``.
        variants: how products may be computed; where None, as the profile says, or without one
            exactly.
        depth, width: of the submodel; the full model's where None.

    Raises:
        InputError: the pack has no such fidelity or submodel; names those it has.
        ProfileError: the profile lacks a graph or a fidelity of the pack, or the threads.
    """
    manifest, target = request.manifest, request.target
    check_target(target)
    if bits not in manifest.ladder:
        known = ", ".join(str(step) for step in manifest.ladder)
        raise InputError(f"a fidelity of {bits} bits is not in the pack; it has {known} bits")
    submodel = _find(manifest, depth, width)
    groups = groups_of(manifest, submodel)
    counts = [uniform_counts(group, submodel.width, bits) for group in groups]
    held = target.preload_bytes
    if profile is None:
        placed = place(groups, counts, held, variants or (EXACT,))
        return bare_plan(request, submodel, placed, threads or PIPELINED, read_ahead)
    # Only needed with a profile.
    from sti.planning.cost_model import promised_s
    from sti.planning.prediction import predict
    from sti.planning.variants import variants_of

    ways = placements(groups, counts, held, variants or variants_of(manifest, profile))
    choices = measured_choices(profile, target.threads) if threads is None else (threads,)

    def promised(plan: Plan) -> float:
        assert plan.predicted is not None
        total_s = plan.predicted.total_s
        return promised_s(profile, total_s, plan.threads, quantile=target.quantile)

    best: Plan | None = None
    for placed in ways:
        plans = (bare_plan(request, submodel, placed, choice, read_ahead) for choice in choices)
        found = min(
            (replace(plan, predicted=predict(manifest, profile, plan)) for plan in plans),
            key=promised,
        )
        if best is None or better(promised(best), promised(found)):
            best = found
    assert best is not None, "there is a placement"
    return best


def _find(manifest: Manifest, depth: int | None, width: int | None) -> Submodel:
    full = manifest.submodels[0]
    depth, width = depth or full.depth, width or full.width
    if (found := manifest.submodel(depth, width)) is not None:
        return found
    known = ", ".join(f"{item.depth} x {item.width}" for item in manifest.submodels)
    raise InputError(f"depth {depth} x width {width} is not a submodel of the pack; it has {known}")
