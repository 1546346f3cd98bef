"""A Ray cluster of two nodes on this machine for tests, and the names of what it must leave behind: nothing."""

from __future__ import annotations

import logging
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
NODE = {"num_cpus": 1, "object_store_memory": 80 << 20}


@dataclass
class RayCluster:
    """A cluster that this process is connected to.

    Attributes:
        cluster: Ray's own object.
        port: Where its Ray Client server listens.
    """

    cluster: Any
    port: int

    def add_node(self) -> Any:
        """Add a node with one processor."""
        return self.cluster.add_node(**NODE)

    def kill(self, node: Any) -> None:
        """End a node as a power cut would."""
        self.cluster.remove_node(node, allow_graceful=False)


@contextmanager
def two_nodes() -> Iterator[RayCluster]:
    """Start two nodes with a processor each; workers find modelkit and the entries of tests."""
    paths = os.pathsep.join([str(HERE.parents[1]), str(HERE), os.environ.get("PYTHONPATH", "")])
    environment = {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": paths.rstrip(os.pathsep)}
    before = {name: os.environ.get(name) for name in environment}
    os.environ.update(environment)
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # sockets want short paths
    # Ray notes the running cluster there, but makes the folder only for clusters that live in it.
    Path(tempfile.gettempdir(), "ray").mkdir(exist_ok=True)
    import ray
    from ray.cluster_utils import Cluster

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    cluster = Cluster(
        initialize_head=True,
        head_node_args={
            **NODE,
            "include_dashboard": False,
            "ray_client_server_port": port,
            "temp_dir": str(folder),
        },
    )
    try:
        found = RayCluster(cluster, port)
        found.add_node()
        ray.init(address=cluster.address, log_to_driver=False, logging_level=logging.CRITICAL)
        yield found
    finally:
        ray.shutdown()
        cluster.shutdown()
        shutil.rmtree(folder, ignore_errors=True)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
