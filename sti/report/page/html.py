"""Parts of HTML pages: elements, tables, folds. Pure.

In: text, which is escaped, and parts made here. Out: parts. A part is never escaped again, so what
comes from outside goes through ``text``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NewType

from sti.report.svg.text import escaped

Part = NewType("Part", str)
"""HTML that is whole: its elements are closed, its text is escaped."""


def text(said: str) -> Part:
    """Text as a part."""
    return Part(escaped(said))


def element(name: str, *parts: Part | str, **attributes: str) -> Part:
    """An element around parts; strings that are not parts have to be fit for HTML.

    Args:
        attributes: a name that ends with ``_`` is meant without it; ``_`` elsewhere is ``-``.
    """
    said = "".join(
        f' {key.removesuffix("_").replace("_", "-")}="{escaped(value)}"'
        for key, value in attributes.items()
    )
    return Part(f"<{name}{said}>{''.join(parts)}</{name}>")


def of_hundred(share: float) -> str:
    """A share of runs: ``98 of 100``."""
    return f"{100.0 * share:.6g} of 100"


def paragraph(*said: str) -> Part:
    """A paragraph of text."""
    return element("p", text(" ".join(part for part in said if part)))


def section(name: str, heading: str, *parts: Part) -> Part:
    """A section with its heading; ``name`` is unique in a page."""
    title = element("h2", text(heading), id=name)
    return element("section", title, "\n", *parts, "\n", aria_labelledby=name)


def table(label: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Part:
    """A table that scrolls where it is too wide; its first column names the rows."""
    head = element("tr", *(element("th", text(cell), scope="col") for cell in header))
    body = (
        element(
            "tr",
            element("th", text(row[0]), scope="row"),
            *(element("td", text(cell)) for cell in row[1:]),
            "\n",
        )
        for row in rows
    )
    inner = element("table", element("thead", head), element("tbody", *body))
    return element("div", inner, class_="scroll", role="region", aria_label=label, tabindex="0")


def folded(summary: str, *parts: Part) -> Part:
    """Parts that are shown on demand."""
    return element("details", element("summary", text(summary)), *parts)


def tiles(facts: Sequence[tuple[str, str, str]]) -> Part:
    """The main figures: what each is, its value, and a note below it."""
    return element(
        "dl",
        *(
            element(
                "div",
                element("dt", text(name)),
                element("dd", element("b", text(value)), element("small", text(note))),
            )
            for name, value, note in facts
        ),
        class_="tiles",
    )
