"""The page of `serve` in a browser."""

from __future__ import annotations

import shutil

import pytest

webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")

from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import WebDriverWait  # noqa: E402

LOADED = (
    "return [...document.querySelectorAll(arguments[0])].map(i => i.complete && i.naturalWidth)"
)


@pytest.fixture
def browser():
    paths = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    if missing := [name for name, path in paths.items() if path is None]:
        pytest.skip(f"needs {' and '.join(missing)}")
    options = webdriver.ChromeOptions()
    options.binary_location = paths["chromium"]
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    service = webdriver.ChromeService(paths["chromedriver"])
    made = webdriver.Chrome(options=options, service=service)
    yield made
    made.quit()


def size(browser, width: int) -> None:
    metrics = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


def fits(browser, width: int) -> bool:
    return browser.execute_script("return document.documentElement.scrollWidth") <= width


def test_lists_a_new_picture_and_neighbours_in_a_browser(browser, address, models, world):
    def wait(what):
        return WebDriverWait(browser, 30, 0.05).until(lambda _: what())

    def find(selector):
        return browser.find_elements(By.CSS_SELECTOR, selector)

    size(browser, 1280)
    browser.get(address)
    wait(lambda: find("html[data-ready]"))
    box = browser.find_element(By.ID, "user")
    box.send_keys("u1")
    wait(lambda: len(find("#found [role=option]")) == 11)
    box.send_keys(Keys.ARROW_DOWN, Keys.ARROW_DOWN, Keys.ENTER)  # the second is u10
    wait(lambda: len(find("#user-out ol.cards")) == 2)  # a list of each model
    for column, model in zip(find(".columns > section"), models, strict=True):
        (wanted,) = model.recommend([_wish("u10")])
        names = [card.text.split("\n") for card in column.find_elements(By.CSS_SELECTOR, ".card")]
        assert [item["item"] for item in wanted[0]["items"]] == [
            next(word for word in name if word.startswith("i") and word != "in both")
            for name in names
        ]
    pictures = "#user-out .strip img, #user-out li:nth-child(-n+3) img"
    wait(lambda: all(browser.execute_script(LOADED, pictures)))
    assert len(find(pictures)) > 5

    size(browser, 400)
    assert fits(browser, 400)
    find("ol.cards .card")[0].click()
    wait(lambda: find("#near[open] .card"))
    assert fits(browser, 400)
    find("#near [data-by=annotations]")[0].send_keys(Keys.ENTER)
    wait(lambda: find("#near .card, #near .note"))
    find("#near-close")[0].send_keys(Keys.ENTER)

    find("#tab-item")[0].click()
    find("#picture")[0].send_keys(str(world.home / "images" / "extra.png"))
    wait(lambda: len(find("#item-out .people li")) == 20)
    assert fits(browser, 400)
    wait(lambda: all(browser.execute_script(LOADED, "#item-out li:nth-child(-n+2) img")))
    assert browser.execute_script("return document.querySelector('#preview').naturalWidth") == 32
    assert browser.get_log("browser") == []


def test_ids_and_annotations_are_text_on_the_page(browser, address):
    browser.get(f"{address}/#user=%3Cimg%20src=x%20onerror=document.title=1%3E")
    wait = WebDriverWait(browser, 30, 0.05)
    wait.until(lambda _: browser.find_elements(By.CSS_SELECTOR, "#user-out .note"))
    assert browser.title == "Recommendations"
    assert not browser.find_elements(By.CSS_SELECTOR, "img[src=x]")


def _wish(user: str):
    from recbole_cierec.serving.web.served import ListRequest

    return ListRequest([user], 20)
