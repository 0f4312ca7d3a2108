"""HTML pages read back: that they are whole, and what they say."""

from __future__ import annotations

from dataclasses import dataclass, field
from html.parser import HTMLParser

VOID = {"meta", "br", "img", "link", "input", "hr"}


@dataclass
class Page(HTMLParser):
    """What a page holds. Fails where a tag is not closed, or closes another one."""

    open: list[str] = field(default_factory=list)
    ids: list[str] = field(default_factory=list)
    tags: set[str] = field(default_factory=set)
    attributes: list[tuple[str, str]] = field(default_factory=list)
    headings: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)
    tables: list[list[list[str]]] = field(default_factory=list)
    svgs: int = 0

    def __post_init__(self) -> None:
        super().__init__(convert_charrefs=True)

    @classmethod
    def read(cls, html: str) -> Page:
        page = cls()
        page.feed(html)
        page.close()
        assert page.open == [], page.open
        return page

    @property
    def text(self) -> str:
        """All text, styles apart."""
        return " ".join(self.said)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(name, value or "") for name, value in attrs]
        self.ids += [value or "" for name, value in attrs if name == "id"]
        self.svgs += tag == "svg"
        if tag == "table":
            self.tables.append([])
        if tag == "tr":
            self.tables[-1].append([])
        if tag in ("td", "th"):
            self.tables[-1][-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in VOID:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, (tag, self.open)
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if "style" in self.open or not data.strip():
            return
        self.said.append(data.strip())
        if self.open and self.open[-1] in ("h1", "h2", "h3"):
            self.headings.append(self.open[-1])
        if self.open and self.open[-1] in ("td", "th"):
            self.tables[-1][-1][-1] += data
