"""Texts through stages that the caller chooses, over devices that are there.

In: a pack, what reaches devices, stages. Out: the head's outputs. What an engine does with a
strategy (``sti.engine.several_devices``), without choosing one or emulating its machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Self

from sti.arrays import Float32Array
from sti.backend.onnxruntime.compute import OrtBackend
from sti.calibration.calibrate import load_or_measure
from sti.devices.chain import Chains
from sti.devices.facts import own_facts
from sti.devices.peers import Peers
from sti.exchange.interface import Exchange
from sti.model.workload import bucket
from sti.pack.pack_reader import PackReader
from sti.pack.tokenizer import pack_tokenizer
from sti.pipeline.runner import Runner
from sti.pipeline.trace import Recorder
from sti.planning.plan import LOCAL, Plan, PlanRequest
from sti.planning.stage_times import Member
from sti.planning.stages import Stage
from sti.planning.step_jobs import StepJob, prepare
from sti.planning.strategies import ChainPricing
from sti.planning.uniform import uniform_plan

_WITHIN_S = 60.0


class GivenStages:
    """A controller that does as it is told; a context manager.

    Args:
        pack: the whole one.
        exchange: reaches the devices; closed with this.
        addresses: of each device by its name.
        connect: makes the device of a name reachable at an address.
        bits: fidelity of all shards.
    """

    def __init__(
        self,
        pack: Path,
        exchange: Exchange,
        addresses: Mapping[str, str],
        connect: Callable[[str, str], None],
        bits: int,
    ) -> None:
        self._bits = bits
        with ExitStack() as closed:
            closed.callback(exchange.close)
            self._reader = reader = closed.enter_context(PackReader.open(pack))
            backend = OrtBackend(reader, lanes=1)
            runner = Runner(reader, backend)
            closed.callback(runner.close)
            self._profile = load_or_measure(reader, backend, threads=1)
            facts = own_facts(reader, self._profile, threads=1, room_bytes=0, preload_bytes=0)
            self._peers = Peers(exchange, addresses, facts, connect=connect, notify=lambda _: None)
            self._peers.meet()
            self._chains = Chains(self._peers, runner, self._jobs, reader.manifest)
            self._tokenizer = pack_tokenizer(reader)
            self._closed = closed.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._closed.close()

    def run(
        self,
        texts: Sequence[str],
        stages: Sequence[tuple[str, int, int]],
        *,
        units: int,
        link_type: str,
    ) -> tuple[Float32Array, ...]:
        """The head's output for each text.

        Args:
            stages: device, first and last layer of each; ``local`` is this one.
            units: into how many parts the texts are divided.
            link_type: how hidden states travel.

        Raises:
            PeerError: a device failed, or is not there.
        """
        manifest, most = self._reader.manifest, self._reader.manifest.dimensions.max_tokens
        encodings = [self._tokenizer.encode(text) for text in texts]
        longest = max(len(item.ids) for item in encodings)
        workload = bucket(-(-len(texts) // units), longest, most=most)
        plan = uniform_plan(
            PlanRequest(manifest, self._reader.pack_id, workload),
            bits=self._bits,
            profile=self._profile,
        )
        fleet = self._peers.fleet(Member(LOCAL, self._profile, plan.threads), link_type)
        pricing = ChainPricing(manifest, plan, fleet, workload)
        strategy = pricing.strategy(tuple(Stage(*item) for item in stages), units)
        outcome = self._chains.run(
            strategy,
            plan,
            encodings,
            recorder=Recorder(perf_counter()),
            link_type=link_type,
            within_s=_WITHIN_S,
        )
        return outcome.outputs

    def _jobs(self, plan: Plan) -> tuple[StepJob, ...]:
        return prepare(plan, self._reader.manifest, self._reader.group_offset)
