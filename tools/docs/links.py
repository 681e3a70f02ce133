"""Every link of the built site leads to a page, and to a place on it; nothing is loaded from outside."""

from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src", "source": "src", "object": "data"}
FOLLOWED = {"a": "href"}
ADDRESS_ONLY = ("canonical", "alternate", "author", "license")  # <link>s from which nothing is loaded


class Document(HTMLParser):
    """The places that a page has, and what it links to: (address, whether it is loaded)."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.places: set[str] = set()
        self.links: list[tuple[str, bool]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attributes}
        self.places |= {given[name] for name in ("id", "name") if name in given}
        address = given.get(LOADED.get(tag) or FOLLOWED.get(tag) or "")
        if address and given.get("rel") not in ADDRESS_ONLY:
            self.links.append((address, tag in LOADED))


def broken(site: Path) -> list[str]:
    """Links that lead nowhere, and what a page would load from elsewhere; each with the page it is on."""
    pages = {file: Document(file.read_text(encoding="utf-8")) for file in sorted(site.resolve().rglob("*.html"))}
    return [
        f"{file.relative_to(site.resolve())}: {address}: {fault}"
        for file, page in pages.items()
        for address, loaded in page.links
        for fault in _faults(file, address, loaded, pages)
    ]


def _faults(file: Path, address: str, loaded: bool, pages: dict[Path, Document]) -> Iterator[str]:
    parts = urlsplit(address)
    if parts.scheme == "data":
        return
    if parts.scheme or parts.netloc:
        if loaded:
            yield "is loaded from another host"
        return
    target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
    if not target.is_file():
        yield "there is no such file"
    elif parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].places:
        yield "the page has no such place"
