"""The page in a real browser: as a person uses it, with keyboard, mouse and clipboard."""

from __future__ import annotations

import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from sites import answered, ask, browser, opened, two_models, weather_answers

from rejoinder.testing import Answer, Fault
from rejoinder.testing.recording import Exchange
from rejoinder.testing.replaying import ReplayTransport

HOSTILE = (
    "<b>bold</b> <img src=x onerror=alert(1)> <script>alert(2)</script> "
    "[link](javascript:alert(3)) http://evil.example/ \x1b[31mred\x1b[0m \u202egnp.exe"
)


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as running:
        yield running


def last(page: Page) -> str:
    return page.locator(".message.assistant .text").last.inner_text()


def lanes(page: Page) -> list[str]:
    return page.locator("#timeline svg > g > text:first-child").all_text_contents()


def test_an_answer_streams_and_its_tools_are_shown(chromium: Browser) -> None:
    with (
        two_models(weather_answers(), Answer(text="Other")) as (served, _),
        opened(chromium, served.address.url) as page,
    ):
        assert "#" not in page.url  # the token is not left in the address bar
        ask(page, "Weather in Paris and Rome?")
        answered(page)
        assert last(page) == "It is sunny in both: 21 degrees."
        expect(page.locator(".tool summary")).to_have_text(["weather: done", "weather: done"])
        assert lanes(page).count("tool weather") == 2
        expect(page.locator("#why")).to_contain_text("First word after")
        expect(page.locator("#numbers")).to_contain_text("tokens")
        expect(page.locator("#status")).to_contain_text("The model said: It is sunny in both")
        page.reload()  # the token is kept for this tab
        page.wait_for_selector("body[data-loaded]")
        page.locator("#conversations button").first.click()
        assert last(page) == "It is sunny in both: 21 degrees."


def test_an_answer_is_stopped_by_a_key(chromium: Browser) -> None:
    stuck = Answer(text=["One ", "two ", "three"], fault=Fault.STALL_MID_STREAM, after=2)
    with (
        two_models(stuck, stuck) as (served, _),
        opened(chromium, served.address.url) as page,
    ):
        ask(page, "Count")
        expect(page.locator(".message.assistant .text")).to_have_text("One two ")
        page.keyboard.press("Escape")
        answered(page)
        expect(page.locator(".message.assistant .note")).to_have_text("stopped here")
        assert last(page) == "One two "


def test_a_hedge_is_seen_and_another_policy_is_tried(chromium: Browser) -> None:
    with (
        two_models(Answer(text="Large"), Answer(text="Small")) as (served, _),
        opened(chromium, served.address.url) as page,
    ):
        page.click("#policy-box summary")
        page.locator("#p-hedge").focus()
        for _ in range(5):  # faster than the answers of the server
            page.keyboard.press("ArrowRight")
        expect(page.locator("#p-hedge")).to_have_value("0.5")
        page.wait_for_load_state("networkidle")
        page.click("#faults-box summary")
        with page.expect_response(lambda got: "stall" in (got.request.post_data or "")):
            page.select_option("#fault-0", "stall")
        ask(page, "Hello")
        answered(page)
        assert last(page) == "Small"
        assert "gpt-small · hedge" in lanes(page)
        why = page.locator("#why")
        expect(why).to_contain_text("gpt-large was silent")
        expect(why).to_contain_text("gpt-small (hedge) was asked at 0.5")
        page.click("#whatif")
        rows = page.locator("#whatif-result tbody tr")
        expect(rows).to_have_count(8)
        expect(rows.first).to_contain_text("now: 10.00 s each, hedge after 0.50 s")


def test_what_a_model_says_is_text(chromium: Browser) -> None:
    with (
        two_models(Answer(text=HOSTILE), Answer(text="x")) as (served, _),
        opened(chromium, served.address.url) as page,
    ):
        page.on("dialog", lambda dialog: pytest.fail(dialog.message))
        ask(page, HOSTILE)
        answered(page)
        texts = page.locator(".message .text")
        for text in texts.all_inner_texts():
            assert "<script>alert(2)</script>" in text
            assert "\x1b" not in text
            assert "\u202e" not in text
            assert "⟨202e⟩" in text
        assert page.locator(".message a, .message script, .message b, .message img").count() == 0


def test_edit_retry_and_branch(chromium: Browser) -> None:
    answers = [Answer(text=text) for text in ("First", "Second", "Third", "Fourth")]
    with (
        two_models(answers, Answer(text="x")) as (served, _),
        opened(chromium, served.address.url) as page,
    ):
        ask(page, "I am Anna")
        answered(page)
        page.get_by_role("button", name="Retry").click()
        expect(page.locator(".message.assistant .text")).to_have_text("Second")
        answered(page)
        page.locator("#question").focus()
        page.keyboard.press("ArrowUp")
        expect(page.locator("#question")).to_have_value("I am Anna")
        page.fill("#question", "I am Bert")
        page.keyboard.press("Enter")
        expect(page.locator(".message.assistant .text")).to_have_text("Third")
        answered(page)
        expect(page.locator("#branches button")).to_have_count(3)
        page.locator("#branches button").first.click()
        expect(page.locator(".message .text")).to_have_text(["I am Anna", "First"])
        page.get_by_role("button", name="Branch").last.click()
        expect(page.locator("#conversations li")).to_have_count(2)
        ask(page, "And in the copy")
        expect(page.locator(".message .text")).to_have_text(
            ["I am Anna", "First", "And in the copy", "Fourth"]
        )


def test_exports_are_complete_and_replay(chromium: Browser, tmp_path: Path) -> None:
    with (
        two_models(Answer(text=["In ", "Paris"]), Answer(text="x")) as (served, _),
        opened(chromium, served.address.url, accept_downloads=True) as page,
    ):
        ask(page, "Where is the tower?")
        answered(page)
        with page.expect_download() as told:
            page.click("#export-json")
        told.value.save_as(tmp_path / "c.json")
        with page.expect_download() as told:
            page.click("#export-recording")
        told.value.save_as(tmp_path / "r.zip")
    data = json.loads((tmp_path / "c.json").read_text())
    assert [item["content"] for item in data["items"]] == [["Where is the tower?"], ["In Paris"]]
    archive = zipfile.ZipFile(io.BytesIO((tmp_path / "r.zip").read_bytes()))
    exchanges = [Exchange.from_json(json.loads(archive.read(name))) for name in archive.namelist()]
    assert len(ReplayTransport(exchanges).unused) == 1
    assert b"sk-canary" not in b"".join(archive.read(name) for name in archive.namelist())


def test_pictures_and_large_texts_are_pasted(chromium: Browser) -> None:
    paste = """([size, kind]) => {
      const data = new DataTransfer();
      if (kind === 'text/plain') data.setData(kind, 'x'.repeat(size));
      else data.items.add(new File([new Uint8Array(size)], 'a.png', { type: kind }));
      const event = new ClipboardEvent('paste', { clipboardData: data, bubbles: true, cancelable: true });
      document.querySelector('#question').dispatchEvent(event);
    }"""
    with (
        two_models(Answer(text="A picture"), Answer(text="x")) as (served, server),
        opened(chromium, served.address.url) as page,
    ):
        problem = page.locator("#problem")
        page.evaluate(paste, [50_000_000, "text/plain"])
        expect(problem).to_contain_text("was not pasted")
        page.evaluate(paste, [50_000_000, "image/png"])
        expect(problem).to_contain_text("50 MB")
        page.evaluate(paste, [100, "image/tiff"])
        expect(problem).to_contain_text("expected PNG")
        pixel = """async () => {
          const canvas = document.createElement('canvas');
          const blob = await new Promise((done) => canvas.toBlob(done, 'image/png'));
          const data = new DataTransfer();
          data.items.add(new File([blob], 'a.png', { type: 'image/png' }));
          const event = new ClipboardEvent('paste', { clipboardData: data, bubbles: true, cancelable: true });
          document.querySelector('#question').dispatchEvent(event);
        }"""
        page.evaluate(pixel)
        expect(page.locator("#pictures img")).to_have_count(1)
        ask(page, "What is it?")
        answered(page)
        expect(page.locator(".message.user img")).to_have_count(1)
        assert b"data:image/png;base64," in server.requests[0].body
        expect(problem).to_have_text("")


def test_a_failure_is_one_sentence(chromium: Browser) -> None:
    wrong = Answer(status=401, message="wrong key")
    with (
        two_models(wrong, wrong) as (served, _),
        opened(chromium, served.address.url) as page,
    ):
        ask(page, "Hello")
        page.wait_for_selector("#stop", state="hidden")
        expect(page.locator("#problem")).to_contain_text("wrong key")
        expect(page.locator("#why")).to_contain_text("No answer after")


def test_without_the_token_nothing_is_shown(chromium: Browser) -> None:
    with two_models(Answer(text="x"), Answer(text="x")) as (served, _):
        context = chromium.new_context()
        page = context.new_page()
        page.goto(served.address.url.partition("#")[0])
        expect(page.locator("#problem")).to_contain_text("rejoinder web")
        context.close()


def test_a_phone_and_the_keyboard(chromium: Browser) -> None:
    phone = {"viewport": {"width": 360, "height": 740}, "has_touch": True, "is_mobile": True}
    with (
        two_models(Answer(text="Hello " * 50), Answer(text="x")) as (served, _),
        opened(chromium, served.address.url, color_scheme="dark", **phone) as page,
    ):
        ask(page, "Hello")
        answered_text = page.locator(".message.assistant .text")
        expect(answered_text).to_contain_text("Hello Hello")
        page.wait_for_selector("#stop", state="hidden")
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 360
        page.click("#show-panel")
        expect(page.locator("#why")).to_be_visible()
        expect(page.locator("#show-panel")).to_have_attribute("aria-expanded", "true")
        shown = page.locator("#timeline")
        assert shown.evaluate("(e) => e.scrollWidth - e.clientWidth") == 0  # all of it
        page.keyboard.press("Escape")
        expect(page.locator("#why")).not_to_be_visible()
        assert (
            page.evaluate("getComputedStyle(document.body).backgroundColor") != "rgb(255, 255, 255)"
        )


def test_everything_has_a_name_and_can_be_reached(chromium: Browser) -> None:
    with (
        two_models(weather_answers(), Answer(text="x")) as (served, _),
        opened(chromium, served.address.url) as page,
    ):
        ask(page, "Weather?")
        answered(page)
        nameless = page.evaluate(
            """() => [...document.querySelectorAll('button, input, select, textarea, a[href], summary')]
              .filter((e) => !(e.labels?.length || e.getAttribute('aria-label') || e.textContent.trim()))
              .map((e) => e.outerHTML)"""
        )
        assert nameless == []
        ids = page.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)")
        assert len(ids) == len(set(ids))
        page.locator("#new").focus()
        seen: set[str] = set()
        for _ in range(40):
            seen.add(
                page.evaluate("document.activeElement.id || document.activeElement.textContent")
            )
            page.keyboard.press("Tab")
        assert {"search", "export-json", "export-recording", "messages", "question", "send"} <= seen
        page.keyboard.press("Alt+n")
        expect(page.locator(".message")).to_have_count(0)
