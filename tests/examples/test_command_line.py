"""The command line: what it prints where, its exit statuses, and one clear line for each way to misuse it."""

import os
import re
import signal
import subprocess
import sys

import pytest

from adjax.__main__ import main
from adjax.examples import worked_example
from adjax.examples.extras import MissingExtra, require

BARE = """
import runpy, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"optax", "rich", "sklearn", "matplotlib"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, Absent())
for arguments in ([], ["train", "digits"]):
    sys.argv = ["adjax", *arguments]
    try:
        runpy.run_module("adjax", run_name="__main__")
    except SystemExit as status:
        print("exit status", status.code)
"""


def python(*arguments, **settings):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONIOENCODING": "utf-8"}
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, encoding="utf-8",
                          env=environment, timeout=120, **settings)


def misuse(capsys, *arguments):
    """The one line on stderr of a command that must exit with status 2."""
    try:
        status = main(arguments)
    except SystemExit as exit_:
        status = exit_.code
    out, err = capsys.readouterr()
    assert status == 2
    assert out == ""
    assert err.count("\n") == 1
    return err


def test_the_worked_example_runs_in_a_pipe_without_any_extra():
    ran = python("-c", BARE)
    assert "dW = Xᵀ dY    (d,n)(n,p) → (d,p)" in ran.stdout
    assert "\x1b" not in ran.stdout
    assert re.findall("exit status (.*)", ran.stdout) == ["0", "2"]
    assert ran.stderr == (
        "adjax train digits: needs optax (not installed), rich (not installed), scikit-learn (not installed): "
        "pip install 'adjax[train]'\n"
    )


def test_version_and_help(capsys):
    for arguments, expected in (
        (["--version"], r"adjax \S+.*, jax \d+\.\d+.*, Python 3\.\d+"),
        (["--help"], r"usage: adjax .*train"),
        (["train", "--help"], r"usage: adjax train .*digits"),
        (["train", "digits", "--help"], r"usage: adjax train digits .*float32,bfloat16.*exit status:.*130"),
    ):
        with pytest.raises(SystemExit) as exit_:
            main(arguments)
        assert exit_.value.code == 0
        out = capsys.readouterr().out
        assert re.search(expected, out, re.DOTALL)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--frobnicate", "adjax: unrecognized arguments: --frobnicate"),
        ("frobnicate", "adjax: argument COMMAND: invalid choice: 'frobnicate'"),
        ("train", "adjax train: the following arguments are required: EXAMPLE"),
        ("train letters", "adjax train: argument EXAMPLE: invalid choice: 'letters'"),
        ("train digits --frobnicate 3", "adjax train digits: unrecognized arguments: --frobnicate 3"),
        ("train digits --step 3", "adjax train digits: unrecognized arguments: --step 3"),
        ("train digits more", "adjax train digits: unrecognized arguments: more"),
        ("train digits --depth 0", "argument --depth: must be an integer of at least 1 and at most 100, got 0"),
        ("train digits --depth 101", "argument --depth: must be an integer of at least 1 and at most 100, got 101"),
        ("train digits --width 0", "argument --width: must be an integer of at least 1 and at most 8192, got 0"),
        ("train digits --width w", "argument --width: must be an integer of at least 1 and at most 8192, got 'w'"),
        ("train digits --steps -5", "argument --steps: must be an integer of at least 1, got -5"),
        ("train digits --steps 2.5", "argument --steps: must be an integer of at least 1, got '2.5'"),
        ("train digits --steps", "argument --steps: expected one argument"),
        ("train digits --batch 0", "argument --batch: must be an integer of at least 1, got 0"),
        ("train digits --batch 1438", "--batch: there are 1437 training images, got 1438"),
        ("train digits --seed -1", "argument --seed: must be an integer of at least 0 and at most 4294967295, got -1"),
        ("train digits --learning-rate 0", "argument --learning-rate: must be a positive number, got '0'"),
        ("train digits --learning-rate nan", "argument --learning-rate: must be a positive number, got 'nan'"),
        ("train digits --learning-rate inf", "argument --learning-rate: must be a positive number, got 'inf'"),
        ("train digits --dtype int8", "argument --dtype: invalid choice: 'int8'"),
        ("train digits --plot curve.pdf", "argument --plot: the plot is a PNG: FILE must end in .png, got 'curve.pdf'"),
    ],
)
def test_misuse_is_one_clear_line(capsys, arguments, message):
    assert message in misuse(capsys, *arguments.split())


def test_a_plot_that_cannot_be_written_is_refused_before_training(capsys, tmp_path):
    assert f"cannot write '{tmp_path}': Is a directory" in misuse(capsys, "train", "digits", "--plot", str(tmp_path))
    nowhere = tmp_path / "no" / "curve.png"
    line = misuse(capsys, "train", "digits", "--plot", str(nowhere))
    assert f"argument --plot: cannot write '{nowhere}': No such file or directory" in line


def test_trying_a_plot_leaves_nothing_behind(capsys, tmp_path):
    kept = tmp_path / "kept.png"
    kept.write_bytes(b"precious")
    for name in ("fresh.png", "kept.png"):
        misuse(capsys, "train", "digits", "--plot", str(tmp_path / name), "--batch", "2000")
    assert [path.name for path in tmp_path.iterdir()] == ["kept.png"]
    assert kept.read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("module", "line"),
    [
        ("rich", "adjax train digits: needs rich (not installed): pip install 'adjax[train]'\n"),
        ("sklearn", "adjax train digits: needs scikit-learn (not installed): pip install 'adjax[train]'\n"),
        ("matplotlib", "adjax train digits: needs matplotlib (not installed): pip install 'adjax[plot]'\n"),
    ],
)
def test_a_missing_extra_is_named(monkeypatch, capsys, tmp_path, module, line):
    monkeypatch.setitem(sys.modules, module, None)
    assert misuse(capsys, "train", "digits", "--plot", str(tmp_path / "curve.png")) == line


def test_a_broken_extra_is_not_called_missing(monkeypatch, tmp_path):
    (tmp_path / "crooked.py").write_text("raise ImportError('needs another jax')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(MissingExtra, match=r"crooked \(does not import: needs another jax\): pip install 'adjax\[x\]'"):
        require("x", "math", "crooked")


def test_interrupting_the_worked_example_says_so(monkeypatch, capsys):
    monkeypatch.setattr(worked_example, "compute", lambda: signal.raise_signal(signal.SIGINT))
    assert main([]) == 130
    assert capsys.readouterr().err == "adjax: interrupted\n"


def test_a_closed_pipe_is_no_traceback():
    reader, writer = os.pipe()
    os.close(reader)
    ran = subprocess.run([sys.executable, "-m", "adjax"], stdout=writer, stderr=subprocess.PIPE, timeout=120)
    os.close(writer)
    assert (ran.returncode, ran.stderr) == (141, b"")
