"""Pictures of the page for the documentation, from a real browser, in the environment `playwright`::

PYTHONPATH=src:tests:tests/outside/web PYTHON tests/outside/web/pictures.py docs/pictures
"""

from __future__ import annotations

import sys
from pathlib import Path

from sites import answered, ask, browser, opened, two_models, weather_answers

from rejoinder import prices
from rejoinder.testing import Answer


def main(folder: Path) -> None:
    prices.set_prices(
        {
            "gpt-large": prices.Price(input=2.0, output=8.0, cache_read=0.5),
            "gpt-small": prices.Price(input=0.4, output=1.6, cache_read=0.1),
        }
    )
    large = Answer(text=["In Paris ", "it is sunny, ", "with 21 degrees."])
    with two_models(large, weather_answers()) as (served, _), browser() as chromium:
        options = {"viewport": {"width": 1180, "height": 680}}
        with opened(chromium, served.address.url, color_scheme="light", **options) as page:
            ask(page, "How is the weather in Paris?")
            answered(page)
            page.click("#policy-box summary")
            served.team.change({"policy": {"hedge": 0.4}})
            page.click("#faults-box summary")
            with page.expect_response("**/api/settings"):
                page.select_option("#fault-0", "stall")
            page.click("#faults-box summary")
            ask(page, "And in Paris and Rome, now?")
            answered(page)
            page.click("#whatif")
            page.wait_for_selector("#whatif-result table")
            page.locator("aside").evaluate("(e) => (e.scrollTop = 0)")
            page.click("#policy-box summary")
            page.wait_for_timeout(300)
            page.screenshot(path=folder / "web.png")
            page.click("#policy-box summary")
            page.set_viewport_size({"width": 1180, "height": 1400})
            page.locator("#policy-box").screenshot(path=folder / "web-policy.png")
        phone = {"viewport": {"width": 360, "height": 640}}
        with opened(chromium, served.address.url, color_scheme="dark", **phone) as page:
            page.click("#show-list")
            page.locator("#conversations button").first.click()
            page.click("#show-panel")
            page.screenshot(path=folder / "web-phone.png")
    with two_models(weather_answers(), large, approve=True) as (served, _), browser() as chromium:
        options = {"viewport": {"width": 1180, "height": 680}}
        with opened(chromium, served.address.url, color_scheme="light", **options) as page:
            ask(page, "How is the weather in Paris and Rome?")
            page.wait_for_selector(".approval")
            page.locator("#chat").screenshot(path=folder / "web-approve.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
