"""Connects to a Ray cluster, or starts a small one on this machine; quietly, and without anything sent home."""

from __future__ import annotations

import logging
import os
import secrets
import signal
import socket
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from modelkit.cores import usable_cores
from modelkit.errors import ResourceError, UsageError
from modelkit.jobs.scratch import Scratch
from modelkit.staging import shown

LOCAL = "ray"
_CLIENT = "ray://"
_PORT = 10001
_WITHIN = 10.0  # seconds for the first connection; Ray's own attempts end after half a minute
_STORE = 128 << 20  # bytes of the object store of a local Ray: there, files are seen and need not be sent
# Unless told not to, Ray reports to its makers, and a call after a cluster was lost would start another one.
_QUIET = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ENABLE_AUTO_CONNECT": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def check_address(on: str) -> str:
    """Return where tasks are to run: ``ray``, or ``ray://HOST:PORT`` with the port filled in.

    Raises:
        UsageError: It is neither.
    """
    if on == LOCAL:
        return on
    host, separator, port = on.removeprefix(_CLIENT).rpartition(":")
    if not separator:
        host, port = port, str(_PORT)
    fits = on.startswith(_CLIENT) and host.strip("[]") and not set(host) & set("/@ ?#") and host.isprintable()
    if not fits or not port.isdecimal() or not 0 < int(port) < 65536:
        raise UsageError(
            f"'{shown(on)}' is no place to run models",
            "ray starts a local Ray, ray://HOST:10001 is a Ray cluster",
        )
    return f"{_CLIENT}{host}:{port}"


@contextmanager
def connected(on: str, cpus: float) -> Iterator[ModuleType]:
    """Be connected to a Ray cluster for as long as the block lasts.

    A program that is connected already, such as a job of the cluster, stays so: ``ray`` then means that cluster.

    Args:
        on: ``ray`` or ``ray://HOST:PORT``.
        cpus: Processors that a local Ray has at least, whatever this machine has.

    Yields:
        The package ``ray``.

    Raises:
        UsageError: Ray is not installed, or ``on`` is no address.
        ResourceError: The cluster cannot be reached, or a local one does not start.
    """
    on = check_address(on)
    with _environment(_QUIET):
        ray = _package(client=on != LOCAL)
        if ray.is_initialized():
            if on != LOCAL:
                raise UsageError("this process is connected to a Ray cluster already", f"say {LOCAL} to use that one")
            yield ray
            return
        with _local(cpus) if on == LOCAL else _reached(on) as (address, options), _hushed(ray):
            _init(ray, on, address, options)
            try:
                yield ray
            finally:
                ray.shutdown()


def _package(*, client: bool) -> ModuleType:
    try:
        import ray

        if client:
            import grpc  # noqa: F401 - Ray itself would fail with an assertion
    except ImportError as error:
        raise UsageError("--on needs Ray, which is not installed", "pip install 'modelkit[ray]'") from error
    return ray


@contextmanager
def _local(cpus: float) -> Iterator[tuple[str, dict[str, Any]]]:
    # Paths of sockets may have about a hundred characters: the system's short folder, whatever TMPDIR is.
    short = Path("/tmp")  # noqa: S108 - a folder of our own is made in it
    scratch = Scratch(short if short.is_dir() else None)
    options: dict[str, Any] = {
        "num_cpus": max(usable_cores(), -int(-cpus // 1)),
        "include_dashboard": False,
        "object_store_memory": _STORE,
        "_temp_dir": str(scratch.open()),
    }
    try:
        with _environment(_token()):
            yield "local", options
    finally:
        scratch.close()


@cache
def _token() -> dict[str, str | None]:
    """Ray guards a local cluster by a token; where the user has none, it would write one into the home folder.

    Ray reads it once in a process, so it stays the same.
    """
    known = [os.environ.get(name) for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")]
    if any(known) or (Path.home() / ".ray" / "auth_token").exists():
        return {"RAY_AUTH_MODE": os.environ.get("RAY_AUTH_MODE")}
    return {"RAY_AUTH_MODE": None, "RAY_AUTH_TOKEN": secrets.token_hex(32)}


@contextmanager
def _reached(on: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Ask whether anybody is there: Ray would try for half a minute before it tells."""
    host, _, port = on.removeprefix(_CLIENT).rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=_WITHIN).close()
    except OSError as error:
        raise _unreachable(on, error.strerror or str(error)) from error
    yield on, {}


def _unreachable(on: str, why: str) -> ResourceError:
    hint = "is a Ray Client server there (ray start --head), and does a firewall let it through?"
    return ResourceError(f"the Ray cluster {shown(on)} cannot be reached: {why}", hint)


def _init(ray: ModuleType, on: str, address: str, options: Mapping[str, Any]) -> None:
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM) if main else None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ray.init(address=address, log_to_driver=False, logging_level=logging.CRITICAL, **options)
    except KeyboardInterrupt:
        ray.shutdown()
        raise
    except Exception as error:  # Ray has no class of its own for it
        ray.shutdown()
        why = shown(" ".join(str(error).split()))[:300] or type(error).__name__
        if on != LOCAL:
            raise _unreachable(on, why) from error
        raise ResourceError(f"no local Ray can be started: {why}") from error
    finally:
        if main and handler is not None:
            signal.signal(signal.SIGTERM, handler)  # Ray puts its own in place


@contextmanager
def _hushed(ray: ModuleType) -> Iterator[None]:
    """Keep Ray from writing of lost workers and nodes on this program's stderr; it has no option for that."""
    logging.getLogger("ray").setLevel(logging.CRITICAL)
    inside = getattr(getattr(ray, "_private", None), "worker", None)
    before = getattr(inside, "print_to_stdstream", None)
    if inside is None or before is None:  # a version that does it otherwise
        yield
        return
    inside.print_to_stdstream = lambda *args, **more: None
    try:
        yield
    finally:
        inside.print_to_stdstream = before


@contextmanager
def _environment(values: Mapping[str, str | None]) -> Iterator[None]:
    """Set variables of the environment, or unset them, for as long as the block lasts."""
    before = {name: os.environ.get(name) for name in values}
    _set(values)
    try:
        yield
    finally:
        _set(before)


def _set(values: Mapping[str, str | None]) -> None:
    for name, value in values.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
