"""The picture of a report in README: ``python benchmarks/report_picture.py``.

Trains CIERec on the demo data, makes its report, and photographs the top of the page and the first
users with a hit in Chromium. Needs the extra ``report``, selenium, and Chromium with its driver.
"""

from __future__ import annotations

import base64
import io
import os
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

from PIL import Image
from selenium import webdriver

from recbole_cierec import run
from recbole_cierec.report import report

OUT = Path(__file__).resolve().parents[1] / "docs" / "figures" / "report.png"
WIDTH, COLOURS = 1240, 160
_CARDS = 2
# Folds the page to its top and to the first users with a hit, and returns the height.
_FOLD = f"""
document.querySelectorAll('main > section:not(#test):not(#users)').forEach(s => s.remove());
const cards = [...document.querySelectorAll('#users .card')];
const kept = cards.filter(c => c.querySelector('.mark')).slice(0, {_CARDS});
cards.filter(c => !kept.includes(c)).forEach(c => c.remove());
document.querySelector('footer').remove();
return document.querySelector('main').getBoundingClientRect().bottom + 10;
"""


def browser() -> Any:
    """Chromium without a window."""
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or ""
    for word in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--hide-scrollbars"):
        options.add_argument(word)
    service = webdriver.ChromeService(shutil.which("chromedriver"))
    return webdriver.Chrome(options=options, service=service)


def photograph(page: Path, out: Path) -> None:
    """Write the folded page as PNG."""
    driver = browser()
    try:
        screen = {"width": WIDTH, "height": 1000, "deviceScaleFactor": 1, "mobile": False}
        driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", screen)
        driver.get(page.resolve().as_uri())
        clip = {"x": 0, "y": 0, "width": WIDTH, "height": driver.execute_script(_FOLD), "scale": 1}
        taken = driver.execute_cdp_cmd(
            "Page.captureScreenshot", {"clip": clip, "captureBeyondViewport": True}
        )
    finally:
        driver.quit()
    with Image.open(io.BytesIO(base64.b64decode(taken["data"]))) as picture:
        small = picture.convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
        small.save(out, optimize=True)


def main(argv: list[str]) -> None:
    """Make the picture; a report's page as argument is used in place of a new run."""
    if argv:
        photograph(Path(argv[0]), OUT)
        return
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        result = run("CIERec", "demo", config_dict={"state": "warning"})
        assert result is not None  # noqa: S101  one process
        photograph(report(result["checkpoint"]), OUT)


if __name__ == "__main__":
    main(sys.argv[1:])
