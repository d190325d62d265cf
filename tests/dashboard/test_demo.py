"""`schleuse demo` stays, with a dashboard that opens, and leaves nothing behind when it is told to end."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from playwright.sync_api import expect, sync_playwright

from tests.dashboard.test_browser import CHROMIUM, FLAGS

pytestmark = [pytest.mark.browser, pytest.mark.stack]


def test_a_stranger_sees_figures_and_ctrl_c_ends_it(tmp_path: Path) -> None:
    printed = tmp_path / "printed"
    demo = subprocess.Popen(
        [sys.executable, "-m", "streams.cli", "demo", "--events", "20000", "--keep", str(tmp_path / "kept")],
        stdout=printed.open("wb"),
        stderr=subprocess.STDOUT,
        env={**os.environ, "COLUMNS": "120"},
    )
    try:
        end = time.monotonic() + 180
        while "Ctrl-C" not in printed.read_text():
            assert demo.poll() is None, printed.read_text()
            assert time.monotonic() < end, printed.read_text()
            time.sleep(0.5)
        said = printed.read_text()
        address = re.search(r"http://127\.0\.0\.1:\d+", said)
        key = re.search(r"buchladen +analyst +(schleuse_\S+)", said)
        assert address
        assert f"schleuse --config {tmp_path / 'kept' / 'schleuse.toml'} readers add --tenant " in said
        assert key
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(
                executable_path=CHROMIUM, args=FLAGS, chromium_sandbox=os.getuid() != 0
            )
            page = browser.new_page()
            page.goto(address[0])
            page.fill("#key", key[1])
            page.press("#key", "Enter")
            page.click("text=Lesen im Herbst")
            expect(page.locator(".tiles .big").first).to_contain_text("±")
            expect(page.locator(".plot .main-svg").first).to_be_visible()
            browser.close()
    finally:
        demo.send_signal(signal.SIGINT)
        assert demo.wait(60) == 0
    left = subprocess.run(["pgrep", "-f", str(tmp_path)], capture_output=True, text=True, check=False).stdout.split()
    assert left == []
