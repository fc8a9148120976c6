"""The playground on the real stack: Kafka, Redis, Triton, every service, and a real browser."""

import asyncio
import re

import httpx
import pytest
from playwright.async_api import Page, expect

from services.cli.stack.handle import Stack
from tests.support.browser import OpenPage

pytestmark = [pytest.mark.asyncio(loop_scope="session"), pytest.mark.timeout(300)]  # the first test starts the stack

LONG = 600  # tokens of an answer in the middle of which something happens, however slow the machine is: 12 s
END_MS = 60_000


def address(stack: Stack) -> str:
    return f"http://{stack.gateways[0].http}"


async def sent(page: Page, prompt: str, *, model: str, tokens: int) -> str:
    """Send a prompt; returns the task id that the acknowledgment shows."""
    await page.get_by_label("Model").select_option(model)
    await page.get_by_label("Tokens", exact=True).fill(str(tokens))
    await page.get_by_role("textbox", name="Prompt").fill(prompt)
    await page.get_by_role("textbox", name="Prompt").press("Enter")
    task = page.locator(".card .task").first
    await expect(task).to_have_text(re.compile(r"^[a-z2-7]{26}$"))
    return await task.text_content() or ""


async def is_whole(page: Page, stack: Stack, task: str) -> None:
    """The newest card ends well, and shows what every gateway says the task's text is, to the byte."""
    await expect(page.locator(".card .badge").first).to_have_text("done", timeout=END_MS)
    shown = await page.locator(".card .text").first.text_content()
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {stack.key}"}, trust_env=False) as client:
        for gateway in stack.gateways:
            answer = (await client.get(f"http://{gateway.http}/v1/tasks/{task}")).json()
            assert (answer["state"], answer["text"]) == ("completed", shown)


async def some_text(page: Page) -> None:
    await expect(page.locator(".card .text").first).not_to_be_empty(timeout=END_MS)


async def test_a_prompt_becomes_tokens_in_a_browser(stack: Stack, open_page: OpenPage) -> None:
    """Acknowledgment with task id and time, tokens of the tiny model on Triton, usage and timings at the end."""
    page = await open_page(f"{address(stack)}/#key={stack.key}")
    task = await sent(page, "Once upon a time", model="tiny", tokens=40)
    await expect(page.locator(".ack")).to_have_text(re.compile(r"accepted in \d+ ms as"))
    await is_whole(page, stack, task)
    await expect(page.locator(".ttft")).to_have_text(re.compile(r"^[\d.]+ m?s$"))
    await expect(page.locator(".tokens")).to_have_text(re.compile(r"^\d+$"))
    await expect(page.locator(".account")).to_have_text(re.compile(r"\d+ prompt tokens.* queued .* total .*"))


async def test_a_reload_in_mid_answer_ends_with_the_whole_text(stack: Stack, open_page: OpenPage) -> None:
    """The page goes on with the same task at its cursor."""
    page = await open_page(f"{address(stack)}/#key={stack.key}")
    task = await sent(page, "Tell of a long winter", model="sim", tokens=LONG)
    await some_text(page)
    await page.reload()
    assert await page.locator(".card .task").first.text_content() == task
    await is_whole(page, stack, task)
    await expect(page.locator(".card")).to_have_count(1)


async def test_a_killed_gateway_is_waited_for_and_the_answer_finishes(stack: Stack, open_page: OpenPage) -> None:
    """kill -9 in mid-answer: the page connects again once the stack has restarted it, and no byte is lost or doubled."""
    page = await open_page(f"{address(stack)}/#key={stack.key}")
    task = await sent(page, "Tell of a long summer", model="sim", tokens=LONG)
    await some_text(page)
    stack.kill("gateway-1")
    await expect(page.locator("#line")).to_have_attribute("data-state", re.compile("waiting|connecting"))
    await expect(page.locator("#line")).to_have_attribute("data-state", "open", timeout=END_MS)
    await is_whole(page, stack, task)
    await asyncio.to_thread(stack.wait_ready)


async def test_a_killed_worker_is_replaced_in_mid_answer(stack: Stack, open_page: OpenPage) -> None:
    """The next attempt goes on from the last logged byte, and the end tells that there were two."""
    page = await open_page(f"{address(stack)}/#key={stack.key}")
    task = await sent(page, "Tell of a long autumn", model="sim", tokens=LONG)
    await some_text(page)
    stack.kill("worker-sim-1")
    await is_whole(page, stack, task)
    await expect(page.locator(".account").first).to_contain_text("2 attempts")
    await asyncio.to_thread(stack.wait_ready)


async def test_a_cancelled_task_is_cancelled_everywhere(stack: Stack, open_page: OpenPage) -> None:
    """The card says so, and so does the task."""
    page = await open_page(f"{address(stack)}/#key={stack.key}")
    task = await sent(page, "Tell of a long spring", model="sim", tokens=LONG)
    await some_text(page)
    await page.get_by_role("button", name="Cancel").first.click()
    await expect(page.locator(".card .badge").first).to_have_text("cancelled", timeout=END_MS)
    async with httpx.AsyncClient(headers={"Authorization": f"Bearer {stack.key}"}, trust_env=False) as client:
        assert (await client.get(f"{address(stack)}/v1/tasks/{task}")).json()["state"] == "cancelled"


async def test_a_wrong_key_stays_outside(stack: Stack, open_page: OpenPage) -> None:
    """The refusal is shown with its code."""
    page = await open_page(f"{address(stack)}/#key=mr_{'a' * 32}")
    await expect(page.locator("#door-problem")).to_contain_text("unauthenticated")
    await expect(page.locator("#room")).to_be_hidden()


async def test_a_phone_scrolls_only_downwards(stack: Stack, open_page: OpenPage) -> None:
    """An answer of the real model fits into 360 pixels."""
    page = await open_page(f"{address(stack)}/#key={stack.key}", viewport={"width": 360, "height": 740})
    task = await sent(page, "The river", model="tiny", tokens=30)
    await is_whole(page, stack, task)
    assert await page.evaluate("document.documentElement.scrollWidth") <= 360
