"""The built site in Chromium: pictures of its pages at the width of a phone and of a desk, and whatever went wrong."""

import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

WIDTHS = {"phone": 390, "desktop": 1280}
HEIGHT = 900
TALLEST = 6000  # of a picture: of a longer page the first part
FLAGS = (
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-sandbox",
)
SIZE = "(({scrollWidth, scrollHeight}) => [scrollWidth, scrollHeight])(document.documentElement)"


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: object) -> None:
        """Nothing: what failed the browser tells."""


@contextmanager
def served(site: Path) -> Iterator[str]:
    """The address of a server of this folder, on this machine alone."""
    handler = functools.partial(Quiet, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def look(page: Page, pixels: int, address: str, name: str, picture: Path) -> list[str]:
    """Open a page and take its picture; what it complained of, did not get, or could not fit into the width."""
    wrong: list[str] = []
    page.on("console", lambda said: said.type in ("error", "warning") and wrong.append(f"console: {said.text}"))
    page.on("pageerror", lambda error: wrong.append(f"script: {error}"))
    page.on("request", lambda sent: sent.url.startswith((address, "data:")) or wrong.append(f"asks for {sent.url}"))
    page.on("requestfailed", lambda sent: wrong.append(f"not loaded: {sent.url}"))
    page.on("response", lambda got: got.status >= 400 and wrong.append(f"status {got.status}: {got.url}"))
    page.goto(f"{address}/{name}", wait_until="load")
    width, height = page.evaluate(SIZE)
    if width > pixels:
        wrong.append(f"is {width - pixels} pixels wider than the window")
    page.set_viewport_size({"width": pixels, "height": min(height, TALLEST)})
    page.screenshot(path=picture)
    return wrong


def open_all(site: Path, pictures: Path, chromium: str) -> list[str]:
    """Every page at both widths; the complaints, each with its page."""
    shutil.rmtree(pictures, ignore_errors=True)
    wrong = []
    with served(site) as address, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=list(FLAGS))
        for file in sorted(site.rglob("*.html")):
            name = file.relative_to(site).as_posix()
            for width, pixels in WIDTHS.items():
                page = browser.new_page(viewport={"width": pixels, "height": HEIGHT})
                picture = pictures / f"{name.removesuffix('.html').replace('/', '-')}-{width}.png"
                wrong += [f"{name}, {width}: {what}" for what in look(page, pixels, address, name, picture)]
                page.close()
        browser.close()
    return wrong
