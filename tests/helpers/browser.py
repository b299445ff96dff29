"""A real Chromium for tests of pages; they skip, with the reason, where there is none."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
)


class Watched:
    """A page, and what went wrong on it."""

    def __init__(self, page: Any) -> None:
        self.page = page
        self.complaints: list[str] = []
        self.requests: list[str] = []
        page.on("console", lambda message: self.complaints.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("request", lambda request: self.requests.append(request.url))

    def play(self, selector: str) -> dict[str, float]:
        """Play an audio element until its time has moved on, and what it says of itself then."""
        return self.page.evaluate(
            """async (selector) => {
              const audio = document.querySelector(selector);
              await audio.play();
              for (let i = 0; i < 100 && audio.currentTime < 0.1; i++) await new Promise((done) => setTimeout(done, 50));
              return { ready: audio.readyState, duration: audio.duration, time: audio.currentTime };
            }""",
            selector,
        )

    def until(self, condition: str) -> None:
        """Wait for a condition in JavaScript; Playwright's own way needs eval, which the pages forbid."""
        for _ in range(1200):
            if self.page.evaluate(condition):
                return
            self.page.wait_for_timeout(50)
        pytest.fail(f"still not true after 60 s: {condition}")

    @property
    def too_wide(self) -> bool:
        """Whether the page scrolls sideways."""
        return self.page.evaluate("document.documentElement.scrollWidth > window.innerWidth")


@contextmanager
def chromium() -> Iterator[Any]:
    """A browser of Playwright's kind, with an empty profile."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright (pip) is not installed")
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip("there is no Chromium (apt-get install chromium)")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=list(FLAGS))
        yield browser
        browser.close()
