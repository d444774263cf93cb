"""A real headless Chromium, where one is installed; CI must have it (INFIR_REQUIRE_CHROMIUM=1)."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest


@contextmanager
def chromium(width: int = 1280, height: int = 900) -> Iterator[object]:
    """A driver with a fresh profile and no background traffic."""
    binary, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not (binary and driver):
        if os.environ.get("INFIR_REQUIRE_CHROMIUM"):
            pytest.fail("chromium and chromium-driver are required here and not installed")
        pytest.skip("chromium and chromium-driver are not installed")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = binary
    flags = "headless no-sandbox disable-gpu disable-quic no-first-run disable-background-networking disable-sync"
    for flag in [*flags.split(), "disable-component-update", "disable-dev-shm-usage", f"window-size={width},{height}"]:
        options.add_argument(f"--{flag}")
    if width < 500:  # a window can't be narrower, a phone can
        metrics = {"width": width, "height": height, "pixelRatio": 1.0, "touch": False, "mobile": False}
        options.add_experimental_option("mobileEmulation", {"deviceMetrics": metrics})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(driver))
    try:
        yield browser
    finally:
        browser.quit()
