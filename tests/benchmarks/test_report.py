"""What is printed and written, and the command line around it."""

import json
from dataclasses import replace

import pytest

from benchmarks import __main__ as command
from benchmarks.harness import Bar, Entry, Options, Row, Table
from benchmarks.harness.report import WIDTH, Printer, bar_line, cells, document, environment

TABLE = Table(
    "toy 2×3",
    (("median ms", "{median_ms:.2f}"), ("/ ours", "{ratio:.3f}"), ("GB/s", "{gbs:.1f}")),
    [
        Entry("adjax", {"median_ms": 1.5, "ratio": 1.0}),
        Entry("plain autodiff [nd]", {"median_ms": 3.0, "ratio": 2.0}),
        Entry("PyTorch", missing="torch: not installed"),
    ],
    ceilings=[{"name": "copy 64 MB", "unit": "GB/s", "speed": 12.34, "share": 0.5}],
    bars=[
        Bar("time: plain autodiff / adjax", 2.0, ">=", 1.5, interval=(1.9, 2.1)),
        Bar("temporaries", 9.0, "<=", 4.0, "MB"),
    ],
    notes=["rounds: 5"],
)


def names_of(patch, rows):
    patch.setattr(command, "find_rows", lambda options: rows)


@pytest.fixture
def toy(monkeypatch):
    names_of(monkeypatch, {"toy: toy 2×3": Row("toy 2×3", lambda options: TABLE)})


@pytest.mark.parametrize("rich", [False, True])
def test_a_table_prints_everything_in_a_hundred_columns(rich, capsys):
    if rich:
        pytest.importorskip("rich")
    printer = Printer(rich=rich)
    printer.header(environment())
    printer.table(TABLE)
    printed = capsys.readouterr().out
    assert max(map(len, printed.splitlines())) <= WIDTH
    for text in (
        "jax ",
        "median ms",
        "plain autodiff [nd]",
        "not measured: PyTorch (torch: not installed)",
        "copy 64 MB: 12.3 GB/s, of which ours reaches 50 %",
        "rounds: 5",
        "pass        time: plain autodiff / adjax: 2 [1.9, 2.1] >= 1.5",
        "miss        temporaries: 9 <= 4 MB",
    ):
        assert text in printed


def test_columns_nobody_fills_are_left_out():
    headings, body = cells(TABLE)
    assert headings == ["", "median ms", "/ ours"]
    assert body[0] == ["adjax", "1.50", "1.000"]
    assert body[2] == ["PyTorch", "–", "–"]


def test_bars_are_judged_by_their_sense():
    assert Bar("b", 1.0, "<=", 1.0).status == "pass"
    assert Bar("b", 1.1, "<=", 1.0).status == "miss"
    assert Bar("b", 1.0, ">=", 1.1).status == "miss"
    assert Bar("b", 3, "==", 3).status == "pass"
    assert Bar("b", 2, "==", 3).status == "miss"
    assert Bar("b", 1.1, "<=", 1.0, reason="smoke run").status == "not judged"
    assert bar_line(Bar("b", None, "<=", 1.0, reason="torch: not installed")).endswith("– <= 1 (torch: not installed)")


def test_the_document_is_json_with_versions_bars_and_errors():
    made = document(Options(seconds=2), environment(), [TABLE], [{"row": "r", "error": "e"}])
    contents = json.loads(json.dumps(made))
    assert contents["schema"] == 2
    assert contents["options"] == {"seconds": 2, "smoke": False, "seed": 0}
    assert contents["environment"]["cores"] >= 1
    assert {"jax", "numpy", "torch"} <= contents["environment"]["versions"].keys()
    table, = contents["tables"]
    assert table["name"] == "toy 2×3"
    assert table["entries"][2] == {"name": "PyTorch", "measures": {}, "missing": "torch: not installed"}
    assert [(bar["table"], bar["value"], bar["limit"], bar["status"]) for bar in contents["bars"]] == [
        ("toy 2×3", 2.0, 1.5, "pass"),
        ("toy 2×3", 9.0, 4.0, "miss"),
    ]
    assert contents["errors"] == [{"row": "r", "error": "e"}]


def test_the_command_writes_json_and_is_strict_on_demand(toy, tmp_path, capsys):
    file = tmp_path / "new" / "results.json"
    assert command.main(["--json", str(file)]) == 0
    assert json.loads(file.read_text(encoding="utf-8"))["bars"][1]["status"] == "miss"
    assert "1 rows, 1 bars missed, 0 errors" in capsys.readouterr().out
    assert command.main(["--json", str(file), "--strict"]) == 1


def test_a_row_that_fails_is_told_and_does_not_stop_the_others(monkeypatch, tmp_path, capsys):
    def fail(options):
        raise ValueError("ragged")

    names_of(monkeypatch, {"a: bad": Row("bad", fail), "b: good": Row("good", lambda options: replace(TABLE, bars=[]))})
    file = tmp_path / "results.json"
    assert command.main(["--json", str(file)]) == 1
    contents = json.loads(file.read_text(encoding="utf-8"))
    assert contents["errors"] == [{"row": "a: bad", "error": "ValueError: ragged"}]
    assert [table["name"] for table in contents["tables"]] == ["toy 2×3"]
    assert "ValueError: ragged" in capsys.readouterr().err


def test_rows_are_chosen_by_pattern(toy, capsys):
    names = ["affine: affine 64×4096×4096", "affine: affine 8×32×32", "importing: import adjax"]
    assert command.choose(names, None) == names
    assert command.choose(names, "Affine") == names[:2]
    assert command.choose(names, "64x4096") == names[:1]
    assert command.choose(names, "i*32") == names[1:2]
    assert command.main(["--list"]) == 0
    assert capsys.readouterr().out == "toy: toy 2×3\n"
    assert command.main(["--only", "nothing"]) == 2
    assert "no row matches 'nothing'" in capsys.readouterr().err
    with pytest.raises(SystemExit) as stop:
        command.main(["--sceonds", "3"])
    assert stop.value.code == 2
