"""The report page in a real browser, opened from a file: sorting, filtering, playing, no complaint, no request."""

import time

import numpy as np
import pytest
from browser import Watched, chromium
from score_folders import write_audio, write_folder, write_history

from sepml.speech.report.report import ReportSettings, write_report

IDS = ["anna_bert", "carl_dora", "emil_fred", "gina_hans"]
COLUMNS = {"si_snr": [3.0, -1.5, 9.0, 6.5], "si_snri": [3.5, -1.25, 9.75, 6.0], "stoi": [0.8, None, 0.95, 0.9]}
EVIL = "<script>window.hurt=1</script><img src=x onerror='window.hurt=1'>"


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    root = tmp_path_factory.mktemp("report")
    inputs = write_audio(root, IDS)
    write_history(root / "exp")
    for k, peer in enumerate(("peer1", "peer2")):
        columns = {name: [None if v is None else v + k for v in of] for name, of in COLUMNS.items()}
        write_folder(root / f"exp/scores/tt/{peer}", [*IDS, EVIL], {c: [*of, 0.5] for c, of in columns.items()}, inputs)
    write_report([root / "exp"], root / "report.html", ReportSettings(players=1))
    return (root / "report.html").as_uri()


@pytest.fixture
def opened(browser, report):
    page = browser.new_page(viewport={"width": 1200, "height": 900})
    watched = Watched(page)
    page.goto(report)
    yield watched
    assert watched.complaints == []
    assert [url for url in watched.requests if not url.startswith("data:")] == [report]
    assert page.evaluate("window.hurt") is None
    page.close()


def names(page) -> list[str]:
    """The first column, without the mark of rows that can be heard."""
    return [cell.removeprefix("\u25b6\ufe0e ") for cell in page.locator("#rows tbody tr td:first-child").all_inner_texts()]


def test_sorting_by_any_heading(opened):
    page = opened.page
    assert names(page) == [*IDS, EVIL]
    page.get_by_role("button", name="SI-SNRi dB").click()
    assert names(page) == ["emil_fred", "gina_hans", "anna_bert", EVIL, "carl_dora"]
    page.get_by_role("button", name="SI-SNRi dB").click()
    assert names(page) == ["carl_dora", EVIL, "anna_bert", "gina_hans", "emil_fred"]
    assert page.locator("#rows th[aria-sort=ascending]").inner_text().startswith("SI-SNRi dB")
    # By keyboard; what has no value is last in both directions.
    for direction in ("descending", "ascending"):
        page.get_by_role("button", name="STOI").focus()
        page.keyboard.press("Enter")
        assert page.locator(f"#rows th[aria-sort={direction}]").inner_text().startswith("STOI")
        assert names(page)[-1] == "carl_dora" and page.locator("#rows tbody tr:last-child td").last.inner_text() == "\u2013"


def test_filtering_and_views(opened):
    page = opened.page
    page.fill("#filter", "N si_snri>=3.5")
    assert names(page) == ["anna_bert", "gina_hans"]
    assert page.inner_text("#count") == "2 of 5 mixtures"
    page.fill("#filter", "")
    page.select_option("#view", label="SI-SNRi dB of all")
    assert page.locator("#rows thead button").all_text_contents() == ["mixture", "peer1", "peer2", "difference"]
    assert page.locator("#rows tbody tr").first.locator("td").all_inner_texts()[1:] == ["3.50", "4.50", "1.00"]
    page.select_option("#view", label="peer1")
    page.check("#sources")
    assert page.locator("#rows thead th").count() == 1 + 3 + 6


def test_playing(opened):
    page = opened.page
    page.locator("#rows a", has_text="emil_fred").click()
    assert page.locator("details.utterance[open]").get_attribute("data-id") == "emil_fred"
    heard = opened.play("details[open] .signal:nth-child(2) audio")
    assert heard["ready"] == 4 and heard["duration"] == pytest.approx(0.6, abs=0.01) and heard["time"] >= 0.1
    # The second player silences the first; a click into a picture goes there.
    page.evaluate("document.querySelectorAll('details[open] audio')[0].loop = true")
    opened.play("details[open] .signal:nth-child(1) audio")
    picture = page.locator("details[open] .picture").nth(2)
    box = picture.bounding_box()
    picture.click(position={"x": box["width"] / 2, "y": 20})
    opened.until("document.querySelectorAll('details[open] audio')[2].currentTime >= 0.3")
    assert page.evaluate("document.querySelectorAll('details[open] audio')[0].paused")
    assert page.locator("details[open] .cursor").nth(2).evaluate("e => getComputedStyle(e).visibility") == "visible"


def test_every_sound_and_picture_can_be_decoded(opened):
    page = opened.page
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    opened.until("[...document.querySelectorAll('audio')].every((a) => a.readyState >= 1)")
    assert page.evaluate("[...document.images].every((image) => image.complete && image.naturalWidth > 8)")
    # The third utterance is in no manifest.
    assert page.locator("audio").count() == 2 * 7
    assert page.locator(".absent").first.inner_text().startswith("No audio of peer1: <script>")


def test_a_dot_says_its_name(opened):
    page = opened.page
    plot = page.locator("[data-plot]").first
    plot.scroll_into_view_if_needed()
    # The first dot of the first series.
    x, y = (float(word) for word in plot.locator(".dots").first.get_attribute("d").split("h0")[0][1:].split())
    box = plot.locator("svg").bounding_box()
    page.mouse.move(box["x"] + x * box["width"] / 400, box["y"] + y * box["height"] / 240)
    assert plot.locator(".tip").inner_text().startswith("anna_bert (peer1): \u22120.50, 3.50")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone(browser, report, scheme):
    page = browser.new_page(viewport={"width": 360, "height": 740}, color_scheme=scheme)
    watched = Watched(page)
    page.goto(report)
    page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    assert not watched.too_wide and watched.complaints == []
    page.close()


def test_thousands_of_rows(browser, tmp_path):
    rng = np.random.default_rng(0)
    ids = [f"speaker{i:05}" for i in range(5000)]
    write_folder(
        tmp_path / "scores", ids, {name: list(rng.normal(5, 3, 5000)) for name in ("si_snr", "si_snri", "sdr", "sdri")}
    )
    write_report([tmp_path / "scores"], tmp_path / "r.html")
    page = browser.new_page()
    watched = Watched(page)
    start = time.monotonic()
    page.goto((tmp_path / "r.html").as_uri())
    page.wait_for_selector("#rows tbody tr")
    took = page.evaluate(
        """() => { const start = performance.now(); document.querySelectorAll('#rows th button')[2].click();
                   document.body.offsetHeight; return performance.now() - start; }"""
    )
    assert took < 500 and time.monotonic() - start < 10
    assert page.inner_text("#count") == "5000 of 5000 mixtures, page 1 of 50"
    page.click("#next")
    assert page.locator("#rows tbody tr").count() == 100 and "page 2 of 50" in page.inner_text("#count")
    assert watched.complaints == []
    page.close()
