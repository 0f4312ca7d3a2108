"""The page as text: whole, escaped, true, with drawings that fit a phone."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from datetime import date, timedelta
from random import Random
from typing import Any

import pytest

from sti.model.manifest import Manifest
from sti.model.quality import Quality
from sti.model.workload import Workload
from sti.planning.conditions import as_measured
from sti.planning.history import EndedRun, History, history_of, last_of
from sti.planning.lane_limits import lane_limits
from sti.planning.memory import MemoryPart
from sti.planning.next_planes import explain_blocks
from sti.planning.plan import Plan, PlanRequest, Target
from sti.planning.span import Span
from sti.planning.uniform import uniform_plan
from sti.report.explanation import Explanation
from sti.report.page.facts import FrontierPoint, KeptRuns, MachineFacts, PageFacts
from sti.report.page.page import GENERATOR, page
from tests.support.drawings import check_layout
from tests.support.pages import Page
from tests.support.synthetic import make_manifest, make_profile

TODAY = date(2026, 3, 1)
TARGET = Target(0.02, 5000)
PLAIN = make_manifest(Random(1))
RANKED = PLAIN._replace(quality=Quality("accuracy", 100, 0.01, (0.0, 9.0), (0.9, 0.8)))
PROFILE = make_profile(ladder=(2, 4, 8))
HOSTILE = "</title></style><script>alert('1')</script>\"&\x00\ud800\u202e" + "x" * 300
NONE = KeptRuns(History(), "", "")
SVG = re.compile(r"<svg.*?</svg>", re.DOTALL)


def plan_of(manifest: Manifest, bits: int = 4) -> Plan:
    request = PlanRequest(manifest, "pack", Workload(1, 32), TARGET)
    return uniform_plan(request, bits=bits, profile=PROFILE)


def facts_of(manifest: Manifest = RANKED, **changes: Any) -> PageFacts:
    plan = plan_of(manifest)
    conditions = as_measured(PROFILE, plan.workload, plan.target)
    blocks = explain_blocks(manifest, plan, conditions, conditions, asked=True)
    limits = lane_limits(manifest, plan, conditions)
    frontier = [
        FrontierPoint(latency_s, plan_of(manifest, bits))
        for latency_s, bits in ((0.001, 2), (0.02, 4), (0.04, 8))
    ]
    facts = PageFacts(
        manifest=manifest,
        plan=plan,
        promised_s=0.015,
        explanation=Explanation(manifest, plan, plan.workload, blocks, limits, None),
        frontier=frontier,
        memory=[MemoryPart("working buffers", 3_000_000), MemoryPart("weights", 9_000_000, True)],
        machine=MachineFacts(PROFILE, "2026-02-28 12:00"),
        kept=NONE,
        run_command="sti run pack 'a text'",
        made="2026-03-01 12:00 by STI 1",
    )
    return replace(facts, **changes)


def read(facts: PageFacts) -> Page:
    return Page.read(page(facts, today=TODAY))


def kept(days: int, target: Target = TARGET) -> KeptRuns:
    """Ten runs on each of some days, one of them late."""
    runs = [
        EndedRun((TODAY - timedelta(days=ago)).isoformat(), target, 0.01 + 0.002 * number, met)
        for ago in range(days)
        for number, met in enumerate([True] * 9 + [False])
    ]
    lanes = {"storage": (Span(0.0, 0.004, "0 ffn 0"),), "compute": (Span(0.001, 0.01, "head"),)}
    last = last_of(plan_of(RANKED), Workload(1, 32), lanes, ended_at=1.0, total_s=0.0123)
    return KeptRuns(history_of(runs, last), "", "2026-03-01 11:00")


@pytest.mark.parametrize("manifest", [PLAIN, RANKED], ids=["unranked", "ranked"])
@pytest.mark.parametrize("runs", [NONE, kept(1), kept(2), kept(90)], ids=["0", "1", "2", "90"])
def test_drawings_are_whole_and_fit_a_phone_and_a_wide_window(
    manifest: Manifest, runs: KeptRuns
) -> None:
    html = page(facts_of(manifest, kept=runs), today=TODAY)
    Page.read(html)
    found = SVG.findall(html)
    assert len(found) == 2 * html.count("<figure>") >= 8
    for drawn, width in zip(found, ("760", "320") * (len(found) // 2), strict=True):
        assert '<svg xmlns="http://www.w3.org/2000/svg" class="sti-drawing" role="img" ' in drawn
        assert f'width="{width}"' in drawn
        sizes = [float(size) for size in re.findall(r'font-size="([\d.]+)"', drawn)]
        assert min(sizes) >= 12
        check_layout(drawn)


def test_the_same_facts_give_the_same_page() -> None:
    assert page(facts_of(), today=TODAY) == page(facts_of(), today=TODAY)
    assert GENERATOR in page(facts_of(), today=TODAY)[:1000]


def test_every_text_from_outside_is_escaped() -> None:
    runs = kept(2)
    last = runs.history.last
    assert last is not None
    last = last._replace(plan=HOSTILE, lanes={HOSTILE: (Span(0.0, 0.01, HOSTILE),)})
    hostile = facts_of(
        RANKED._replace(name=HOSTILE, task=HOSTILE),
        run_command=HOSTILE,
        made=HOSTILE,
        machine=MachineFacts(replace(PROFILE, device=HOSTILE), HOSTILE),
        kept=KeptRuns(runs.history._replace(last=last), "", HOSTILE),
        memory=[MemoryPart(HOSTILE, 1000)],
    )
    for facts in (hostile, replace(hostile, kept=KeptRuns(History(), HOSTILE, ""))):
        html = page(facts, today=TODAY)
        html.encode("utf-8")
        found = Page.read(html)
        assert "script" not in found.tags and "\x00" not in html
        assert "alert('1')" in found.text
        assert len(found.ids) == 9


def test_both_modes_have_colours_and_nothing_else_is_loaded() -> None:
    html = page(facts_of(), today=TODAY)
    assert "color-scheme:light dark" in html
    assert html.count("prefers-color-scheme:dark") == 1 + len(SVG.findall(html))
    assert "default-src 'none'" in html.replace("&#x27;", "'")
    assert "url(" not in html and "@import" not in html


def test_a_page_of_a_pack_that_was_never_run_has_no_measured_part() -> None:
    found = read(facts_of())
    assert found.text.count("was not run on this machine yet") == 2
    assert "Timeline, measured" not in found.text and "Day by day" not in found.text
    assert "sti run pack 'a text'" in found.text


def test_targets_kept_are_counted() -> None:
    found = read(facts_of(kept=kept(12)))
    assert "120 runs since 2026-02-18 under the target of this page" in found.text
    assert "90.0 % were in time (wanted: 98 of 100)" in found.text
    rows = next(table for table in found.tables if table[0][0] == "day")
    assert rows[1][:4] == ["2026-03-01", "20.0 ms, preload 5.00 KB", "10", "90.0 %"]
    assert len(rows) == 1 + 10 and "2 earlier rows" in found.text


def test_runs_under_another_target_are_told_as_such() -> None:
    found = read(facts_of(kept=kept(2, Target(0.5))))
    assert "20 runs since 2026-02-28 under the target with the most runs, 500 ms" in found.text
    without = read(facts_of(kept=kept(2, Target())))
    assert "no latency" in without.text and "in time (wanted" not in without.text


def test_a_measured_run_of_another_plan_says_so() -> None:
    own = read(facts_of(kept=kept(1)))
    assert "under the plan of this page" in own.text
    other = read(replace(facts_of(kept=kept(1)), plan=plan_of(RANKED, 8)))
    assert "under another plan than that of this page" in other.text


def test_memory_that_is_mapped_is_told_apart() -> None:
    found = read(facts_of())
    assert "adds about 3.00 MB" in found.text and "9.00 MB more are mapped" in found.text
    plain = read(facts_of(memory=[MemoryPart("buffers", 3_000_000)]))
    assert "mapped" not in plain.text


def test_a_frontier_of_one_quality_is_no_drawing() -> None:
    points = [FrontierPoint(latency_s, plan_of(RANKED)) for latency_s in (0.01, 0.02)]
    assert "gives the same quality" in read(facts_of(frontier=points)).text
    assert "no other latency" in read(facts_of(frontier=[])).text


def test_a_provisional_profile_says_so() -> None:
    profile = replace(PROFILE, disturbed=0.5)
    assert "provisional" in read(facts_of(machine=MachineFacts(profile, ""))).text


def test_the_numbers_of_the_frontier_are_those_of_its_plans() -> None:
    facts = facts_of()
    rows = next(table for table in read(facts).tables if table[0][0] == "latency")[1:]
    assert [row[0] for row in rows] == ["1.00 ms", "20.0 ms", "40.0 ms"]
    for row, point in zip(rows, facts.frontier, strict=True):
        assert row[2] == f"{point.plan.depth} x {point.plan.width}"


def test_facts_are_json() -> None:
    document = json.loads(json.dumps(facts_of(kept=kept(3)).to_json(), allow_nan=False))
    assert document["plan"]["depth"] == facts_of().plan.depth
    assert len(document["history"]["days"]) == 3
    assert [part["size"] for part in document["memory"]] == [3_000_000, 9_000_000]
