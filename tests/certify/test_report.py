"""How a certificate is shown: every line of the text, the notebook's HTML, and the JSON."""

import json
import math
import pickle
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest

from adjax.certify.certificate import AdjointError, Certificate, Finding, Power, Residual, Row, Verdict
from adjax.certify.report import html, text, to_dict
from adjax.certify.report_html import page
from adjax.certify.report_text import spelled
from adjax.certify.report_words import magnitude, opinion, share, size

INF, NAN = math.inf, math.nan
ORACLES = {"jvp": True, "vjp": True, "differences": True}
ONE_DEVICE = "one device: simulate more with --devices 8 on the command line"
PROVEN = Certificate(
    name="affine",
    signature="W f32[16,8], X f32[32,16] -> f32[32,8]",
    rows=(
        Row("structure", "", Verdict.PROVEN, 12),
        Row("adjoint", "", Verdict.PROVEN, 60, 0.31),
        Row("sizes", "", Verdict.PROVEN, 30, 0.001, "n=31,1,0"),
        Row("half precision", "", Verdict.SKIPPED, note="no argument is bf16 or f16"),
        Row("adjoint", "jit", Verdict.PROVEN, 6, 0.0),
        Row("adjoint", "shard_map", Verdict.UNSUPPORTED, note=ONE_DEVICE),
    ),
    findings=(),
    powers=(Power("W", 2.3e-6, 4e-7, 0, 128, ORACLES), Power("X", 3e-6, 4e-7, 12, 512, ORACLES)),
    residuals=(Residual("W", (16, 8), "f32", 512), Residual("X", (32, 16), "float32", 2048)),
    warnings=("residual X is wider than its primal",),
    waived=(),
    seed=7,
    environment="jax 0.10.2, Python 3.11, 8 cpu devices",
    seconds=3.21,
)
PROVEN_TEXT = """\
certificate of affine: PROVEN
  W f32[16,8], X f32[32,16] -> f32[32,8]

  law             verdict        checks   error / tolerance
  ──────────────────────────────────────────────────────────────────────────────
  structure       ✓ proven           12
  adjoint         ✓ proven           60    31 %
  sizes           ✓ proven           30    <1 %  n=31,1,0
  half precision  - skipped      no argument is bf16 or f16

  context         verdict        checks   error / tolerance
  ──────────────────────────────────────────────────────────────────────────────
  jit             ✓ proven            6     0 %
  shard_map       - unsupported  one device: simulate more with --devices 8 on
                                 the command line

detection power: the smallest relative error that would have been seen
  argument  element    whole      blind   oracles
  ──────────────────────────────────────────────────────────────────────────────
  W           2e-06    4e-07          0   3 agree
  X           3e-06    4e-07  12 of 512   3 agree
  oracles: jvp, vjp, differences; blind: elements whose derivative was zero at
    every probe

residuals: 2, 2.5 KiB
  W  f32[16,8]                    512 B
  X  f32[32,16]                 2.0 KiB

! residual X is wider than its primal

PROVEN by 108 checks in 3.2 s · seed 7 · jax 0.10.2, Python 3.11, 8 cpu devices"""

WRONG = Finding(
    "adjoint", "W", "", "expected ⟨dY, J δW⟩ = -3.2, found -0.1", "dW equals Xᵀ dY / n: the rule averages over axis 0",
    0.97, 2e-6,
)  # fmt: skip
REFUTED = replace(
    PROVEN,
    rows=(
        Row("adjoint", "", Verdict.REFUTED, 60, 4.9e5, "W"),
        Row("linear", "", Verdict.WAIVED, 18, 3.21, "W"),
        Row("adjoint", "jit", Verdict.REFUTED, 6, 4.8e5, "W"),
    ),
    findings=(
        Finding("linear", "W", "", "twice the cotangent gives 1.0 times the result"),
        WRONG,
        replace(WRONG, context="jit", measured=0.99),
        replace(WRONG, context="vmap X", measured=NAN),
        Finding("pure", "", "scan", "two calls differ", measured=1e-3),
    ),
    powers=(Power("W", INF, NAN, 0, 128, dict.fromkeys(ORACLES, False)),),
    residuals=(),
    warnings=(),
    waived=("linear",),
)
REFUTED_TEXT = """\
certificate of affine: REFUTED, with linear waived
  W f32[16,8], X f32[32,16] -> f32[32,8]

findings
  ✗ adjoint of W
    dW equals Xᵀ dY / n: the rule averages over axis 0
    expected ⟨dY, J δW⟩ = -3.2, found -0.1
    error 0.99 of the largest entry; rounding explains 2e-06
    also: jit, vmap X
  ✗ pure, scan
    two calls differ
    error 0.001 of the largest entry
  ~ waived: linear of W
    twice the cotangent gives 1.0 times the result

  law      verdict        checks   error / tolerance
  ──────────────────────────────────────────────────────────────────────────────
  adjoint  ✗ REFUTED          60   5e5 ×  W
  linear   ~ waived           18   3.2 ×  W

  context  verdict        checks   error / tolerance
  ──────────────────────────────────────────────────────────────────────────────
  jit      ✗ REFUTED           6   5e5 ×  W

detection power: the smallest relative error that would have been seen
  argument  element    whole  blind   oracles
  ──────────────────────────────────────────────────────────────────────────────
  W               —        —      0   all 3 dissent
  oracles: jvp, vjp, differences

REFUTED by 84 checks in 3.2 s · seed 7 · jax 0.10.2, Python 3.11, 8 cpu devices"""
VACUOUS = replace(
    PROVEN, rows=(), powers=(Power("X", INF, INF, 8, 8, {}),), residuals=(), warnings=(), seconds=0.0, environment=""
)
VACUOUS_TEXT = """\
certificate of affine: VACUOUS
  W f32[16,8], X f32[32,16] -> f32[32,8]

  Every derivative was zero at every point looked at, so no mistake could have
  been seen. Give arguments at which the function is not constant.

detection power: the smallest relative error that would have been seen
  argument  element    whole   blind   oracles
  ──────────────────────────────────────────────────────────────────────────────
  X               —        —  8 of 8   none
  blind: elements whose derivative was zero at every probe

VACUOUS by 0 checks in 0.0 s · seed 7"""

LONG = "layers[0]['attention']['query']." + "kernel" * 20
UNWIELDY = replace(
    REFUTED,
    name="f" * 100,
    signature=f"{LONG} f32[16,8], " * 5 + "-> f32[1]",
    rows=tuple(
        Row("a law with a long name", context, Verdict.UNSUPPORTED, checks, measured, "word " * 60 + "x" * 300)
        for context in ("", f"vmap {LONG}")
        for checks in (0, 10**6)
        for measured in (NAN, INF, 1e300)
    ),
    findings=tuple(
        Finding("adjoint", f"{LONG}{i}", "c" * 90, "m" * 200, "d " * 200, 1e-300, INF) for i in range(30)
    ) + tuple(Finding("linear", "W", f"vmap argument[{i}]", "m") for i in range(30)),
    powers=(Power(LONG, 1e-6, 1e-7, 10**5, 10**6, {"differences": False, "linear transpose": False, "jvp": True}),),
    residuals=tuple(Residual(f"{LONG}[{i}]", (10**6,) * 6, "f8_e4m3b11fnuz", 2**i) for i in range(60)),
    warnings=(f"residual {LONG} is wide", "short"),
    waived=("linear", f"vmap {LONG}", "sizes"),
    environment="e " * 100,
)  # fmt: skip
ALL = {"proven": PROVEN, "refuted": REFUTED, "vacuous": VACUOUS, "unwieldy": UNWIELDY}


@pytest.mark.parametrize(
    ("certificate", "expected"), [(PROVEN, PROVEN_TEXT), (REFUTED, REFUTED_TEXT), (VACUOUS, VACUOUS_TEXT)]
)
def test_every_line_of_the_text(certificate, expected):
    assert text(certificate) == str(certificate) == expected


@pytest.mark.parametrize("name", ALL)
def test_no_line_is_wider_than_80_columns_or_ends_in_a_space(name):
    for line in text(ALL[name]).split("\n"):
        assert len(line) <= 80 and line == line.rstrip()


def test_a_row_that_was_not_checked_shows_no_error():
    assert share(Row("half precision", "", Verdict.SKIPPED, 0, 0.0)) == ""
    assert share(Row("structure", "", Verdict.REFUTED, 0, INF)) == "inf ×"


def test_what_is_too_much_is_counted_instead():
    lines = text(UNWIELDY).split("\n")
    assert "  and 19 more" in lines
    assert "  49 smaller ones, 512.0 TiB" in lines
    assert len(lines) < 300


def test_names_keep_their_ends_and_notes_their_beginnings():
    said = text(UNWIELDY)
    assert "  …l" + "kernel" * 4 + "  " in said
    assert "word word" in said and "word …" in said


def test_the_contexts_of_one_finding_are_listed_up_to_eight():
    many = tuple(Finding("linear", "W", f"c{i}", "m") for i in range(12))
    assert "    also: c1, c2, c3, c4, c5, c6, c7, c8 and 3 more" in text(replace(REFUTED, findings=many, waived=()))


def test_colour_changes_nothing_but_colour():
    painted = text(REFUTED, colour=True)
    assert "\x1b[31mREFUTED\x1b[0m" in painted and "\x1b[33m~ waived:\x1b[0m" in painted
    assert "\x1b[32m✓ proven" in text(PROVEN, colour=True)
    for escape in ("\x1b[31m", "\x1b[32m", "\x1b[33m", "\x1b[0m"):
        painted = painted.replace(escape, "")
    assert painted == REFUTED_TEXT


def test_the_text_can_be_spelled_in_ascii():
    said = spelled(REFUTED_TEXT + "→ 日本", "ascii")
    assert said.isascii()
    assert "  x adjoint of W\n    dW equals X^T dY / n: " in said and "expected <dY, J dW> = -3.2" in said
    assert said.endswith("-> ??")
    assert spelled(REFUTED_TEXT, "utf-8") == REFUTED_TEXT


@pytest.mark.parametrize(
    ("measured", "expected"),
    [(NAN, ""), (0.0, "0 %"), (1e-9, "<1 %"), (0.006, "1 %"), (0.994, "99 %"), (1.0, "100 %"), (1.04, "1 ×"),
     (2.55, "2.5 ×"), (99.4, "99 ×"), (100, "1e2 ×"), (4.9e5, "5e5 ×"), (1e12, "1e12 ×"), (INF, "inf ×")],
)  # fmt: skip
def test_errors_in_units_of_the_tolerance(measured, expected):
    assert share(Row("adjoint", "", Verdict.PROVEN, 1, measured)) == expected


@pytest.mark.parametrize(
    ("count", "expected"),
    [(0, "0 B"), (1023, "1023 B"), (1024, "1.0 KiB"), (2560, "2.5 KiB"), (2**20 - 1, "1.0 MiB"), (3 * 2**30, "3.0 GiB"),
     (2**50, "1024.0 TiB")],
)  # fmt: skip
def test_bytes(count, expected):
    assert size(count) == expected


@pytest.mark.parametrize(
    ("agreement", "expected"),
    [("yyyy", "4 agree"), ("y", "1 agrees"), ("n", "a dissents"), ("nn", "all 2 dissent"), ("yn", "1 agrees, not b"),
     ("yynn", "2 agree, not c and d"), ("ynnn", "1 agrees, not b, c and d"), ("", "none")],
)  # fmt: skip
def test_what_the_oracles_say(agreement, expected):
    oracles = {name: answer == "y" for name, answer in zip("abcd", agreement, strict=False)}
    assert opinion(Power("W", 1.0, 1.0, 0, 1, oracles)) == expected


def test_detection_power_that_is_none_is_a_dash():
    assert [magnitude(x) for x in (2.3e-7, 0.5, INF, NAN)] == ["2e-07", "5e-01", "—", "—"]


class Outline(HTMLParser):
    """The text of a page and whether its tags nest."""

    def __init__(self, page):
        super().__init__()
        self.open, self.said, self.tags = [], [], set()
        self.feed(page)

    def handle_starttag(self, tag, attributes):
        self.tags.add(tag)
        if tag not in ("br", "meta"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.said.append(data)


@pytest.mark.parametrize("name", ALL)
def test_html_nests_and_says_what_the_text_says(name):
    certificate = ALL[name]
    outline = Outline(html(certificate))
    said = " ".join(outline.said)
    assert outline.open == []
    assert certificate._repr_html_() == html(certificate)
    assert certificate.name in said and certificate.verdict.upper() in said
    for row in certificate.rows:
        assert row.note in said and (row.context or row.law) in said and row.verdict in said
    for finding in certificate.findings[:10]:
        assert finding.message in said and finding.diagnosis in said
    assert all(warning in said for warning in certificate.warnings)
    assert {"script", "style", "link", "img"}.isdisjoint(outline.tags)


def test_html_escapes_everything_that_is_not_ours():
    evil = "<script>alert('x')</script>&amp;\""
    certificate = Certificate(
        evil, evil,
        (Row(evil, "", Verdict.REFUTED, 1, 1.0, evil), Row(evil, evil, Verdict.REFUTED, 1, 1.0, evil)),
        (Finding(evil, evil, evil, evil, evil), Finding(evil, evil, "jit", evil, evil)),
        (Power(evil, 1.0, 1.0, 0, 1, {evil: False, "b": True}),),
        (Residual(evil, (1,), evil, 4),), (evil,), (evil,), 0, evil, 0.0,
    )  # fmt: skip
    for shown in (html(certificate), page(certificate)):
        outline = Outline(shown)
        assert outline.open == [] and "script" not in outline.tags
        assert "<script>" not in shown and "&amp;amp;" in shown
        assert "".join(outline.said).count(evil) >= 14


def test_html_takes_its_colours_from_the_page_and_tells_verdicts_apart_without_them():
    shown = html(replace(REFUTED, rows=tuple(Row("law", "", v) for v in Verdict)))
    for colour in ("color:#000", "color:black", "background:#fff", "background:white"):
        assert colour not in shown
    for mark, word in zip("✓✗~--○", ("proven", "refuted", "waived", "unsupported", "skipped", "vacuous"), strict=True):
        assert f">{mark} {word}<" in shown


def test_a_page_follows_the_readers_theme():
    shown = page(PROVEN)
    assert shown.startswith("<!doctype html>") and "color-scheme:light dark" in shown
    assert html(PROVEN) in shown and "<title>certificate of affine</title>" in shown


@pytest.mark.parametrize("name", ALL)
def test_a_dictionary_survives_json(name):
    certificate = ALL[name]
    data = to_dict(certificate)
    assert data == certificate.to_dict()
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert (data["verdict"], data["ok"]) == (str(certificate.verdict), certificate.ok)
    assert set(data) == {
        "name", "signature", "rows", "findings", "powers", "residuals", "warnings", "waived", "seed", "environment",
        "seconds", "verdict", "ok", "failures", "versions",
    }  # fmt: skip


def test_what_a_dictionary_holds():
    data = to_dict(REFUTED)
    assert data["failures"] == [1, 2, 3, 4]
    assert data["findings"][1]["diagnosis"] == WRONG.diagnosis
    assert data["findings"][3]["measured"] is None and data["findings"][0]["tolerance"] is None
    assert data["rows"][0] == {
        "law": "adjoint", "context": "", "verdict": "refuted", "checks": 60, "measured": 4.9e5, "note": "W"
    }  # fmt: skip
    assert data["powers"] == [
        {"argument": "W", "element": None, "scale": None, "blind": 0, "size": 128,
         "oracles": {"jvp": False, "vjp": False, "differences": False}}
    ]  # fmt: skip
    assert data["waived"] == ["linear"]
    assert to_dict(PROVEN)["residuals"][0] == {"name": "W", "shape": [16, 8], "dtype": "f32", "bytes": 512}
    assert {"python", "adjax", "jax", "jaxlib", "numpy"} == set(data["versions"])
    assert data["versions"]["numpy"] == np.__version__


def test_numbers_of_numpy_are_plain_in_a_dictionary():
    odd = replace(
        PROVEN, seed=np.uint32(3), seconds=np.float32(0.5),
        powers=(Power("W", np.float64(1e-3), np.float32(NAN), np.int64(0), np.int64(2), {"jvp": np.bool_(True)}),),
    )  # fmt: skip
    data = to_dict(odd)
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert (data["seed"], data["seconds"]) == (3, 0.5)
    assert data["powers"][0] == {
        "argument": "W", "element": 1e-3, "scale": None, "blind": 0, "size": 2, "oracles": {"jvp": True}
    }  # fmt: skip


def test_verdicts():
    assert (PROVEN.verdict, PROVEN.ok, PROVEN.failures) == (Verdict.PROVEN, True, ())
    assert (REFUTED.verdict, REFUTED.ok, len(REFUTED.failures)) == (Verdict.REFUTED, False, 4)
    assert (VACUOUS.verdict, VACUOUS.ok) == (Verdict.VACUOUS, False)
    waived = replace(REFUTED, waived=("linear", "adjoint", "scan"))
    assert waived.ok and len(waived.findings) == 5
    assert text(waived).startswith("certificate of affine: PROVEN, with linear, adjoint and scan waived\n")


def test_an_error_carries_its_certificate():
    with pytest.raises(AssertionError) as raised:
        raise AdjointError(REFUTED)
    assert str(raised.value) == REFUTED_TEXT
    for error in (raised.value, pickle.loads(pickle.dumps(raised.value))):
        assert repr(error.certificate) == repr(REFUTED)
