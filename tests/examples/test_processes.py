"""Several processes are one: the same losses, the same parameters; and none is left behind when one is gone."""

import argparse
import os
import re
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from adjax.__main__ import main, parser
from adjax.examples import processes
from adjax.examples.checkpoints import Checkpoints
from adjax.examples.parallel import mesh
from adjax.examples.readers import BadOption
from adjax.examples.text import options as text_options
from adjax.examples.text import resume
from adjax.examples.text.data import load
from adjax.examples.text.options import Options
from adjax.examples.text.train import init_state, train

pytestmark = pytest.mark.shared

LIMIT_S = 120                           # for a run of a few seconds: the machine may be busy
TINY = Options(steps=4, width=8, depth=1, heads=1, context=8, batch=4, sample=0, checkpoint_every=2)
COMMAND = ("train", "text", "--width", "8", "--depth", "1", "--heads", "1", "--context", "8", "--batch", "4")


@pytest.fixture
def as_users_run_it():
    """As in a fresh interpreter: float64 is off, and promotion is not strict, which optax's Adam does not survive."""
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        yield


def started(*options, **how):
    """The program in processes of their own."""
    command = [sys.executable, "-m", "adjax", *COMMAND, "--sample", "0", *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **how)


def test_two_processes_of_two_devices_are_one_of_four(as_users_run_it, tmp_path):
    """And what two have saved, one goes on from. They agree to rounding: Gloo may add in another order."""
    run = started("--steps", "4", "--processes", "2", "--devices-per-process", "2", "--checkpoint", str(tmp_path))
    out, err = run.communicate(timeout=LIMIT_S)
    assert (run.returncode, err) == (0, "")
    assert "8 characters a step    on data=4, auto" in out
    text, four = load(TINY), TINY._replace(mesh=(("data", 4),), devices=4)
    one = train(four, text)
    lines = re.findall(r"step +(\d+)    train (\S+)    held out (\S+) bits", out)
    assert lines == [(str(at.step), f"{at.train:.2f}", f"{at.held_out:.2f}") for at in one.checkpoints]
    assert len(lines) == 4
    with Checkpoints(tmp_path, resume.what_matters(TINY, text), every=2) as saved:
        step, state = saved.latest(init_state(TINY, len(text.characters)))
    assert step == 4
    for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(one.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max())


def test_a_killed_process_ends_the_others():
    with started("--steps", "2000", "--processes", "2") as run:
        limit = threading.Timer(LIMIT_S, run.kill)
        limit.start()
        try:
            for line in run.stdout:
                if line.startswith("step"):
                    break
            first, second = sorted(children_of(run.pid))
            os.kill(second, signal.SIGKILL)
            start = time.monotonic()
            _, err = run.communicate(timeout=LIMIT_S)
        finally:
            run.kill()
            limit.cancel()
    assert time.monotonic() - start < 60
    assert run.returncode == 1
    *before, last = err.splitlines()
    assert last == "adjax train text: process 1 of 2 was ended by SIGKILL; the others are stopped"
    assert all(line.startswith("adjax train text: another process is gone: ") for line in before)
    assert len(before) <= 1                                                # the first may say so before it is stopped
    assert not os.path.exists(f"/proc/{first}")


def children_of(pid):
    with open(f"/proc/{pid}/task/{pid}/children") as file:
        return [int(child) for child in file.read().split()]


def test_an_error_of_all_is_said(capfd):
    """No process finds the text, and none waits for another; two may have said so before the others are stopped."""
    assert main([*COMMAND, "--processes", "2", "--file", "none"]) == 1
    assert re.fullmatch(r"(adjax train text: .*No such file.*\n){1,2}", capfd.readouterr().err)


@pytest.mark.parametrize(
    ("ends", "first"),
    [
        ([0, 0], None),
        ([0, 1], 1),
        ([1, 1], 0),
        ([1, -signal.SIGKILL], 1),
        ([-signal.SIGABRT, -signal.SIGTERM, None], 1),
        ([None, -signal.SIGABRT], 1),
    ],
)
def test_who_failed_first(ends, first):
    assert processes._first_to_fail([SimpleNamespace(poll=lambda end=end: end) for end in ends]) == first


def chosen(*options):
    return text_options.chosen(parser().parse_args([*COMMAND, *options]))


def test_a_mesh_of_all_devices_is_the_default():
    several = chosen("--processes", "2", "--devices-per-process", "2")
    assert (several.mesh, several.devices) == ((("data", 4),), 2)
    assert chosen("--processes", "2").mesh == (("data", 2),)
    assert chosen("--devices-per-process", "2").mesh == (("data", 2),)
    assert chosen("--processes", "2", "--mesh", "model=2", "--heads", "2").mesh == (("model", 2),)
    assert chosen("--distributed", "--mesh", "data=4").devices is None
    assert (chosen().mesh, chosen().devices) == ((), None)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--processes", "2", "--mesh", "data=4"), "--mesh: has 4 devices, and 2 processes of 1 have 2"),
        (("--processes", "2", "--devices", "4"), "--devices: is of one process; --devices-per-process is of several"),
        (("--distributed",), "--distributed: needs a --mesh over the devices of all processes, as data=8"),
        (("--processes", "3"), "--mesh: a batch of 4 does not divide over the 3 devices of data=3 that split it"),
    ],
)
def test_what_cannot_be_is_refused(capsys, options, said):
    assert main([*COMMAND, *options]) == 2
    assert capsys.readouterr().err == f"adjax train text: {said}\n"


def test_a_mesh_leaves_no_process_out(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    assert mesh.placement(TINY._replace(mesh=(("data", 8),))).size("data") == 8
    with pytest.raises(BadOption, match="--mesh: data=4 has 4 devices, and all processes have 8"):
        mesh.placement(TINY._replace(mesh=(("data", 4),)))


def test_no_launcher(monkeypatch):
    def initialize(**options):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(BadOption, match="no launcher's variables are in the environment"), processes.joined():
        pass


def test_the_environment_says_where_the_others_are(monkeypatch):
    monkeypatch.setenv("http_proxy", "somewhere")
    assert "http_proxy" not in processes.environment(1234, 3, 2)
    for name, value in processes.environment(1234, 3, 2).items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv(processes.LAUNCHER)
    given = {}
    monkeypatch.setattr(jax.distributed, "initialize", lambda **options: given.update(options))
    processes.join()
    assert (given["num_processes"], given["process_id"]) == (3, 2)
    assert given["cluster_detection_method"] == "deactivate"              # what other launchers set does not count
    assert os.environ["JAX_COORDINATOR_ADDRESS"] == "127.0.0.1:1234"


def test_a_lost_process_is_told_in_one_line(monkeypatch):
    monkeypatch.setattr(processes, "join", lambda: None)
    with pytest.raises(ConnectionError, match=r"^another process is gone: gloo says no$"), processes.joined():
        raise jax.errors.JaxRuntimeError("gloo says no\nat length")


def test_the_parser_knows_bounds():
    some = argparse.ArgumentParser(exit_on_error=False)
    processes.add_arguments(some)
    with pytest.raises(argparse.ArgumentError, match="must be an integer of at least 1 and at most 64, got 0"):
        some.parse_args(["--processes", "0"])
