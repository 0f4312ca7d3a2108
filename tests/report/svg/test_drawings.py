"""Every kind of drawing: inside its box, nothing on top of another, readable in the dark."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sti.errors import InputError
from sti.report.svg.bars import BarPanel, Part, stacked_bars
from sti.report.svg.canvas import COLOURS, SERIES_COLOURS, Canvas
from sti.report.svg.chart_data import Axis, Band, Highlight, Mark, Panel, Series
from sti.report.svg.charts import line_charts
from sti.report.svg.heat_map import HeatPanel, heat_map
from sti.report.svg.legend import Entry, draw_legend
from sti.report.svg.timeline import TimelineLane, TimelineSpan, timeline
from tests.support.drawings import SVG, check_layout, texts_of

WIDTHS = (320.0, 360.0, 720.0, 1280.0)
LONG = "a label that is much longer than any that a drawing would be given in earnest, or nearly"
NASTY = '<b>&"quoted"\'</b>\x00'

Draw = Callable[[str, float], str]


def draw_timeline(said: str, width: float) -> str:
    spans = [
        TimelineSpan(start / 100, (start + 0.8) / 100, "blue", f"{start} ffn {said}")
        for start in range(9)
    ]
    lanes = [TimelineLane(said, "37.2 ms", spans), TimelineLane("compute", "", ())]
    legend = [Entry(said, "blue", area=True), Entry("FFN", "orange", area=True)]
    return timeline(lanes, title=said, description=said, legend=legend, width=width)


def draw_chart(said: str, width: float) -> str:
    xs = [1.0, 2.0, 4.0, 8.0, 16.0, 500.0]
    series = [
        Series(said, "blue", [(x, 90 + x / 100) for x in xs], marker="circle", step=True),
        Series("runs", "orange", [(x, 91.0) for x in xs], line=None, marker="diamond"),
        Series("gap", "green", [(1.0, 90.0), (2.0, math.nan), (4.0, 92.0)], line="dotted"),
    ]
    band = Band("expected", "blue", [(x, 89.0, 93.0) for x in xs])
    panels = [
        Panel(
            said,
            Axis("ms", log=True, ticks=tuple(xs)),
            Axis(said),
            series,
            [band],
            [Mark(3.0, said), Mark(400.0, "storage to compute at 400 tokens")],
        ),
        Panel("", Axis(said), Axis("ms", log=True), series, highlight=Highlight(8.0, 90.08, said)),
        Panel("third", Axis("ms"), Axis("%"), series[:1]),
    ]
    return line_charts(panels, title=said, description=said, width=width)


def draw_map(said: str, width: float) -> str:
    bits = [[0, 2, 3, 4, 6, 8] * 3 for _ in range(24)]
    panels = [HeatPanel(said, bits), HeatPanel("FFN", bits[:3])]
    return heat_map(panels, title=said, description=said, width=width)


def draw_bars(said: str, width: float) -> str:
    parts = [Part(said, "blue"), Part("ring", "orange"), Part("other", "grey")]
    panels = [
        BarPanel(said, [(1.0, 2.0, 0.0), None, (1e6, 0.0, 0.0)]),
        BarPanel("memory, MB", [(0.0, 0.0, 0.0)] * 3, ".0f"),
    ]
    names = ["STI", said, "another"]
    return stacked_bars(names, parts, panels, title=said, description=said, width=width)


DRAWINGS: tuple[Draw, ...] = (draw_timeline, draw_chart, draw_map, draw_bars)

every_drawing = pytest.mark.parametrize("draw", DRAWINGS)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("said", ["short", LONG, "W" * 60])
@every_drawing
def test_no_text_is_cut_off_or_lies_on_another(draw: Draw, said: str, width: float) -> None:
    drawn = draw(said, width)
    check_layout(drawn)
    assert ElementTree.fromstring(drawn).attrib["width"] == f"{width:g}"


@every_drawing
def test_text_is_escaped(draw: Draw) -> None:
    root = ElementTree.fromstring(draw(NASTY, 720.0))
    assert not list(root.iter(f"{SVG}b"))
    shown = '<b>&"quoted"\'</b>\ufffd'
    assert root.findtext(f"{SVG}title") == root.findtext(f"{SVG}desc") == shown
    assert shown in {element.text for element in root.iter(f"{SVG}text")}


@every_drawing
def test_the_same_is_drawn_for_the_same(draw: Draw) -> None:
    assert draw("same", 720.0) == draw("same", 720.0)


@every_drawing
def test_screen_readers_get_a_title_and_a_description(draw: Draw) -> None:
    root = ElementTree.fromstring(draw("said", 720.0))
    assert root.attrib["role"] == "img"
    assert [child.tag for child in root][:2] == [f"{SVG}title", f"{SVG}desc"]


@every_drawing
def test_every_colour_has_a_rule_for_light_and_one_for_dark(draw: Draw) -> None:
    root = ElementTree.fromstring(draw("said", 720.0))
    light, dark = (root.findtext(f"{SVG}style") or "").split("@media (prefers-color-scheme:dark)")
    used = {element.get("class", "") for element in root.iter() if element is not root} - {""}
    assert used and "paper" in used
    for place, rules in enumerate((light, dark)):
        assert dict(re.findall(r"\.sti-drawing \.(\w+)\{color:(#\w+)\}", rules)) == {
            name: COLOURS[name][place] for name in used
        }
    painted = {
        value for item in root.iter() for key in ("fill", "stroke") if (value := item.get(key))
    }
    assert painted <= {"currentColor", "none"}


@every_drawing
def test_several_drawings_fit_in_one_page(draw: Draw) -> None:
    drawn = draw("said", 720.0)
    assert drawn.startswith("<svg ") and drawn.endswith("</svg>\n")
    assert " id=" not in drawn and "url(" not in drawn


def contrast(one: str, other: str) -> float:
    """As WCAG defines it."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        red, green, blue = (
            part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
        )
        return 0.2126 * red + 0.7152 * green + 0.0722 * blue

    high, low = sorted((luminance(one), luminance(other)), reverse=True)
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("dark", [False, True])
def test_colours_stand_out_from_the_paper(dark: bool) -> None:
    shades = {name: pair[dark] for name, pair in COLOURS.items()}
    for name in ("ink", "muted"):
        assert contrast(shades[name], shades["paper"]) >= 4.5
    for name in SERIES_COLOURS:
        assert contrast(shades[name], shades["paper"]) >= 3.0
        assert contrast(shades[name], shades["ground"]) >= 3.0


@settings(max_examples=60)
@given(
    st.lists(st.text("abc W<", min_size=1, max_size=60), min_size=1, max_size=9),
    st.floats(320.0, 1280.0),
)
def test_entries_of_a_legend_never_overlap(labels: list[str], width: float) -> None:
    canvas = Canvas(width)
    end = draw_legend(canvas, [Entry(label, "blue", area=True) for label in labels], 20.0)
    drawn = canvas.document(end, "a", "b")
    if any(text.said for text in texts_of(drawn)):
        check_layout(drawn)
    lefts = [
        (float(rect.attrib["x"]), float(rect.attrib["y"]))
        for rect in ElementTree.fromstring(drawn).iter(f"{SVG}rect")
        if rect.get("class") == "blue"
    ]
    assert len(set(lefts)) == len(labels)
    for x, y in lefts:  # no text lies on a swatch
        assert not [
            t
            for t in texts_of(drawn)
            if t.said and t.top < y + 12 and t.bottom > y and t.left < x + 24 and t.right > x
        ]


def test_equal_labels_are_one_entry_of_the_legend() -> None:
    drawn = draw_chart("said", 720.0)
    assert [text.said for text in texts_of(drawn)].count("runs") == 1


def test_a_gap_parts_a_line() -> None:
    points = [(1.0, 1.0), (2.0, 2.0), (3.0, math.nan), (4.0, 4.0), (5.0, 5.0)]
    panel = Panel("", Axis("x"), Axis("y"), [Series("a", "purple", points)])
    root = ElementTree.fromstring(line_charts([panel], title="a", description="b"))
    lines = [item for item in root.iter(f"{SVG}polyline") if item.get("class") == "purple"]
    assert len(lines) == 2 + 1  # and the legend's


def test_steps_hold_until_the_next_point() -> None:
    points = [(1.0, 1.0), (2.0, 2.0), (3.0, 3.0)]
    panel = Panel("", Axis("x"), Axis("y"), [Series("a", "purple", points, step=True)])
    root = ElementTree.fromstring(line_charts([panel], title="a", description="b"))
    *_, line = (item for item in root.iter(f"{SVG}polyline") if item.get("class") == "purple")
    places = [tuple(map(float, place.split(","))) for place in line.attrib["points"].split()]
    assert len(places) == 5
    assert places[1] == (places[2][0], places[0][1])


def test_panels_can_share_the_scale_of_y() -> None:
    panels = [
        Panel("", Axis("x"), Axis("y"), [Series("a", "blue", [(0.0, low), (1.0, low + 1.0)])])
        for low in (0.0, 100.0)
    ]

    def ticks(same_y: bool) -> int:
        drawn = line_charts(panels, title="a", description="b", same_y=same_y)
        return sum(text.said == "100" for text in texts_of(drawn))

    assert (ticks(True), ticks(False)) == (2, 1)


def test_shards_say_their_fidelity_and_unused_ones_that() -> None:
    drawn = heat_map([HeatPanel("a", [[0, 6]])], title="t", description="d")
    said = [item.text for item in ElementTree.fromstring(drawn).iter(f"{SVG}title")]
    assert said == ["t", "layer 0, slice 0: not used", "layer 0, slice 1: 6 bits"]
    labels = [text.said for text in texts_of(drawn)]
    assert "6 bits" in labels and "8 bits" not in labels


def test_bars_are_as_long_as_their_values() -> None:
    panel = BarPanel("MB", [(1.0, 3.0), (2.0, 0.0)])
    drawn = stacked_bars(
        ["a", "b"], [Part("p", "purple"), Part("q", "amber")], [panel], title="t", description="d"
    )
    root = ElementTree.fromstring(drawn)
    p, q = (
        [
            float(item.attrib["width"])
            for item in root.iter(f"{SVG}rect")
            if item.get("class") == name
        ]
        for name in ("purple", "amber")
    )
    assert p[2] == pytest.approx(2 * p[1], abs=0.2)
    assert q[1] == pytest.approx(3 * p[1], abs=0.3)
    assert {"4.0", "2.0"} <= {text.said for text in texts_of(drawn)}


def chart(points: list[tuple[float, float]], *, log: bool = False) -> str:
    panel = Panel("", Axis("x"), Axis("y", log=log), [Series("a", "blue", points)])
    return line_charts([panel], title="t", description="d")


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda: Canvas(100.0), "at least 320 pixels wide, not 100"),
        (lambda: Canvas(math.nan), "at least 320 pixels wide"),
        (lambda: line_charts([], title="t", description="d"), "no panel"),
        (lambda: chart([]), "a scale needs values"),
        (lambda: chart([(1.0, math.inf)]), "finite"),
        (lambda: chart([(1.0, 0.0)], log=True), "above zero"),
        (lambda: timeline([], title="t", description="d"), "no span"),
        (
            lambda: timeline(
                [TimelineLane("a", "", [TimelineSpan(2.0, 1.0, "blue", "0 ffn 1")])],
                title="t",
                description="d",
            ),
            "0 ffn 1: no span from 2 s to 1 s",
        ),
        (lambda: heat_map([], title="t", description="d"), "no map"),
        (lambda: heat_map([HeatPanel("a", [])], title="t", description="d"), "needs layers"),
        (
            lambda: heat_map([HeatPanel("a", [[2], [2, 3]])], title="t", description="d"),
            "as many in each",
        ),
        (lambda: heat_map([HeatPanel("a", [[9]])], title="t", description="d"), "9 bits"),
        (lambda: stacked_bars([], [], [], title="t", description="d"), "need names"),
        *(
            (
                lambda values=values: stacked_bars(
                    ["a"],
                    [Part("p", "blue")],
                    [BarPanel("MB", values)],
                    title="t",
                    description="d",
                ),
                message,
            )
            for values, message in (
                ([], "0 rows of values for 1 names"),
                ([(1.0, 2.0)], "2 values for 1 parts"),
                ([(-1.0,)], "not negative"),
                ([(math.nan,)], "finite"),
            )
        ),
    ],
)
def test_what_cannot_be_drawn_is_refused(draw: Callable[[], object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        draw()
