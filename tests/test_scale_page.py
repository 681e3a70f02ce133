"""docs/scale.md shows what its commands print, and its table says what limits each layer in the first prediction."""

import re
from pathlib import Path

import pytest

from adjax import DECODERS, HARDWARE, Degrees, predict
from tools import console

PAGE = Path(__file__).parents[1] / "docs" / "scale.md"


def test_the_commands_print_what_the_page_shows():
    page = PAGE.read_text(encoding="utf-8")
    assert page.count(console.PROMPT) == 8
    assert console.renewed(page) == page


def test_the_table_of_layers_says_what_limits_them():
    of = predict(DECODERS["7b"], Degrees(fsdp=256), HARDWARE["h100"])
    bounds = {layer.name: of.times(layer.forward).bound for layer in of.layers}
    rows = re.findall(r"^\| `(\w+)` \|.*\| (\w+) \|[^|]*\|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(rows) == 11
    assert dict(rows) == {name: bounds[name] for name, _ in rows}


def test_a_stale_page_is_found_and_renewed(tmp_path, capsys):
    page = tmp_path / "page.md"
    page.write_text("Before\n```console\n$ python -m adjax cost --brief\nold\n```\nafter `text`\n", encoding="utf-8")
    assert console.main(["--check", str(page)]) == 1
    assert "old" in page.read_text(encoding="utf-8")
    assert console.main([str(page)]) == console.main(["--check", str(page)]) == 0
    assert capsys.readouterr().out == "differs: page.md\nrenewed: page.md\n"
    before, shown, after = page.read_text(encoding="utf-8").split("```")
    assert (before, after) == ("Before\n", "\nafter `text`\n")
    assert shown.startswith("console\n$ python -m adjax cost --brief\n6.74 G parameters: ")
    page.write_text("```console\n$ python -m adjax cost --chips 3\n```\n", encoding="utf-8")
    with pytest.raises(SystemExit, match="exit status 2"):
        console.main([str(page)])
