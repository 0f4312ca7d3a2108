"""One page about a pack on this machine, in one file: no scripts, nothing loaded from elsewhere.

In: what it says. Out: HTML, the same to the byte for the same facts. Reads on a phone and on a
wide window, light and dark. Pure.
"""

from __future__ import annotations

from datetime import date

from sti.report.page.facts import PageFacts
from sti.report.page.html import element, paragraph, text
from sti.report.page.plan_sections import (
    expected_section,
    fidelity_section,
    frontier_section,
    limits_section,
    predicted_section,
)
from sti.report.page.run_sections import (
    kept_section,
    machine_section,
    measured_section,
    memory_section,
)
from sti.report.page.style import rules

GENERATOR = '<meta name="generator" content="sti report">'
"""By which a page is known as one of these."""
_HEAD = f"""\
<meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none';style-src 'unsafe-inline'">
{GENERATOR}
"""


def page(facts: PageFacts, *, today: date) -> str:
    """The page.

    Args:
        today: the day that days before are counted from.
    """
    manifest, work = facts.manifest, facts.plan.workload
    title = f"{manifest.name}: STI report"
    header = element(
        "header",
        element("h1", text(manifest.name)),
        paragraph(f"{manifest.task.capitalize()} on this machine, for {work.words}."),
    )
    sections = (
        expected_section(facts),
        frontier_section(facts),
        fidelity_section(facts),
        predicted_section(facts),
        measured_section(facts),
        limits_section(facts),
        memory_section(facts),
        machine_section(facts),
        kept_section(facts, today=today),
    )
    footer = element("footer", paragraph(f"Made {facts.made}."))
    body = element("main", header, "\n", *(f"{part}\n" for part in sections), footer)
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n{_HEAD}'
        f"{element('title', text(title))}\n<style>\n{rules()}</style>\n</head>\n"
        f"<body>\n{body}\n</body>\n</html>\n"
    )
