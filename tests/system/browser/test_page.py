"""The playground in a real browser over a made-up gateway that breaks when told to."""

import asyncio
import re
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from playwright.async_api import Page, Route, expect

from services.gateway.http.page import PAGE
from tests.support.browser import OpenPage
from tests.support.fake_gateway import KEY, FakeGateway, FakePlatform, answer_of, error

PROMPT = "Once upon a time"
TEXT = "".join(answer_of(PROMPT))
LONG = 200  # pieces of an answer in the middle of which something happens, however slow the machine is
LONG_TEXT = "".join(answer_of(PROMPT, LONG))


pytestmark = pytest.mark.asyncio(loop_scope="session")


@pytest_asyncio.fixture(loop_scope="session")
async def gateway() -> AsyncIterator[FakeGateway]:
    platform = FakePlatform(piece_s=0.02)
    async with FakeGateway(platform, PAGE) as gateway:
        yield gateway
        await platform.stop()


def make_long(gateway: FakeGateway) -> None:
    """Answers take about ten seconds from now on."""
    gateway.platform.piece_s, gateway.platform.pieces = 0.05, LONG


def signed_in(gateway: FakeGateway) -> str:
    return f"{gateway.url}/#key={KEY}"


async def send(page: Page, prompt: str) -> None:
    await page.get_by_role("textbox", name="Prompt").fill(prompt)
    await page.get_by_role("textbox", name="Prompt").press("Enter")


async def finished(page: Page, text: str = TEXT, card: int = 0) -> None:
    """The newest card (or the one before it, ...) is done and shows this text, to the byte."""
    await expect(page.locator(".card .badge").nth(card)).to_have_text("done", timeout=20_000)
    assert await page.locator(".card .text").nth(card).text_content() == text


async def test_a_prompt_is_acknowledged_answered_and_accounted_for(gateway: FakeGateway, open_page: OpenPage) -> None:
    """Acknowledgment with task id and time, first token, rate, the text, usage and timings at the end."""
    page = await open_page(signed_in(gateway))
    await send(page, PROMPT)
    await finished(page)
    (task,) = gateway.platform.tasks
    await expect(page.locator(".facts")).to_have_text(re.compile(rf"accepted in \d+ ms as\s+{task}"))
    await expect(page.locator(".ttft")).to_have_text(re.compile(r"\d+ ms"))
    await expect(page.locator(".rate")).to_have_text(re.compile(r"^\d+\.\d$"))
    await expect(page.locator(".tokens")).to_have_text("24")
    await expect(page.locator(".account")).to_contain_text("7 prompt tokens (2 known to the engine)")
    await expect(page.locator("#announcer")).to_have_text("Answer complete")


async def test_a_prompt_sent_before_the_models_are_known_waits_for_them(
    gateway: FakeGateway, open_page: OpenPage
) -> None:
    """And asks for them again when the first question for them fails."""
    page = await open_page(gateway.url)
    questions: list[Route] = []

    async def once_sent(route: Route) -> None:
        questions.append(route)
        if len(questions) > 1:
            await questions[0].abort()
            await route.continue_()

    await page.route("**/v1/models", once_sent)
    await page.goto(signed_in(gateway))
    await send(page, PROMPT)
    await finished(page)
    assert len(questions) == 2
    (task,) = gateway.platform.tasks.values()
    assert task.body["model"] == "tiny"


async def test_a_prompt_that_waits_for_the_models_goes_with_who_signs_out(
    gateway: FakeGateway, open_page: OpenPage
) -> None:
    """It is not sent in the name of whoever comes next."""
    page = await open_page(gateway.url)
    held: list[Route] = []
    await page.route("**/v1/models", lambda route: held.append(route))
    await page.goto(signed_in(gateway))
    await send(page, PROMPT)
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.locator("#door")).to_be_visible()
    for route in held:
        await route.abort()
    await page.unroute("**/v1/models")
    await page.get_by_label("API key").fill(KEY)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.locator("#model option")).to_have_count(2)
    await expect(page.locator(".card")).to_have_count(0)
    assert not gateway.platform.submits


async def test_the_dials_are_what_is_asked_for_and_stay_over_a_reload(
    gateway: FakeGateway, open_page: OpenPage
) -> None:
    """Model, length, temperature, class and cache mode reach the gateway."""
    page = await open_page(signed_in(gateway))
    await page.get_by_label("Model").select_option("sim")
    await page.get_by_label("Tokens", exact=True).fill("33")
    await page.get_by_label("Temperature").fill("0")
    await page.get_by_label("Class").select_option("critical")
    await page.get_by_label("Cache").select_option("bypass")
    await page.reload()
    await expect(page.get_by_label("Model")).to_have_value("sim")
    await send(page, PROMPT)
    await finished(page)
    (task,) = gateway.platform.tasks.values()
    asked = {name: task.body[name] for name in ("model", "max_tokens", "temperature", "class", "cache", "input")}
    dials = {"model": "sim", "max_tokens": 33, "temperature": 0, "class": "critical", "cache": "bypass"}
    assert asked == dials | {"input": PROMPT}


async def test_the_key_leaves_the_address_and_stays_in_the_tab(gateway: FakeGateway, open_page: OpenPage) -> None:
    """After the first load the address has no key; a reload is still signed in; signing out forgets it."""
    page = await open_page(signed_in(gateway))
    await expect(page.locator("#room")).to_be_visible()
    assert KEY not in page.url
    await page.reload()
    await expect(page.locator("#room")).to_be_visible()
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.locator("#door")).to_be_visible()
    await page.reload()
    await expect(page.locator("#door")).to_be_visible()


async def test_signing_out_leaves_nothing_to_who_comes_next(gateway: FakeGateway, open_page: OpenPage) -> None:
    """No answers, no prompt that is still to be accepted, no models; not after a reload either."""
    page = await open_page(signed_in(gateway))
    await send(page, PROMPT)
    await finished(page)
    make_long(gateway)
    await send(page, "still running")
    await expect(page.locator(".card")).to_have_count(2)
    await page.get_by_role("button", name="Sign out").click()
    await expect(page.locator(".card")).to_have_count(0)
    await expect(page.locator("#model option")).to_have_count(0)
    await page.get_by_label("API key").fill(KEY)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.locator("#model option")).to_have_count(2)
    await page.reload()
    await expect(page.locator("#room")).to_be_visible()
    await expect(page.locator(".card")).to_have_count(0)


async def test_a_wrong_key_shows_the_error_and_the_right_one_gets_in(gateway: FakeGateway, open_page: OpenPage) -> None:
    """The refusal is shown with its code at the door."""
    page = await open_page(f"{gateway.url}/#key=mr_wrong")
    await expect(page.locator("#door-problem")).to_have_text("unauthenticated: this API key is not known")
    await page.get_by_label("API key").fill(KEY)
    await page.get_by_role("button", name="Sign in").click()
    await expect(page.locator("#room")).to_be_visible()
    await expect(page.locator("#door-problem")).to_be_hidden()


async def test_a_reload_in_mid_answer_goes_on_with_the_same_task(gateway: FakeGateway, open_page: OpenPage) -> None:
    """Text and cursor survive the reload; the task is not run again and the text is whole."""
    make_long(gateway)
    page = await open_page(signed_in(gateway))
    await send(page, PROMPT)
    for _ in range(2):
        seen = await page.locator(".card .text").text_content() or ""
        await expect(page.locator(".card .text")).not_to_have_text(seen)
        await page.reload()
    await finished(page, LONG_TEXT)
    assert gateway.platform.submits == 1


async def test_a_connection_that_breaks_is_made_again_and_read_on(gateway: FakeGateway, open_page: OpenPage) -> None:
    """Breaks before, at and after the acknowledgment, and in the text: the answer is whole each time."""
    gateway.cuts = [1, 2, 3, 4, 6]
    make_long(gateway)
    page = await open_page(signed_in(gateway))
    await send(page, PROMPT)
    await finished(page, LONG_TEXT)
    assert len(gateway.platform.tasks) == 1
    assert gateway.connections >= 6


async def test_a_gateway_that_is_gone_for_a_while_is_waited_for(gateway: FakeGateway, open_page: OpenPage) -> None:
    """The state of the connection is shown; the answer goes on when the gateway is back."""
    make_long(gateway)
    page = await open_page(signed_in(gateway))
    await send(page, PROMPT)
    await expect(page.locator(".card .text")).not_to_be_empty()
    await gateway.stop()
    await expect(page.locator("#line")).to_have_attribute("data-state", re.compile("waiting|connecting"))
    await expect(page.locator("#line-text")).to_have_text(re.compile("connecting"))
    await gateway.start()
    await finished(page, LONG_TEXT)
    await expect(page.locator("#line-text")).to_contain_text("connected to")


async def test_a_gateway_that_leaves_politely_is_left_politely(gateway: FakeGateway, open_page: OpenPage) -> None:
    """`going_away`, then a new connection; no error is shown."""
    make_long(gateway)
    page = await open_page(signed_in(gateway))
    await send(page, PROMPT)
    await expect(page.locator(".card .text")).not_to_be_empty()
    await gateway.leave()
    await finished(page, LONG_TEXT)
    assert gateway.connections == 2
    await expect(page.locator(".card .problem")).to_be_hidden()


async def test_a_reader_that_is_refused_for_a_moment_comes_back(gateway: FakeGateway, open_page: OpenPage) -> None:
    """A limit on reading is no end of the task: it is read on once there is room."""
    make_long(gateway)
    page = await open_page(signed_in(gateway))
    await send(page, PROMPT)
    await expect(page.locator(".card .text")).not_to_be_empty()
    gateway.platform.resume_refusals = 1
    await page.reload()
    await finished(page, LONG_TEXT)
    assert gateway.platform.resume_refusals == 0
    await expect(page.locator(".card .problem")).to_be_hidden()


async def test_a_text_that_began_anew_replaces_the_old_one(gateway: FakeGateway, open_page: OpenPage) -> None:
    """No mixture: after `restarted` only the new text is shown."""
    gateway.platform.piece_s = 0.03
    gateway.platform.restart_at = 6
    page = await open_page(signed_in(gateway))
    await send(page, PROMPT)
    await finished(page, "".join(answer_of(PROMPT + " again")))


async def test_prompts_run_side_by_side(gateway: FakeGateway, open_page: OpenPage) -> None:
    """Three at once, the newest on top, each with its own answer; the history lists them."""
    make_long(gateway)
    page = await open_page(signed_in(gateway))
    for prompt in ("one", "two", "three"):
        await send(page, prompt)
    await expect(page.locator('.card[data-state="running"]')).to_have_count(3)
    for card, prompt in enumerate(("three", "two", "one")):
        await finished(page, "".join(answer_of(prompt, LONG)), card)
    await expect(page.locator("#history li")).to_have_text(["three", "two", "one"])
    await page.get_by_role("button", name="Clear finished").click()
    await expect(page.locator(".card")).to_have_count(0)


async def test_a_cancelled_prompt_ends_where_it_is(gateway: FakeGateway, open_page: OpenPage) -> None:
    """Cancel asks the gateway; the card says so when it is true."""
    make_long(gateway)
    page = await open_page(signed_in(gateway))
    await send(page, PROMPT)
    await expect(page.locator(".card .text")).not_to_be_empty()
    await page.get_by_role("button", name="Cancel").click()
    await expect(page.locator(".card .badge")).to_have_text("cancelled")
    assert LONG_TEXT.startswith(await page.locator(".card .text").text_content() or "")


async def test_a_place_in_the_queue_is_shown(gateway: FakeGateway, open_page: OpenPage) -> None:
    """Position and estimate, until text comes."""
    gateway.platform.queue_s = 4.0
    page = await open_page(signed_in(gateway))
    await send(page, PROMPT)
    await expect(page.locator(".wait")).to_have_text("3rd in the queue, about 1.50 s to go")
    await finished(page)
    await expect(page.locator(".wait")).to_be_hidden()


async def test_a_refusal_is_shown_with_its_code_and_can_be_tried_again(
    gateway: FakeGateway, open_page: OpenPage
) -> None:
    """Refused before it was accepted: the retry sends the same key, so nothing can run twice."""
    gateway.platform.refuse = error("shed", "too much work waits", retryable=True, retry_after_s=2)
    gateway.platform.refusals = 1
    page = await open_page(signed_in(gateway))
    await send(page, PROMPT)
    await expect(page.locator(".card .problem")).to_have_text(
        re.compile(r"shed\s+too much work waits \(try again in 2 s\)")
    )
    await page.get_by_role("button", name="Try again").click()
    await finished(page)
    await expect(page.locator(".card")).to_have_count(1)
    await expect(page.locator(".card .problem")).to_be_hidden()


async def test_a_failed_answer_shows_why_and_a_retry_is_a_new_task(gateway: FakeGateway, open_page: OpenPage) -> None:
    """The text so far stays, the code is shown."""
    page = await open_page(signed_in(gateway))
    await send(page, "fail")
    await expect(page.locator(".card .problem .code")).to_have_text("engine_failed")
    assert await page.locator(".card .text").text_content() == "".join(answer_of("fail")[:3])
    await page.get_by_role("button", name="Try again").click()
    await expect(page.locator(".card")).to_have_count(2)
    assert len(gateway.platform.tasks) == 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 390, 768])
async def test_no_width_scrolls_sideways(gateway: FakeGateway, open_page: OpenPage, width: int, scheme: str) -> None:
    """On a phone everything fits, long words and long ids included, and everything to press is big enough for a thumb."""
    page = await open_page(signed_in(gateway), viewport={"width": width, "height": 800}, color_scheme=scheme)
    await send(page, "x" * 300)
    await finished(page, "".join(answer_of("x" * 300)))
    assert await page.evaluate("document.documentElement.scrollWidth") <= width
    if width < 500:
        heights = await page.eval_on_selector_all(
            "button:not([hidden]), select, input", "all => all.map(e => e.offsetHeight)"
        )
        assert all(height == 0 or height >= 40 for height in heights), heights


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_text_has_contrast(gateway: FakeGateway, open_page: OpenPage, scheme: str) -> None:
    """Every colour of text stands out from what it is written on by 4.5 to 1 (WCAG 2.1, AA)."""
    page = await open_page(signed_in(gateway), color_scheme=scheme)
    pairs = {
        "--ink": "--sheet",
        "--soft": "--paper",
        "--amber": "--sheet",
        "--red": "--red-wash",
        "--on-water": "--water",
    }
    pairs |= {"--water-deep": "--foam"}
    for front, back in pairs.items():
        ratio = await page.evaluate(CONTRAST, [front, back])
        assert ratio >= 4.5, f"{front} on {back}: {ratio:.2f}"


CONTRAST = """([front, back]) => {
  const light = (name) => {
    const hex = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
    const [r, g, b] = [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16) / 255)
      .map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const [dark, bright] = [light(front), light(back)].sort((a, b) => a - b);
  return (bright + 0.05) / (dark + 0.05);
}"""


async def test_the_page_works_with_the_keyboard_alone(gateway: FakeGateway, open_page: OpenPage) -> None:
    """Sign in, send, and cancel without a pointer; what is focused can be seen."""
    make_long(gateway)
    page = await open_page(gateway.url)
    await page.keyboard.type(KEY)
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("textbox", name="Prompt")).to_be_focused()
    await page.keyboard.type("one line")
    await page.keyboard.press("Shift+Enter")
    await page.keyboard.type("another")
    await page.keyboard.press("Enter")
    await expect(page.locator(".asked")).to_have_text("one line\nanother")
    await page.get_by_role("button", name="Cancel").focus()
    await page.keyboard.press("Enter")
    await expect(page.locator(".card .badge")).to_have_text("cancelled")


async def test_the_page_asks_nothing_of_anybody_else(gateway: FakeGateway, open_page: OpenPage) -> None:
    """All requests go to the gateway, and the page runs under a policy that allows nothing else."""
    page = await open_page(gateway.url)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    await page.goto(signed_in(gateway))
    await page.reload()
    await send(page, PROMPT)
    await finished(page)
    await asyncio.sleep(0)
    assert asked
    assert all(url.startswith(gateway.url) for url in asked)
