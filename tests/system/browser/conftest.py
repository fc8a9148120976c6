"""The distribution's own Chromium, driven by Playwright: one browser for the session, a fresh context for each test.

Tests that use it run on the session's event loop: `pytestmark = pytest.mark.asyncio(loop_scope="session")`.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest_asyncio
from playwright.async_api import Browser, BrowserContext, Page, async_playwright

from tests.support.browser import OpenPage

CHROMIUM = Path("/usr/bin/chromium")
ARGUMENTS = [
    "--headless",
    "--no-sandbox",  # tests run as root in containers
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def browser() -> AsyncIterator[Browser]:
    """The browser. A missing one is a failure, not a skip."""
    assert CHROMIUM.exists(), "Chromium is missing: apt-get install chromium"
    async with async_playwright() as playwright:
        running = await playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield running
        await running.close()


@pytest_asyncio.fixture(loop_scope="session")
async def open_page(browser: Browser) -> AsyncIterator[OpenPage]:
    """Opens pages, each in a context of its own; a page that throws or logs an error fails its test.

    Errors that the network makes (a gateway is gone, a key is refused) are what the page is tested for.
    """
    complaints: list[str] = []
    contexts: list[BrowserContext] = []

    async def open_(url: str, **context: Any) -> Page:
        contexts.append(await browser.new_context(**context))
        page = await contexts[-1].new_page()
        page.set_default_timeout(15_000)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("console", lambda said: complaints.append(said.text) if said.type == "error" else None)
        await page.goto(url)
        return page

    yield open_
    for context in contexts:
        await context.close()
    network = ("Failed to load resource", "WebSocket connection to")
    assert [complaint for complaint in complaints if not complaint.startswith(network)] == []
