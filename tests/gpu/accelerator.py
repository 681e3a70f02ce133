"""The device that the tests of this folder run on: an NVIDIA GPU, where there is one that JAX sees.

`make gpu` asks for it by name, ADJAX_ACCELERATOR=cuda, and then it must be there. Another of JAX's platforms does as
well: `tpu`, or `cpu` to rehearse.
"""

import os

import jax

NAMED = os.environ.get("ADJAX_ACCELERATOR")


def found():
    """The device, or None and why there is none.

    Raises:
        RuntimeError: it was asked for by name.
    """
    try:
        return jax.devices(NAMED or "cuda")[0], ""
    except RuntimeError:
        if NAMED:
            raise
    return None, "JAX sees no NVIDIA GPU here, or was told not to look (JAX_PLATFORMS): `make gpu` runs this on one"


DEVICE, WHY_NOT = found()
HOST = jax.devices("cpu")[0]
