"""Several processes that train one network, joined by `jax.distributed`.

`launch` starts them on this machine, each with simulated CPU devices; on a cluster a launcher starts them. Both ways a
process finds the others by its environment, and `join` is all it does for it. See docs/processes.md.

All of them run the same program on the same numbers, each with its part of the arrays. So they fail alike, or one is
killed: `launch` then stops the others. On a cluster a sum that breaks off ends them, or a missing heartbeat, at which
XLA aborts with pages on stderr: a process that `watch` runs is told of in one line.
"""

from __future__ import annotations

import argparse
import atexit
import math
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TextIO

import jax

from .interrupt import INTERRUPTED, Interrupt
from .readers import BadOption, integer

HEARTBEAT_S = 30                        # a process that is silent for so long is gone
LOOK_S = 0.05                           # from one look at the processes to the next
ADDRESS, COUNT, INDEX = "JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID"
LAUNCHER = "ADJAX_LAUNCHER"             # the process that started this one, and watches it
RUNTIME = re.compile(r"[IWEF]\d{4} \d\d:\d\d:\d\d\.\d+ +\d+ [^]]*\] ")  # so begins what XLA logs
REASON = re.compile(r"absl::Status: (.+?)(?:\. |:?$)", re.MULTILINE)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare `--processes`, `--devices-per-process` and `--distributed`."""
    parser.add_argument(
        "--processes",
        type=integer(1, 64),
        metavar="N",
        default=1,
        help="train in N processes on this machine's CPU, over all their devices (default 1)",
    )
    parser.add_argument(
        "--devices-per-process", type=integer(1, 64), metavar="N", help="simulate N CPU devices in each process"
    )
    parser.add_argument(
        "--distributed",
        action="store_true",
        help="be one of several processes that a cluster's launcher starts with this same command line",
    )


def chosen(options: Any) -> Any:
    """The options, with the devices of each process, and a mesh of all devices where none is given.

    Raises:
        BadOption: the mesh has another number of devices, or none is given and the number is not known.
    """
    each = options.devices_per_process or (1 if options.processes > 1 else None)
    if each and options.devices:
        raise BadOption("--devices: is of one process; --devices-per-process is of several")
    if options.distributed and not options.mesh and not each:
        raise BadOption("--distributed: needs a --mesh over the devices of all processes, as data=8")
    if not each:
        return options
    total = options.processes * each
    mesh = options.mesh or ((("data", total),) if total > 1 else ())
    count = math.prod(size for _, size in mesh)
    if options.processes > 1 and count != total:
        raise BadOption(f"--mesh: has {count} devices, and {options.processes} processes of {each} have {total}")
    return options._replace(mesh=mesh, devices=each)


def launch(arguments: Sequence[str], count: int, name: str) -> int:
    """Run `python -m adjax` with the arguments in so many processes; the exit status of the first that fails, or 0.

    The first process prints; what another one says is heard when it fails first.
    """
    command, port = [sys.executable, "-m", "adjax", *arguments, "--distributed"], _free_port()
    with tempfile.TemporaryFile("w+") as said:
        children = [
            subprocess.Popen(
                command,
                env=environment(port, count, index),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL if index else None,
                stderr=said if index else None,
                start_new_session=True,                                    # Ctrl-C is for the launcher alone
            )
            for index in range(count)
        ]
        try:
            failed = _first_to_fail(children)
        finally:
            for child in children:
                child.kill()
                child.wait()
        if failed is None:
            return 0
        status = children[failed].returncode
        if failed and status > 0:
            said.seek(0)
            sys.stderr.write(said.read())
        if status < 0:
            killer = signal.Signals(-status).name
            print(f"{name}: process {failed} of {count} was ended by {killer}; the others are stopped", file=sys.stderr)
        return max(status, 1)


def watched() -> bool:
    """Whether the process that started this one watches it."""
    return LAUNCHER in os.environ


def watch(arguments: Sequence[str], name: str) -> int:
    """Run `python -m adjax` with the arguments as one of a cluster's processes; its exit status.

    What it says on stderr is passed on, except that the log of an XLA that gives up is made one line.
    """
    command = [sys.executable, "-m", "adjax", *arguments]
    environment = os.environ | {LAUNCHER: str(os.getpid())}
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, errors="replace") as child:
        signal.signal(signal.SIGTERM, lambda number, _: child.send_signal(number))
        signal.signal(signal.SIGINT, signal.SIG_IGN)                       # Ctrl-C reaches the child as well
        logged = _pass_on(child.stderr or (), name)
    status = child.returncode
    reason = REASON.search(logged)
    if status == -signal.SIGABRT and reason:
        print(f"{name}: another process is gone, or never came: {reason[1]}", file=sys.stderr)
    elif status < 0:
        first = RUNTIME.sub("", logged.partition("\n")[0])
        after = f", after {first}" if first else ""
        print(f"{name}: this process was ended by {signal.Signals(-status).name}{after}", file=sys.stderr)
    else:
        sys.stderr.write(logged)
    return status if status >= 0 else 1


def _pass_on(lines: Iterable[str], name: str) -> str:
    """Write the lines until XLA logs one. What follows is returned, unless a line of the program itself explains it."""
    logged: list[str] = []
    for line in lines:
        if line.startswith(f"{name}: "):
            logged.clear()
        elif logged or RUNTIME.match(line):
            logged.append(line)
            continue
        sys.stderr.write(line)
        sys.stderr.flush()
    return "".join(logged)


def environment(port: int, count: int, index: int) -> dict[str, str]:
    """That of a process: where the others are. Proxies are for addresses that are farther away."""
    here = {name: value for name, value in os.environ.items() if not name.lower().endswith("_proxy")}
    return here | {
        ADDRESS: f"127.0.0.1:{port}",
        "JAX_COORDINATOR_BIND_ADDRESS": f"127.0.0.1:{port}",
        COUNT: str(count),
        INDEX: str(index),
        LAUNCHER: str(os.getpid()),
    }


@contextmanager
def joined() -> Iterator[Interrupt]:
    """Meet the other processes, before anything is computed, and leave them at the end.

    The environment says where they are: `JAX_COORDINATOR_ADDRESS`, `JAX_NUM_PROCESSES` and `JAX_PROCESS_ID`, or the
    variables of Slurm, of Open MPI, of Cloud TPU or of Kubernetes, which JAX knows. Nothing requests the interrupt:
    Ctrl-C ends a process at once, for between two steps they would not all stop after the same one.

    Raises:
        BadOption: it does not say.
        ConnectionError: the others cannot be met, or another process is gone.
    """
    join()
    try:
        yield Interrupt()
    except BaseException as error:
        if watched():
            atexit.register(_leave, _status(error))                        # before JAX's, which waits for the others
        if isinstance(error, jax.errors.JaxRuntimeError):
            raise ConnectionError(f"another process is gone: {str(error).splitlines()[0]}") from None
        raise


def join() -> None:
    """Meet the other processes, and end with the one that launched this one."""
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
    count, index = _whole_number(COUNT), _whole_number(INDEX)
    told = ADDRESS in os.environ and None not in (count, index)
    with warnings.catch_warnings(record=True) as missing:
        warnings.simplefilter("always")
        try:
            jax.distributed.initialize(
                num_processes=count,
                process_id=index,
                cluster_detection_method="deactivate" if told else None,   # another launcher's variables do not count
                heartbeat_timeout_seconds=HEARTBEAT_S,
            )
        except ValueError as error:
            why = " ".join(str(missing[0].message).split(". ")[0].split()) if missing else error
            raise BadOption(f"--distributed: no launcher's variables are in the environment ({why})") from None
        except RuntimeError as error:
            raise ConnectionError(f"cannot meet the other processes: {str(error).splitlines()[0]}") from None
    if watched():
        threading.Thread(target=_end_with, args=(int(os.environ[LAUNCHER]),), daemon=True).start()


def _whole_number(name: str) -> int | None:
    """The one in the environment; None where there is none."""
    value = os.environ.get(name)
    if value is not None and not value.isdecimal():
        raise BadOption(f"--distributed: {name} must be a number, got {value!r}")
    return None if value is None else int(value)


def _status(error: BaseException) -> int:
    """The exit status that the error ends with."""
    return 2 if isinstance(error, BadOption) else INTERRUPTED if isinstance(error, KeyboardInterrupt) else 1


def _leave(status: int) -> None:
    """End at once: what has been said is written."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def output() -> TextIO | None:
    """Where a process prints: None, which is stdout, for the first, and nowhere for the others."""
    return None if jax.process_index() == 0 else open(os.devnull, "w")


def _first_to_fail(children: Sequence[subprocess.Popen[bytes]]) -> int | None:
    """Wait until one fails, or all have ended well. One that was killed comes before those that miss it."""
    while True:
        ends = [child.poll() for child in children]
        failed = [(end > 0 or end == -signal.SIGABRT, index) for index, end in enumerate(ends) if end]
        if failed:
            return min(failed)[1]
        if None not in ends:
            return None
        time.sleep(LOOK_S)


def _end_with(launcher: int) -> None:
    while os.getppid() == launcher:
        time.sleep(1)
    os._exit(1)


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port: int = s.getsockname()[1]
        return port
