"""What the site's pages are made of: tables of what was measured, links that lead somewhere, formulas."""

from dataclasses import replace

import pytest

from benchmarks.harness import Options
from benchmarks.harness.report import document, environment
from tests.benchmarks.test_report import TABLE
from tools.docs import benchmarks
from tools.docs.links import broken


def test_the_benchmarks_are_those_of_the_document():
    summary, everything = benchmarks.tables(document(Options(), environment(), [TABLE], [])).values()
    assert "| toy 2×3 | 1.5 | 2.00 × |" in summary
    assert "Of 2 bars that these figures are held to, 1 are met" in summary
    assert "| plain autodiff [nd] | 3.00 | 2.000 |" in everything
    assert "- **miss**: temporaries: 9 <= 4 MB" in everything
    assert "not measured: PyTorch (torch: not installed)" in everything


def test_a_smoke_run_is_no_measurement():
    smoke = replace(TABLE, untimed="smoke run")
    summary = benchmarks.tables(document(Options(smoke=True), environment(), [smoke], []))["summary"]
    assert "toy" not in summary


def test_nothing_measured_is_said(tmp_path):
    old = tmp_path / "old.json"
    old.write_text('{"schema": 1, "tables": []}', encoding="utf-8")
    assert benchmarks.read([tmp_path / "latest.json", old]) is None
    assert benchmarks.tables(None)["summary"] == benchmarks.NOTHING


@pytest.mark.parametrize(
    ("link", "fault"),
    [
        ('<a href="other.html#there">', None),
        ('<a href="other.html#nowhere">', "other.html#nowhere: the page has no such place"),
        ('<a href="missing.html">', "missing.html: there is no such file"),
        ('<a href="https://example.org/page">', None),
        ('<script src="https://example.org/a.js">', "https://example.org/a.js: is loaded from another host"),
        ('<img src="data:image/png;base64,AAAA">', None),
        ('<link rel="canonical" href="https://example.org/">', None),
    ],
)
def test_a_link_that_leads_nowhere_is_found(tmp_path, link, fault):
    (tmp_path / "page.html").write_text(f"<html>{link}</html>", encoding="utf-8")
    (tmp_path / "other.html").write_text('<h1 id="there">', encoding="utf-8")
    assert broken(tmp_path) == ([] if fault is None else [f"page.html: {fault}"])


def test_a_formula_that_is_not_understood_is_refused():
    pytest.importorskip("latex2mathml")
    from tools.docs.mathematics import mathml

    assert mathml(r"\begin{aligned} a &= b \\ c &= d \end{aligned}", "block").count("<mtr>") == 2
    with pytest.raises(ValueError, match="cannot be written as MathML"):
        mathml(r"a \nosuchcommand b", "inline")
