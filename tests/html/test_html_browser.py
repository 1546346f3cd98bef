"""Pages in Chromium: drawn without an error or a request; sorting, filtering and pointing work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from html_reports import comparison, inspection, report, weights

from modelkit.report.html.page import render

Browse = Callable[..., Any]
BARS = "#layer-chart .mark-rect.role-mark path"
POINTS = "#pareto .mark-symbol.role-mark path"


@pytest.fixture
def written(tmp_path: Path) -> Callable[..., Path]:
    """Write the page of a report."""

    def write(found: Any, name: str = "page.html") -> Path:
        path = tmp_path / name
        path.write_bytes(render(found))
        return path

    return write


def column(page: Any, table: str, key: str) -> list[str]:
    """Texts of a column, of the rows that are shown."""
    return page.evaluate(
        """([table, key]) => {
            const element = document.querySelector(`#${table} table`);
            const index = [...element.querySelectorAll("th")].findIndex((head) => head.dataset.key === key);
            const rows = [...element.tBodies[0].rows].filter((row) => row.offsetParent !== null);
            return rows.map((row) => row.cells[index].textContent.trim());
        }""",
        [table, key],
    )


def drawn(page: Any, marks: str, count: int) -> None:
    """Wait until a chart has so many marks; the page's policy leaves no other way to ask."""
    from playwright.sync_api import expect

    expect(page.locator(marks)).to_have_count(count)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("make", [report, inspection, weights, comparison], ids=lambda make: make.__name__)
def test_page_draws_without_an_error_or_a_request(
    browse: Browse, written: Callable[..., Path], make: Callable[[], Any], width: int, scheme: str
) -> None:
    path = written(make())
    opened = browse(path, width=width, scheme=scheme)
    assert opened.errors == []
    assert opened.requests == [path.as_uri()]
    page = opened.page
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth"), "it scrolls sideways"
    for plot in page.query_selector_all(".plot"):
        svg = plot.query_selector("svg")
        assert svg is not None
        box, around = svg.bounding_box(), plot.bounding_box()
        assert box["width"] <= around["width"] + 1 and box["height"] > 100
        assert "NaN" not in svg.inner_html()


def test_dark_and_light_are_readable(browse: Browse, written: Callable[..., Path]) -> None:
    path = written(report())
    colours = """() => [document.body, document.querySelector(".verdict"), document.querySelector("#pareto text")]
        .map((element, index) => getComputedStyle(element)[["backgroundColor", "color", "fill"][index]])"""
    for scheme in ("light", "dark"):
        back, text, axis = (luminance(found) for found in browse(path, scheme=scheme).page.evaluate(colours))
        assert (back > 0.8) == (scheme == "light")
        assert contrast(back, text) > 7 and contrast(back, axis) > 4.5


def luminance(colour: str) -> float:
    """Relative luminance as WCAG defines it."""
    parts = [float(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(a: float, b: float) -> float:
    return (max(a, b) + 0.05) / (min(a, b) + 0.05)


def test_columns_sort_by_what_they_mean(browse: Browse, written: Callable[..., Path]) -> None:
    page = browse(written(report(30))).page
    before = column(page, "layers", "name")
    page.click("#layers th[data-key=before] button")
    sizes = [float(text.split()[0]) for text in column(page, "layers", "before")]
    assert sizes == sorted(sizes, reverse=True) and sizes[0] > sizes[-1]
    page.click("#layers th[data-key=before] button")
    assert page.get_attribute("#layers th[data-key=before]", "aria-sort") == "ascending"
    page.click("#layers th[data-key=name] button")
    assert column(page, "layers", "name") == before, "layers.2 comes before layers.10"


def test_filters_fit_the_table_and_the_chart(browse: Browse, written: Callable[..., Path]) -> None:
    page = browse(written(report(30))).page
    assert page.locator(BARS).count() == 60
    page.fill("#layers input", "layers.1 conv")
    names = column(page, "layers", "name")
    assert names and all("layers.1" in name for name in names) and len(names) < 30
    assert page.text_content("#layers output") == f"{len(names)} of 30"
    drawn(page, BARS, 2 * len(names))
    page.fill("#layers input", "")
    page.select_option("#layers select", "kept float")
    assert set(column(page, "layers", "did")) == {"kept float"}
    page.fill("#layers input", "no such layer")
    assert column(page, "layers", "name") == []
    drawn(page, BARS, 0)


def test_few_bars_follow_the_filter_too(browse: Browse, written: Callable[..., Path]) -> None:
    opened = browse(written(report(9)))
    page = opened.page
    height = page.locator("#layer-chart svg").bounding_box()["height"]
    page.fill("#layers input", "layers.4")
    drawn(page, BARS, 2)
    assert page.locator("#layer-chart svg").bounding_box()["height"] < height
    assert opened.errors == []


def test_pointing_at_a_layer_tells_the_decision_and_its_reason(browse: Browse, written: Callable[..., Path]) -> None:
    page = browse(written(report(9))).page
    page.locator("#layer-chart").scroll_into_view_if_needed()
    page.locator(BARS).nth(4).hover(force=True)
    page.wait_for_selector("#vg-tooltip-element.visible", timeout=3000)
    said = page.text_content("#vg-tooltip-element")
    for text in ("/model/layers.4/attention/MatMul", "kept float", "scales would cost more", "20.0 kB", "5.00 kB"):
        assert text in said, said
    page.locator("#layers td.p").first.hover()
    assert page.locator("#layers td.p").first.get_attribute("title") == "per channel, symmetric"


def test_what_was_tried_can_be_seen_from_all_sides(browse: Browse, written: Callable[..., Path]) -> None:
    opened = browse(written(report()))
    page = opened.page
    views = page.locator("#pareto .views button")
    assert views.count() == 4
    for number in range(4):
        views.nth(number).click()
        assert views.nth(number).get_attribute("aria-pressed") == "true"
        drawn(page, POINTS, 4)
        assert "static mse" in page.text_content("#pareto svg")
    page.locator(POINTS).nth(1).hover(force=True)
    page.wait_for_selector("#vg-tooltip-element.visible", timeout=3000)
    assert "verdict" in page.text_content("#vg-tooltip-element")
    assert opened.errors == []


def test_everything_can_be_read_without_scripts_and_on_paper(chromium: Any, written: Callable[..., Path]) -> None:
    context = chromium.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(written(report()).as_uri())
    text = page.inner_text("body")
    context.close()
    assert "/model/layers.4/attention/MatMul" in text and "The chart needs JavaScript" in text
    context = chromium.new_context(color_scheme="dark")
    page = context.new_page()
    page.goto((written(report())).as_uri())
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    back = page.evaluate("getComputedStyle(document.body).backgroundColor")
    shown = page.locator("#options").is_visible(), page.locator("#layers .tools").is_visible()
    context.close()
    assert luminance(back) > 0.9 and shown == (True, False)


def test_keyboard_reaches_what_the_pointer_does(browse: Browse, written: Callable[..., Path]) -> None:
    page = browse(written(report(30))).page
    page.focus("#layers th[data-key=after] button")
    page.keyboard.press("Enter")
    assert page.get_attribute("#layers th[data-key=after]", "aria-sort") == "descending"
    page.focus("#config-section summary")
    page.keyboard.press("Enter")
    assert page.locator("#options").is_visible()
