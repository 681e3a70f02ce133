"""Build the site: gather its sources, build them with Sphinx into site/html, and check its links.

    python -m tools.docs               build; any warning and any broken link is an error
    python -m tools.docs --open        and open every page in Chromium, at the width of a phone and of a desk

With --open the pictures of the pages lie in site/pictures, and whatever a page logs, fails to load, loads from another
host or cannot fit into the window is an error. The exit status is 1 where something is wrong, 3 where --open finds no
Chromium.
"""

import argparse
import shutil
import sys

from sphinx.cmd.build import main as sphinx

from tools.docs.browser import open_all
from tools.docs.links import broken
from tools.docs.sources import ROOT, gather

SITE = ROOT / "site"
SOURCES, HTML, DOCTREES, PICTURES = (SITE / part for part in ("sources", "html", "doctrees", "pictures"))
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")


def build() -> int:
    """Sphinx's exit status."""
    gather(SOURCES)
    shutil.rmtree(HTML, ignore_errors=True)
    return int(sphinx(["-q", "-W", "--keep-going", "-b", "html", "-d", str(DOCTREES), str(SOURCES), str(HTML)]))


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tools.docs", description="Build the documentation site.")
    parser.add_argument("--open", action="store_true", help="open every page in Chromium and take its picture")
    chosen = parser.parse_args(argv)

    if status := build():
        return status
    wrong = broken(HTML)
    if chosen.open and not wrong:
        browser = next(filter(None, map(shutil.which, BROWSERS)), None)
        if browser is None:
            print(f"found none of {', '.join(BROWSERS)}: the site is built, and was not opened", file=sys.stderr)
            return 3
        wrong = open_all(HTML, PICTURES, browser)
    print(*wrong, sep="\n", end="\n" if wrong else "", file=sys.stderr)
    print(f"{len(list(HTML.rglob('*.html')))} pages, {len(wrong)} faults: {HTML / 'index.html'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
