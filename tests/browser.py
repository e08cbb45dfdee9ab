"""A headless Chromium, and someone at a page in it."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest


@contextmanager
def headless() -> Iterator[Any]:
    """A headless Chromium of 1280 × 800; the test is skipped where there is none."""
    selenium = pytest.importorskip("selenium.webdriver", reason="no selenium here: pip install selenium")
    binary, driver = (shutil.which(name) for name in ("chromium", "chromedriver"))
    if not binary or not driver:
        pytest.skip("no Chromium here: apt-get install chromium chromium-driver, to try the page in a real browser")
    options = selenium.ChromeOptions()
    options.binary_location = binary
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = selenium.Chrome(options=options, service=selenium.ChromeService(driver))
    try:
        yield browser
    finally:
        browser.quit()


class Reader:
    """Someone at the page."""

    def __init__(self, browser: Any, path: Path, width: int = 1280, height: int = 800) -> None:
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
        browser.get("about:blank")
        browser.get_log("browser")
        browser.get(path.as_uri())
        self.browser = browser
        self.until("return document.getElementById('case-name').textContent !== ''")

    def ask(self, script: str, *arguments: Any) -> Any:
        return self.browser.execute_script(script, *arguments)

    def until(self, script: str, *arguments: Any) -> None:
        from selenium.webdriver.support.ui import WebDriverWait

        WebDriverWait(self.browser, 20, 0.02).until(lambda browser: browser.execute_script(script, *arguments))
        self.painted()

    def painted(self) -> None:
        """Waits until two frames were drawn."""
        two = "const done = arguments[0]; requestAnimationFrame(() => requestAnimationFrame(() => done()))"
        self.browser.execute_async_script(two)

    def press(self, *keys: str) -> None:
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.keys import Keys

        for key in keys:
            ActionChains(self.browser).send_keys(getattr(Keys, key, key)).perform()
        self.painted()

    def click(self, selector: str) -> None:
        from selenium.webdriver.common.by import By

        self.browser.find_element(By.CSS_SELECTOR, selector).click()
        self.painted()

    def choose(self, identity: str, value: str) -> None:
        script = "const e = document.getElementById(arguments[0]); e.value = arguments[1];"
        self.ask(f"{script} e.dispatchEvent(new Event('input')); e.dispatchEvent(new Event('change'))", identity, value)
        self.painted()

    def text(self, selector: str) -> str:
        return str(self.ask("return document.querySelector(arguments[0]).textContent", selector))

    def column(self, key: str) -> list[str]:
        script = (
            "const heads = [...document.querySelectorAll('#table thead tr:first-child th')];"
            "const place = heads.findIndex((head) => head.dataset.key === arguments[0]);"
            "return [...document.querySelectorAll('#table tbody tr')].map((row) => row.children[place].textContent)"
        )
        return list(self.ask(script, key))

    def pixels(self, tile: str, rows: int, columns: int) -> np.ndarray:
        """RGB (rows, columns, 3) at the middle of every voxel of a whole slice, as drawn."""
        script = (
            "const canvas = document.querySelector(arguments[0] + ' canvas'), pen = canvas.getContext('2d');"
            "const { data } = pen.getImageData(0, 0, canvas.width, canvas.height), out = [];"
            "for (let r = 0; r < arguments[1]; r++) for (let c = 0; c < arguments[2]; c++) {"
            "  const x = Math.floor((c + 0.5) * canvas.width / arguments[2]);"
            "  const y = Math.floor((r + 0.5) * canvas.height / arguments[1]), i = 4 * (y * canvas.width + x);"
            "  out.push(data[i], data[i + 1], data[i + 2]); } return out"
        )
        return np.array(self.ask(script, tile, rows, columns)).reshape(rows, columns, 3)
