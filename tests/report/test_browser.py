"""The page in a browser."""

from __future__ import annotations

import shutil

import pytest


@pytest.fixture
def browser():
    webdriver = pytest.importorskip("selenium.webdriver", reason="needs selenium")
    programs = [shutil.which(name) for name in ("chromium", "chromedriver")]
    if None in programs:
        pytest.skip("needs chromium and chromedriver (Debian: chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(word)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(programs[1]))
    yield driver
    driver.quit()


def test_it_loads_whole_and_fits_a_telephone(runs, browser):
    metrics = {"width": 400, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get((runs.folder / "page.html").as_uri())
    widths = browser.execute_script("return [...document.images].map(i => i.naturalWidth)")
    assert len(widths) == len(runs.page.find("img"))
    assert max(widths) == 112
    assert min(widths) > 0
    wide = browser.execute_script("return document.documentElement.scrollWidth")
    assert wide <= 400
    heights = browser.execute_script(
        "return [...document.querySelectorAll('section > .figures svg')]"
        ".map(s => s.getBoundingClientRect().height)"
    )
    assert heights
    assert min(heights) > 50
    assert browser.get_log("browser") == []
    assert "CIERec" in browser.title
