"""`make gpu` without a GPU says why it does nothing, and that is no failure."""

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(("script", "reason"), [
    ("echo 'NVIDIA-SMI has failed because it could not communicate' >&2; exit 9",
     "NVIDIA-SMI has failed because it could not communicate"),
    ("exit 0", "names none"),
])  # fmt: skip
def test_make_gpu_skips_with_a_reason(script, reason, tmp_path):
    fake = tmp_path / "nvidia-smi"
    fake.write_text(f"#!/bin/sh\n{script}\n")
    fake.chmod(0o755)
    outside = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}  # of `make test`
    environment = {**outside, "PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
    ran = subprocess.run(["make", "gpu"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert ran.stdout == f"make gpu: skipped, no NVIDIA GPU here (nvidia-smi -L: {reason})\n"
