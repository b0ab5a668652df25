"""A real browser for pages: Debian's chromium, driven by its own chromedriver."""

from __future__ import annotations

import functools
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service

NO_SCRIPTS = {"profile.managed_default_content_settings.javascript": 2}


def _programs() -> tuple[str, str]:
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver")
    return browser or "", driver or ""


def need_chromium() -> None:
    """Skip where there is none; fail where CI declares it."""
    if all(_programs()):
        return
    why = "chromium and chromedriver are not installed (apt: chromium chromium-driver)"
    if os.environ.get("CI") == "true":
        pytest.fail(why, pytrace=False)
    pytest.skip(why)


class PageView:
    """A page in a browser."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def open(self, path: Path, width: int = 1280, *, dark: bool = False) -> None:
        """Show a file, `width` pixels wide."""
        metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        scheme = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}]
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": scheme})
        self.driver.get_log("performance")  # type: ignore[no-untyped-call]
        self.driver.get(path.as_uri())

    def run(self, script: str) -> Any:
        return self.driver.execute_script(script)

    def requests(self) -> list[str]:
        """What was asked for since `open`, the page itself and what lies in it aside."""
        entries = self.driver.get_log("performance")  # type: ignore[no-untyped-call]
        messages = [json.loads(entry["message"])["message"] for entry in entries]
        urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
        assert urls, "the page itself was not asked for"
        return [url for url in urls if not url.startswith(("file:", "data:"))]

    def overflow(self) -> int:
        """By how many pixels the page is wider than its window."""
        return int(self.run("const d = document.documentElement; return d.scrollWidth - d.clientWidth"))

    def beyond(self) -> list[str]:
        """The texts of cells that lie beyond the edge of the window, though they may be scrolled to; those of
        a heat table aside."""
        found = "[...document.querySelectorAll('.stack td, .stack tbody th')].filter(e => e.offsetParent"
        beyond = "e.getBoundingClientRect().right > innerWidth"
        texts: list[str] = self.run(f"return {found} && {beyond}).map(e => e.textContent)")
        return texts

    def unfold(self) -> None:
        """Open all that is folded, and lay out all that is far below the window."""
        self.run("document.querySelectorAll('details').forEach(one => { one.open = true })")
        self.run("document.querySelectorAll('section').forEach(e => e.style.contentVisibility = 'visible')")

    def violations(self) -> list[str]:
        """What axe-core finds, with the element."""
        self.run(_axe())
        found = self.driver.execute_async_script(
            "const done = arguments[0]; axe.run().then(r => done(r.violations), e => done([{id: String(e)}]))"
        )
        return [
            f"{one['id']}: {node['html'][:200]} {node.get('failureSummary', '')}"
            for one in found
            for node in one.get("nodes") or [{"html": ""}]
        ]


@functools.cache
def _axe() -> str:
    text = resources.files("axe_core_python").joinpath("axe.min.js").read_text(encoding="utf-8")
    assert "axe v4" in text[:200]
    return text


@contextmanager
def chromium(folder: Path, *, scripts: bool = True) -> Iterator[PageView]:
    """A browser with a new profile in `folder`."""
    need_chromium()
    browser, driver = _programs()
    options = Options()
    options.binary_location = browser
    for argument in (
        "--headless=new",
        "--disable-dev-shm-usage",
        "--disable-gpu",
        "--no-first-run",
        f"--user-data-dir={folder / 'profile'}",
        *(["--no-sandbox"] if os.geteuid() == 0 else []),
    ):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL"})
    prefs: dict[str, Any] = {"download.default_directory": str(folder / "files")}
    options.add_experimental_option("prefs", prefs if scripts else {**prefs, **NO_SCRIPTS})
    made = webdriver.Chrome(options, Service(driver))
    made.set_script_timeout(120)
    try:
        yield PageView(made)
    finally:
        made.quit()
