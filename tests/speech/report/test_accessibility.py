"""The page, the report and the page of a study, checked by axe-core in Chromium: light and dark, on a phone and on a desk.

Where SEPML_SCREENSHOTS names a folder, what was checked is left there as pictures.
"""

import io
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from browser import Watched, chromium
from page_server import Halves, serving, wav
from score_folders import write_audio, write_folder, write_history, write_quality
from speech_signals import speech_like

from sepml.cli import main
from sepml.pages.style import PALETTES
from sepml.speech.audio.files import quantise
from sepml.speech.report.report import ReportSettings, write_report

ROOT = Path(__file__).resolve().parents[3]
PHONE, DESK = 375, 1280
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
HEIGHT = 900


@pytest.fixture(scope="module")
def browser():
    with chromium() as browser:
        yield browser


@pytest.fixture(scope="module")
def axe():
    sync_playwright = pytest.importorskip(
        "axe_playwright_python.sync_playwright", reason="axe-playwright-python (pip) is absent"
    )
    return sync_playwright.Axe()


@pytest.fixture(scope="module")
def report(tmp_path_factory, browser) -> str:
    root = tmp_path_factory.mktemp("report")
    rng = np.random.default_rng(0)
    ids = [f"a-speaker-{i:04}_another-{i:04}" for i in range(8)]
    inputs = write_audio(root, ids)
    write_history(root / "exp")
    for peer in ("peer1", "peer2"):
        gain = rng.normal(7, 3, len(ids))
        columns = {
            "si_snr": gain - 1,
            "si_snri": gain,
            "sdr": gain,
            "sdri": gain + 1,
            "stoi": 0.8 + gain / 100,
            "pesq": 2 + gain / 10,
        }
        write_folder(root / f"exp/scores/tt/{peer}", ids, {name: of.tolist() for name, of in columns.items()}, inputs)
    write_quality(root / "exp/scores/mine")
    write_report([root / "exp"], root / "report.html", ReportSettings(players=1))
    return (root / "report.html").as_uri()


@pytest.fixture(scope="module")
def study(tmp_path_factory, browser) -> str:
    out = tmp_path_factory.mktemp("study")
    shutil.copytree(ROOT / "recipes/prompts-2mix/studies/strong/results", out / "results")
    plan = ROOT / "recipes/prompts-2mix/strong.yaml"
    assert main(["study", str(plan), "-o", str(out), "--report", "--data.root", str(out / "absent"), "-q"]) == 0
    return (out / "study.html").as_uri()


@pytest.fixture(scope="module")
def server(browser):
    with serving(Halves()) as server:
        yield server


@pytest.fixture
def watched(browser):
    page = browser.new_page(viewport={"width": DESK, "height": HEIGHT}, permissions=["microphone"])
    watched = Watched(page)
    yield watched
    # Not even axe-core makes a page load or run what its policy forbids.
    assert watched.complaints == []
    page.close()


def check(watched: Watched, axe, name: str) -> None:
    """No serious finding of axe-core, and no page that scrolls sideways, in any scheme at any width."""
    page = watched.page
    found = {}
    for width in (PHONE, DESK):
        page.set_viewport_size({"width": width, "height": HEIGHT})
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            if folder := os.environ.get("SEPML_SCREENSHOTS"):
                page.screenshot(path=Path(folder) / f"{name}-{scheme}-{width}.png", full_page=True)
            # Colours alone depend on the scheme.
            rules = {"type": "tag", "values": RULES} if scheme == "light" else {"type": "rule", "values": ["color-contrast"]}
            answer = axe.run(page, options={"runOnly": rules, "resultTypes": ["violations", "passes"]}).response
            [seen] = [rule for rule in answer["passes"] if rule["id"] == "color-contrast"]
            assert len(seen["nodes"]) >= 3, "no text was checked"
            found |= {
                f"{width} {scheme} {finding['id']}": [node["html"] for node in finding["nodes"]][:3]
                for finding in answer["violations"]
                if finding["impact"] in ("serious", "critical")
            }
            assert not watched.too_wide, (width, scheme)
    assert not found


def test_the_report(watched, axe, report):
    watched.page.goto(report)
    watched.page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    check(watched, axe, "report")


def test_a_study(watched, axe, study):
    watched.page.goto(study)
    watched.page.evaluate("document.querySelectorAll('details').forEach((d) => { d.open = true; })")
    check(watched, axe, "study")


def test_the_page_before_and_after_separation(watched, axe, server, tmp_path):
    page = watched.page
    page.goto(server.url)
    check(watched, axe, "page-idle")
    (tmp_path / "meeting.wav").write_bytes(wav(quantise(speech_like(0, 2.0) + speech_like(3, 2.0))))
    (tmp_path / "no-audio.wav").write_bytes(b"no audio")
    page.set_input_files("#file", [tmp_path / "meeting.wav", tmp_path / "no-audio.wav"])
    watched.until("document.querySelectorAll('.result').length === 2 && !document.querySelector('.progress')")
    # The refusal of the second one, which the browser reports.
    watched.complaints[:] = [line for line in watched.complaints if "status of 4" not in line]
    check(watched, axe, "page-result")


def test_the_page_while_one_speaks(watched, axe, server):
    page = watched.page
    page.goto(server.url)
    page.click("#live")
    watched.until("[...document.querySelectorAll('meter')].length === 2")
    check(watched, axe, "page-live")
    page.click("#live")
    watched.until("document.getElementById('status').textContent.startsWith('Listened for')")
    # Nobody is heard any more.
    assert page.locator("#live-panel select").is_hidden()
    check(watched, axe, "page-listened")


def test_a_wide_table_shows_on_which_side_there_is_more(watched, report):
    page = watched.page
    page.goto(report)
    page.set_viewport_size({"width": PHONE, "height": HEIGHT})
    wide = "document.querySelector('#table .wide')"
    watched.until(f"{wide}.classList.contains('more-right')")
    hint = page.locator("#table .hint")
    assert hint.is_visible() and "more-left" not in page.evaluate(f"{wide}.className")
    # By keyboard; the browser may still be moving the table when it is told another place.
    page.focus("#table .scroll")
    page.keyboard.press("ArrowRight")
    watched.until(f"{wide}.classList.contains('more-left')")
    watched.until(f"(document.querySelector('#table .scroll').scrollLeft = 1e6) && !{wide}.classList.contains('more-right')")
    assert "more-left" in page.evaluate(f"{wide}.className")
    page.set_viewport_size({"width": DESK, "height": HEIGHT})
    watched.until(f"!{wide}.classList.contains('overflows')")
    assert hint.is_hidden()


def colours(png: bytes) -> np.ndarray:
    """The pixels of a picture, (n, 3) in 0 to 255."""
    from matplotlib.image import imread

    return np.round(imread(io.BytesIO(png), format="png")[..., :3].reshape(-1, 3) * 255)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_figures_have_the_colours_of_the_page(watched, study, scheme):
    page = watched.page
    page.emulate_media(color_scheme=scheme)
    page.goto(study)
    pixels = colours(page.locator("img.figure").first.screenshot())
    for name, at_least in (("page", 0.7), ("s0", 1e-3), ("ink", 1e-3)):
        colour = [int(PALETTES[scheme][name][i : i + 2], 16) for i in (1, 3, 5)]
        assert (np.abs(pixels - colour).max(1) <= 6).mean() >= at_least, name
