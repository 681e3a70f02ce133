"""The guide does what it says: the Python blocks of a page run in order, and print the block of text that follows."""

import contextlib
import io
import re
from doctest import ELLIPSIS, NORMALIZE_WHITESPACE, OutputChecker
from pathlib import Path

import jax
import pytest

DOCS = Path(__file__).parents[2] / "docs"
PAGES = sorted(page for page in DOCS.rglob("*.md") if "```python" in page.read_text(encoding="utf-8"))
FENCED = re.compile(r"^```(python|text)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(text: str) -> list[tuple[int, str, str | None]]:
    """The line, the code and the expected output of each Python block."""
    found: list[tuple[int, str, str | None]] = []
    for block in FENCED.finditer(text):
        language, body = block.groups()
        if language == "python":
            found.append((text.count("\n", 0, block.start()) + 1, body, None))
        elif found:
            found[-1] = (*found[-1][:2], body)
    return found


def run(page: Path) -> int:
    """How many blocks ran; AssertionError where one prints something else than the page says."""
    namespace: dict[str, object] = {"__name__": page.stem}
    found = blocks(page.read_text(encoding="utf-8"))
    for line, code, expected in found:
        printed = io.StringIO()
        with contextlib.redirect_stdout(printed):
            exec(compile("\n" * line + code, str(page), "exec"), namespace)
        if expected is not None:
            agrees = OutputChecker().check_output(expected, printed.getvalue(), ELLIPSIS | NORMALIZE_WHITESPACE)
            assert agrees, f"{page.name}:{line} prints\n{printed.getvalue()}and not\n{expected}"
    return len(found)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(DOCS).with_suffix("").as_posix())
def test_a_page_does_what_it_says(page):
    if "JAX_NUM_CPU_DEVICES=8" in page.read_text(encoding="utf-8") and jax.device_count() < 8:
        pytest.skip(reason="needs 8 devices")
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        assert run(page) > 0


def test_a_page_that_says_something_else_is_found(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\nx = 2\n```\nthen\n```python\nprint(x + 1)\n```\n```text\n4\n```\n", encoding="utf-8")
    with pytest.raises(AssertionError, match=r"page.md:5 prints\s+3\s+and not\s+4\s"):
        run(page)
