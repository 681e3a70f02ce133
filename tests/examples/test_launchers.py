"""The processes of a cluster, started here with the environment that its launcher would give them."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest

from adjax.examples import processes
from adjax.examples.checkpoints import Checkpoints
from adjax.examples.parallel.options import mesh
from adjax.examples.readers import BadOption
from adjax.examples.text import resume
from adjax.examples.text.data import load, topics
from adjax.examples.text.options import Options
from adjax.examples.text.train import init_state, train

LIMIT_S = 120                           # for a run of a few seconds: the machine may be busy
BOUND_S = 60                            # in which a process ends that misses another; it takes one second
FIRST_PORT, PORTS = 61440, 4096         # those that JAX takes from the number of a job
TINY = Options(steps=4, width=8, depth=1, heads=2, context=8, batch=4, sample=0, checkpoint_every=2)
COMMAND = ("train", "text", "--width", "8", "--depth", "1", "--heads", "2", "--context", "8", "--batch", "4")
NAME = "adjax train text"


def free_job():
    """The number of a job whose port is free."""
    for job in np.random.default_rng().permutation(PORTS):
        with socket.socket() as s:
            try:
                s.bind(("127.0.0.1", FIRST_PORT + job))
            except OSError:
                continue
            return int(job)


def slurm(job, index):
    return {
        "SLURM_JOB_ID": f"{job}",
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NTASKS": "2",
        "SLURM_PROCID": f"{index}",
        "SLURM_LOCALID": f"{index}",
    }


def open_mpi(job, index):
    return {
        "OMPI_MCA_orte_hnp_uri": f"{job * 2**12}.0;tcp://127.0.0.1:1",
        "OMPI_COMM_WORLD_SIZE": "2",
        "OMPI_COMM_WORLD_RANK": f"{index}",
        "OMPI_COMM_WORLD_LOCAL_RANK": f"{index}",
    }


@pytest.fixture
def text(tmp_path):
    """A file of which 64 windows are held out: they make 16 whole batches, so that one program evaluates them all."""
    file = tmp_path / "text"
    file.write_text(topics()[:5200], "utf-8")
    return file


@pytest.fixture
def launched(text):
    """Starts two processes as a launcher does; whatever happens they end."""
    started = []

    def launch(launcher, *options):
        command = [sys.executable, "-m", "adjax", *COMMAND, "--sample", "0", "--file", text, "--distributed", *options]
        job = free_job()
        for index in range(2):
            environment = os.environ | launcher(job, index)
            pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
            started.append(subprocess.Popen(command, env=environment, **pipes))
        return started

    yield launch
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.shared
def test_open_mpi_on_a_mesh_in_both_directions(launched, text, tmp_path):
    """Two of two devices are one of four, and on another mesh one goes on from what they saved."""
    tiny, folder = TINY._replace(file=text), tmp_path / "run"
    read, other = load(tiny), tiny._replace(mesh=mesh("data=2"))
    on = tiny._replace(mesh=mesh("fsdp=2,model=2"), mode="shard_map")
    options = "--mesh", "fsdp=2,model=2", "--mode", "shard_map", "--devices-per-process", "2"
    run = launched(open_mpi, *options, "--steps", "4", "--checkpoint", str(folder), "--checkpoint-every", "2")
    (out, err), (_, also) = (process.communicate(timeout=LIMIT_S) for process in run)
    assert ([process.returncode for process in run], err, also) == ([0, 0], "", "")
    with jax.enable_x64(False), jax.numpy_dtype_promotion("standard"):
        one = train(on, read)
        lines = re.findall(r"step +(\d+)    train (\S+)    held out (\S+) bits", out)
        assert lines == [(str(at.step), f"{at.train:.2f}", f"{at.held_out:.2f}") for at in one.checkpoints]
        assert len(lines) == 4
        with Checkpoints(folder, resume.what_matters(tiny, read), every=2) as saved:
            agree(saved.read(4, init_state(tiny, len(read.characters))).params, one.params)
        shutil.rmtree(folder / "4")
        with Checkpoints(folder, resume.what_matters(tiny, read), every=2) as saved:
            rest = train(other, read, saved=saved)
    assert [at.step for at in rest.checkpoints] == [3, 4]
    agree(rest.params, one.params)


def agree(params, expected):
    for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max())


@pytest.mark.shared
def test_slurm_and_a_process_that_is_killed(launched):
    """Nobody watches the two but themselves: the other says in a line that it is alone, and ends."""
    first, second = launched(slurm, "--mesh", "model=2", "--devices-per-process", "1", "--steps", "2000")
    limit = threading.Timer(LIMIT_S, first.kill)
    limit.start()
    assert any(line.startswith("step") for line in first.stdout)
    limit.cancel()
    second.kill()
    start = time.monotonic()
    _, err = first.communicate(timeout=LIMIT_S)
    assert time.monotonic() - start < BOUND_S
    assert first.returncode == 1
    assert re.fullmatch(rf"{NAME}: another process is gone.*: .+\n", err)


# What watches a process of a cluster

GIVES_UP = """\
E1125 23:28:43.226827    1204 coordination_service.cc:1518] Use error polling
=== Source Location Trace: ===
F1125 23:28:43.227365    1215 client.h:86] Terminating process. absl::Status: UNAVAILABLE: Failed to send. Either
    @     0x7fcdbc4f8174  absl::lts_20260526::log_internal::LogMessage::SendToLog()
"""


@pytest.mark.parametrize(
    ("said", "end", "status", "told"),
    [
        ("a warning\n", "exit 0", 0, "a warning\n"),
        ("a warning\n", "exit 2", 2, "a warning\n"),
        (f"a warning\n{GIVES_UP}", "kill -ABRT $$", 1,
         f"a warning\n{NAME}: another process is gone, or never came: UNAVAILABLE: Failed to send\n"),
        (f"{GIVES_UP}{NAME}: the loss is no number\n", "exit 1", 1, f"{NAME}: the loss is no number\n"),
        (GIVES_UP, "exit 1", 1, GIVES_UP),
        ("", "kill -KILL $$", 1, f"{NAME}: this process was ended by SIGKILL\n"),
        ("E1126 01:34:55.867951   18325 add_port.cc:83] Failed to add port\nat length\n", "kill -SEGV $$", 1,
         f"{NAME}: this process was ended by SIGSEGV, after Failed to add port\n"),
    ],
)  # fmt: skip
def test_what_xla_logs_is_made_one_line(monkeypatch, capfd, tmp_path, said, end, status, told):
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\ncat >&2 <<'END'\n{said}END\n{end}\n")
    python.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    assert processes.watch([], NAME) == status
    assert capfd.readouterr().err == told


@pytest.mark.parametrize(
    ("error", "raised", "said"),
    [
        (ValueError("nothing"), BadOption, r"^--distributed: no launcher's .* \(nothing\)$"),
        (RuntimeError("needs mpi4py\nat length"), ConnectionError, "^cannot meet the other processes: needs mpi4py$"),
    ],
)
def test_why_a_process_cannot_join(monkeypatch, error, raised, said):
    def initialize(**options):
        raise error

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    with pytest.raises(raised, match=said):
        processes.join()


def test_a_number_of_processes_that_is_none(monkeypatch):
    monkeypatch.setenv(processes.COUNT, "two")
    with pytest.raises(BadOption, match="--distributed: JAX_NUM_PROCESSES must be a number, got 'two'"):
        processes.join()
