"""What the tests of the command line share: rules to certify, a stand-in for `certify`, and ways to run a command."""

import os
import subprocess
import sys
from pathlib import Path

from adjax.__main__ import main
from adjax.certify import program
from adjax.certify.certificate import Certificate, Power, Row, Verdict

RULES = '''
import jax
import jax.numpy as jnp

@jax.custom_vjp
def mean_affine(W, X):
    """Its rule averages over the rows where the adjoint sums."""
    return X @ W

mean_affine.defvjp(lambda W, X: (X @ W, (W, X)), lambda r, dY: (r[1].T @ dY / len(dY), dY @ r[0].T))

def affine(W, X):
    return X @ W

def log(X, *, base=None):
    return jnp.log(X) if base is None else jnp.log(X) / jnp.log(base)

def constant(X):
    return jnp.zeros_like(X) * X

def boom(X):
    raise RuntimeError("bang\\nand more")

def leave(X):
    raise SystemExit(3)

class Scaled:
    factor = 2
    def of(X):
        return Scaled.factor * X

number = 3
'''
PROVEN = Certificate(
    "stand_in", "X f32[2] -> f32[2]", (Row("adjoint", "", Verdict.PROVEN, 3, 0.5),), (),
    (Power("X", 1e-6, 1e-7, 0, 2, {"jvp": True}),), (), (), (), 0, "somewhere", 1.0,
)  # fmt: skip


class StandIn:
    """In place of `certify`: notes what it was called with."""

    def __init__(self, certificate=PROVEN, error=None, steps=()):
        self.certificate, self.error, self.steps = certificate, error, steps

    def __call__(self, function, *args, progress, **settings):
        self.function, self.args, self.settings = function, args, settings
        for step in self.steps:
            progress(*step)
        if self.error is not None:
            raise self.error
        return self.certificate


def run(capsys, *arguments):
    """Exit status, stdout and stderr of `adjax certify`."""
    try:
        status = main(["certify", *arguments])
    except SystemExit as exit_:
        status = exit_.code
    return status, *capsys.readouterr()


def misuse(capsys, *arguments):
    """The one line on stderr of a command that must exit with status 2."""
    status, out, err = run(capsys, *arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("adjax certify: ")
    return err.removeprefix("adjax certify: ").rstrip("\n")


def python(*arguments, **settings):
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(Path(program.__file__).parents[2])}
    environment.update(settings.pop("environment", {}))
    return subprocess.run(
        [sys.executable, "-m", "adjax", "certify", *arguments], stderr=subprocess.PIPE, timeout=120, env=environment,
        **{"stdout": subprocess.PIPE, **settings},
    )  # fmt: skip
