"""SVG drawings read back: their texts, and the boxes these take by the estimate of widths."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from xml.etree import ElementTree

from sti.report.svg.text import text_width

SVG = "{http://www.w3.org/2000/svg}"


@dataclass(frozen=True)
class Text:
    """A line of text and where it is, in pixels."""

    said: str
    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: Text) -> bool:
        return (
            min(self.right, other.right) - max(self.left, other.left) > 0.2
            and min(self.bottom, other.bottom) - max(self.top, other.top) > 0.2
        )


def texts_of(drawn: str) -> list[Text]:
    return [_text(element) for element in ElementTree.fromstring(drawn).iter(f"{SVG}text")]


def _text(element: ElementTree.Element) -> Text:
    said, size = element.text or "", float(element.attrib["font-size"])
    wide = text_width(said, size, bold="font-weight" in element.attrib)
    x, y = float(element.attrib["x"]), float(element.attrib["y"])
    left = x - {"start": 0.0, "middle": wide / 2, "end": wide}[element.attrib["text-anchor"]]
    return Text(said, left, y - 0.75 * size, left + wide, y + 0.25 * size)


def check_layout(drawn: str) -> None:
    """Every text is inside the view box, and none lies on another."""
    root = ElementTree.fromstring(drawn)
    assert root.tag == f"{SVG}svg"
    _, _, width, height = map(float, root.attrib["viewBox"].split())
    found = [text for text in texts_of(drawn) if text.said]
    assert found
    for text in found:
        assert text.left >= -0.1 and text.right <= width + 0.1, text
        assert text.top >= -0.1 and text.bottom <= height + 0.1, text
    assert not [(one, other) for one, other in combinations(found, 2) if one.overlaps(other)]
