"""`python -m adjax certify`, misused: exit status 2 and one clear line, never a traceback."""

import re
import signal
from pathlib import Path

import jax
import pytest

from adjax.certify import CONTEXTS, LAWS, program
from adjax.certify.errors import BadInput
from tests.certify.commands import misuse, run

pytestmark = pytest.mark.usefixtures("folder")
HELP = " (see adjax certify --help)"
COUNT = "must be an integer of at least"
DOMAIN = "argument --domain: must be LOW,HIGH with LOW below HIGH, as in 0,1 or 0, got"
TARGET = "expected MODULE:FUNCTION or FILE.py:FUNCTION, as in adjax:affine, got"
NO_VERDICT = "(commands.py, line LINE); does the function run at these arguments?"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", f"the following arguments are required: FUNCTION{HELP}"),
        ("rules:log --frobnicate 3", f"unrecognized arguments: --frobnicate 3{HELP}"),
        ("rules:log --seed -1", f"argument --seed: {COUNT} 0, got '-1'{HELP}"),
        ("rules:log --devices 0", f"argument --devices: {COUNT} 1, got '0'{HELP}"),
        ("rules:log --devices x", f"argument --devices: {COUNT} 1, got 'x'{HELP}"),
        ("rules:log --domain 3", f"{DOMAIN} '3'{HELP}"),
        ("rules:log --domain 1,0", f"{DOMAIN} '1,0'{HELP}"),
        ("rules:log --domain a,b", f"{DOMAIN} 'a,b'{HELP}"),
        ("rules:log --json no/such", f"argument --json: cannot write 'no/such': No such file or directory{HELP}"),
        ("rules:log --html .", f"argument --html: cannot write '.': Is a directory{HELP}"),
        ("rules.log f32[2]", f"{TARGET} 'rules.log'"),
        (":log f32[2]", f"{TARGET} ':log'"),
        ("rules: f32[2]", f"{TARGET} 'rules:'"),
        ("absent:f f32[2]", "there is no module 'absent' in this folder or on Python's path"),
        ("jax.absent:f f32[2]", "there is no module 'jax.absent' in this folder or on Python's path"),
        ("absent.py:f f32[2]", "there is no file 'absent.py'"),
        ("rules:lag f32[2]", "rules has no 'lag': did you mean 'log'?"),
        ("rules.py:zzz f32[2]", "rules.py has no 'zzz'"),
        ("rules:Scaled.off f32[2]", "rules has no 'Scaled.off': did you mean 'of'?"),
        ("rules:number f32[2]", "rules:number is no function: it is of type int"),
        ("rules:log f32[2] --reference rules:number", "rules:number is no function: it is of type int"),
        ("rules:log f32[2", "'f32[2', column 6: expected ']', got the end"),
        ("rules:log f32[2] base=", "'=', column 2: expected a value after '=', got the end"),
        ("rules:log i32[2]", "log has no floating argument to differentiate, got X: int32"),
        ("rules:log f32[2] --law lineer", f"unknown law 'lineer'; there are {', '.join(LAWS)}"),
        ("rules:log f32[2] --context git", f"unknown context 'git'; there are {', '.join(CONTEXTS)}"),
        ("rules:log f32[2] --waive liner",
         f"unknown law or context to waive 'liner'; there are {', '.join((*LAWS, *CONTEXTS))}"),
        ("rules:boom f32[2]", "boom raises at the given arguments: RuntimeError: bang and more (in boom)"),
    ],
)  # fmt: skip
def test_misuse_is_one_clear_line(capsys, arguments, message):
    assert misuse(capsys, *arguments.split()) == message


def test_arguments_that_do_not_fit_the_function_are_one_line(capsys):
    line = misuse(capsys, "rules:affine", "f32[2]")
    assert re.match(r"affine raises at the given arguments: TypeError: .*missing 1 required", line)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("import nowhere", "ModuleNotFoundError: No module named 'nowhere' (crooked.py, line 1)"),
        ("\n1 / 0", "ZeroDivisionError: division by zero (crooked.py, line 2)"),
        ("raise SystemExit('bye')", "SystemExit: bye (crooked.py, line 1)"),
        ("raise ValueError", "ValueError (crooked.py, line 1)"),
        ("def f(:", "SyntaxError: invalid syntax (crooked.py, line 1)"),
    ],
)
def test_a_module_that_does_not_import_says_where(capsys, folder, source, message):
    (folder / "crooked.py").write_text(source)
    for source in ("crooked", "crooked.py"):
        assert misuse(capsys, f"{source}:f", "f32[2]") == f"{source} does not import: {message}"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (BadInput("certify: log is random"), "log is random"),
        (RuntimeError("bang\nand more"), f"no verdict: RuntimeError: bang {NO_VERDICT}"),
        (TypeError("it failed with the error:\n  missing X\nand more"),
         f"no verdict: TypeError: it failed with the error: missing X {NO_VERDICT}"),
        (MemoryError(), f"no verdict: MemoryError {NO_VERDICT}"),
    ],
)  # fmt: skip
def test_what_the_function_raises_is_one_line(capsys, stand_in, error, message):
    stand_in(error=error)
    assert re.sub(r"line \d+", "line LINE", misuse(capsys, "rules:log", "f32[2]")) == message


def test_arguments_too_large_for_memory(capsys):
    line = misuse(capsys, "rules:log", "f64[999999999999]")
    assert line.startswith("no memory for the arguments: Unable to allocate")


def test_64_bit_dtypes_need_their_option(capsys):
    with jax.enable_x64(False):
        assert misuse(capsys, "rules:log", "f64[2]") == "'f64[2]', column 1: f64 needs 64-bit mode: add --x64"


def test_devices_cannot_change_once_jax_runs(capsys, monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")
    count = jax.device_count()
    assert misuse(capsys, "rules:log", "f32[2]", "--devices", "99") == f"--devices 99: JAX already runs on {count}"


def test_a_full_disk_is_said(capsys, stand_in, monkeypatch):
    stand_in()
    full = Path("/dev/full")
    if not full.exists():
        pytest.skip(reason="no /dev/full here")
    assert misuse(capsys, "rules:log", "f32[2]", "--json", str(full)) == (
        "the certificate (proven) could not be written: [Errno 28] No space left on device"
    )


def test_nothing_is_left_behind_by_a_file_that_was_tried(capsys, folder):
    misuse(capsys, "rules:nothing", "--json", "fresh.json")
    assert not (folder / "fresh.json").exists()


def test_ctrl_c(capsys, stand_in, monkeypatch):
    prover = stand_in()
    monkeypatch.setattr(program, "certify", lambda *args, **settings: signal.raise_signal(signal.SIGINT))
    assert run(capsys, "rules:log", "f32[2]") == (130, "", "adjax certify: interrupted\n")
    assert not hasattr(prover, "function")


def test_help_documents_specs_and_exit_statuses(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    status, out, _ = run(capsys, "--help")
    assert status == 0
    assert all(len(line) <= 80 for line in out.split("\n"))
    for said in ("f32[8,16]", "i32[8]<16", "adjax certify adjax:affine", "exit status:", "130  interrupted", "--waive"):
        assert said in out
