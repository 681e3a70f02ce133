"""`python -m adjax certify`: what it proves, what it prints where, and its exit statuses."""

import json
import os
import re
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from adjax.__main__ import main
from adjax.certify import LAWS
from adjax.certify.certificate import Certificate, Finding
from adjax.certify.errors import BadInput
from tests.certify.commands import PROVEN, python, run

pytestmark = pytest.mark.usefixtures("folder")


# Verdicts, end to end


def test_affine_is_proven_with_exit_status_0(capsys):
    status, out, err = run(capsys, "adjax:affine", "(f32[16,8],f32[8])", "f32[32,16]", "--context", "jit")
    assert (status, err) == (0, "")
    lines = out.split("\n")
    assert lines[0] == "certificate of affine: PROVEN"
    assert lines[-2].startswith("PROVEN by ") and lines[-1] == ""
    assert all(len(line) <= 80 for line in lines)
    assert {law for law in LAWS if f"\n  {law} " in out} == set(LAWS)


@pytest.mark.parametrize("target", ["rules:mean_affine", "rules.py:mean_affine"])
def test_a_wrong_rule_is_refuted_with_exit_status_1(capsys, target):
    status, out, err = run(capsys, target, "f32[3,4]", "f32[5,3]", "--law", "adjoint", "--context", "eager")
    assert (status, err) == (1, "")
    assert out.startswith("certificate of mean_affine: REFUTED\n")
    assert re.search(r"✗ adjoint of W\n +dW is 1/5 of the adjoint", out)
    assert "  eager " in out and "  jit " not in out and "  points " not in out


def test_a_waived_law_passes_and_is_shown(capsys, folder):
    status, out, _ = run(
        capsys, "rules:mean_affine", "f32[3,4]", "f32[5,3]", "--waive", "adjoint", "--waive", "second order",
        "--law", "adjoint", "--context", "eager", "--json", "out.json",
    )  # fmt: skip
    assert status == 0
    assert out.startswith("certificate of mean_affine: PROVEN, with adjoint and second order waived\n")
    assert "~ waived: adjoint of W" in out
    data = json.loads((folder / "out.json").read_text())
    assert (data["waived"], data["verdict"], data["failures"]) == (["adjoint", "second order"], "proven", [])
    assert {row["law"]: row["verdict"] for row in data["rows"] if not row["context"]}["adjoint"] == "waived"


def test_a_vacuous_certificate_has_exit_status_1(capsys):
    status, out, _ = run(capsys, "rules:constant", "f32[3]", "--law", "adjoint", "--context", "eager")
    assert status == 1
    assert out.startswith("certificate of constant: VACUOUS\n")


def test_bounds_keep_probes_in_the_domain(capsys):
    brief = ("--law", "adjoint", "--law", "points", "--context", "eager")
    for arguments in (("f32[8]>0",), ("f32[8]", "--domain", "0,"), ("f32[8]>0", "base=2.0")):
        assert run(capsys, "rules:log", *arguments, *brief)[0] == 0


def test_a_reference_judges(capsys):
    brief = ("f32[3,4]", "f32[5,3]", "--law", "adjoint", "--context", "eager", "--reference")
    assert run(capsys, "rules:affine", *brief, "rules:affine")[0] == 0
    assert run(capsys, "rules:mean_affine", *brief, "rules.py:affine")[0] == 1


def test_json_and_html_files_hold_the_certificate(capsys, folder):
    brief = ("rules:mean_affine", "f32[3,4]", "f32[5,3]", "--law", "adjoint", "--context", "eager")
    status, out, _ = run(capsys, *brief, "--json", "out.json", "--html", "out.html", "--seed", "5")
    assert status == 1
    data = json.loads((folder / "out.json").read_text(encoding="utf-8"))
    assert (data["name"], data["verdict"], data["ok"], data["seed"]) == ("mean_affine", "refuted", False, 5)
    failure = data["findings"][data["failures"][0]]
    assert failure["argument"] == "W" and failure["diagnosis"] in " ".join(out.split())
    assert data["versions"]["jax"] == jax.__version__
    page = (folder / "out.html").read_text(encoding="utf-8")
    assert page.startswith("<!doctype html>") and "mean_affine" in page and "REFUTED" in page


# What is handed to `certify`


def test_arguments_and_options_arrive(capsys, stand_in):
    prover = stand_in()
    status, out, _ = run(
        capsys, "rules:affine", "{W:f32[2,3]>0,b:(i32[2]<9,f32[2])}", "f32[4]<1>-1", "=SAME",
        "--law", "adjoint", "--law", "pure", "--context", "jit", "--context", "vmap X", "--waive", "linear",
        "--seed", "3", "--reference", "math:fsum",
    )  # fmt: skip
    assert status == 0 and out.startswith("certificate of stand_in: PROVEN\n")
    assert prover.function.__name__ == "affine"
    settings = prover.settings
    assert settings.pop("reference").__name__ == "fsum"
    assert settings == {
        "laws": ("adjoint", "pure"), "contexts": ("jit", "vmap X"), "waive": ("linear",), "key": 3,
        "domain": {"W['W']": (0.0, None), "X": (-1.0, 1.0)},
    }  # fmt: skip
    W, X, mode = prover.args
    assert (W["W"].shape, W["b"][0].dtype, X.shape, mode) == ((2, 3), jnp.int32, (4,), "SAME")


def test_defaults(capsys, stand_in):
    prover = stand_in()
    run(capsys, "rules:affine", "f32[2]")
    first = prover.args[0]
    assert prover.settings == {
        "reference": None, "laws": None, "contexts": None, "waive": (), "key": 0, "domain": None
    }  # fmt: skip
    run(capsys, "rules:affine", "f32[2]")
    assert (prover.args[0] == first).all()
    run(capsys, "rules:affine", "f32[2]", "--seed", "1")
    assert (prover.args[0] != first).all()


def test_options_may_stand_between_specs(capsys, stand_in):
    prover = stand_in()
    run(capsys, "--seed", "1", "rules:affine", "--law", "pure", "=1", "--context", "jit", "=2")
    assert prover.args == (1, 2)
    assert prover.settings["laws"] == ("pure",)


def test_keywords_are_bound_to_function_and_reference(capsys, stand_in):
    prover = stand_in()
    run(capsys, "rules:log", "f32[2]>0", "base=2", "--reference", "rules:log")
    for bound in (prover.function, prover.settings["reference"]):
        assert (bound.func.__name__, bound.keywords) == ("log", {"base": 2})
    assert len(prover.args) == 1


@pytest.mark.parametrize(
    ("written", "spec", "expected"),
    [("0,1", "f32[99]", (0, 1)), ("=-1,", "f32[99]", (-1, None)), (",-2", "f32[99]", (None, -2)),
     ("0,1", "f32[99]>5", (5, None)), ("0,1", "(i32[9],c64[9])", None)],
)  # fmt: skip
def test_the_domain_holds_for_floating_arguments_without_bounds(capsys, stand_in, written, spec, expected):
    prover = stand_in()
    run(capsys, "rules:log", spec, f"--domain{'' if written[0] == '=' else '='}{written}")
    assert prover.settings["domain"] == (None if expected is None else {"X": expected})
    if expected is not None:
        low, high = expected
        assert low is None or prover.args[0].min() > low
        assert high is None or prover.args[0].max() < high


def test_methods_and_attributes_are_found(capsys, stand_in):
    prover = stand_in()
    assert run(capsys, "rules:Scaled.of", "f32[2]")[0] == 0
    assert prover.function(3) == 6


def test_a_file_is_imported_once_and_hides_no_module(capsys, stand_in, folder):
    (folder / "jax.py").write_text("from helper import f\n")
    (folder / "sub").mkdir()
    (folder / "sub" / "numpy.py").write_text("from helper import f\n")
    (folder / "sub" / "helper.py").write_text("def f(X):\n    return X\n")
    prover = stand_in()
    assert run(capsys, str(folder / "sub" / "numpy.py:f"), "f32[2]", "--reference", "sub/numpy.py:f")[0] == 0
    assert prover.function is prover.settings["reference"]
    assert sys.modules["numpy"] is np and sys.modules["jax"] is jax


# Terminals and pipes


class Screen:
    """A terminal that keeps what was written."""

    encoding = "utf-8"

    def __init__(self):
        self.written = ""

    def isatty(self):
        return True

    def write(self, text):
        self.written += text

    def flush(self):
        pass


def test_the_progress_line_is_redrawn_and_cleared_on_a_terminal(stand_in, monkeypatch, capsys):
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "40")
    stand_in(steps=[("structure", 0, 12), ("vmap of a function with a long name", 6, 12)])
    assert main(["certify", "rules:log", "f32[2]"]) == 0
    assert screen.written.split("\r\x1b[K") == [
        "", " 0/12 [....................] structure", " 6/12 [##########..........] vmap of a ", ""
    ]  # fmt: skip
    assert all(len(line) < 40 for line in screen.written.split("\r\x1b[K"))


def test_the_progress_line_is_cleared_before_an_error(stand_in, monkeypatch):
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "xterm")
    stand_in(steps=[("pure", 1, 2)], error=BadInput("certify: no"))
    assert main(["certify", "rules:log", "f32[2]"]) == 2
    assert screen.written.endswith("pure\r\x1b[Kadjax certify: no\n")


def test_no_progress_line_without_a_terminal(stand_in, capsys, monkeypatch):
    stand_in(steps=[("pure", 1, 2)])
    assert run(capsys, "rules:log", "f32[2]")[2] == ""
    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    monkeypatch.setenv("TERM", "dumb")
    assert main(["certify", "rules:log", "f32[2]"]) == 0 and screen.written == ""


@pytest.mark.parametrize(("colour", "environment"), [(True, {}), (False, {"NO_COLOR": "1"}), (False, {"TERM": "dumb"})])
def test_colour_is_for_terminals(stand_in, monkeypatch, colour, environment):
    screen = Screen()
    monkeypatch.setattr(sys, "stdout", screen)
    monkeypatch.delenv("NO_COLOR", raising=False)
    for name, value in {"TERM": "xterm", **environment}.items():
        monkeypatch.setenv(name, value)
    stand_in(certificate=Certificate(**{**PROVEN.__dict__, "findings": (Finding("pure", "", "", "m"),)}))
    assert main(["certify", "rules:log", "f32[2]"]) == 1
    assert ("\x1b[31mREFUTED\x1b[0m" in screen.written) == colour == ("\x1b" in screen.written)


def test_devices_x64_and_ascii_in_a_process_of_its_own():
    ran = python(
        "rules.py:log", "f64[8]>0", "--x64", "--devices", "2", "--law", "adjoint", "--context", "shard_map",
        environment={"PYTHONIOENCODING": "ascii", "XLA_FLAGS": "--xla_force_host_platform_device_count=5"},
    )  # fmt: skip
    out = ran.stdout.decode("ascii")
    assert (ran.returncode, ran.stderr) == (0, b"")
    assert "X f64[8] -> f64[8]" in out and re.search(r"shard_map +\+ proven", out) and "2 x cpu" in out


def test_a_closed_pipe_is_no_traceback():
    reader, writer = os.pipe()
    os.close(reader)
    ran = python("rules:log", "f32[2]>0", "--law", "adjoint", "--context", "eager", stdout=writer)
    os.close(writer)
    assert (ran.returncode, ran.stderr) == (141, b"")
