"""How many tasks fit on the nodes of a Ray cluster at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from modelkit.errors import UsageError
from modelkit.jobs.protocol import Task


@dataclass(frozen=True)
class Shape:
    """What a task needs of a node.

    Attributes:
        cpus: Processors.
        gpus: Accelerators.
        memory: Bytes of memory; None where it is not limited, and so not counted.
    """

    cpus: float
    gpus: float
    memory: int | None

    @classmethod
    def of(cls, task: Task) -> Shape:
        """The shape of a task."""
        return cls(task.cpus, task.gpus, task.limits.memory_bytes)

    @property
    def threads(self) -> int:
        """Threads for numpy and torch."""
        return max(1, int(self.cpus))

    def options(self) -> dict[str, Any]:
        """The same as options of a Ray actor."""
        return {"num_cpus": self.cpus, "num_gpus": self.gpus, "memory": self.memory}

    def wanted(self) -> dict[str, float]:
        """The same by the names of Ray's resources, without those that are not needed."""
        wanted = {"CPU": self.cpus, "GPU": self.gpus, "memory": float(self.memory or 0)}
        return {name: count for name, count in wanted.items() if count > 0}


def places(shape: Shape, nodes: Sequence[Mapping[str, Any]]) -> int:
    """How many tasks of a shape fit on all nodes together, were nothing else there.

    Args:
        shape: What each needs.
        nodes: What ``ray.nodes()`` tells.
    """
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    wanted = shape.wanted()
    if not wanted:
        return 1024 * bool(alive)
    return sum(int(min(has.get(name, 0) / count for name, count in wanted.items())) for has in alive)


def room_error(shape: Shape, nodes: Sequence[Mapping[str, Any]]) -> UsageError:
    """The error where no node has room for a single task."""
    alive = [node["Resources"] for node in nodes if node["Alive"]]
    has = [f"{max((each.get(name, 0) for each in alive), default=0):g} {word}" for name, word in _WORDS]
    has.append(_memory(max((each.get("memory", 0) for each in alive), default=0)))
    wants = [f"{count:g} {word}" for count, (_, word) in zip((shape.cpus, shape.gpus), _WORDS, strict=True) if count]
    wants += [_memory(shape.memory)] if shape.memory else []
    return UsageError(
        f"no node of the Ray cluster has room for a model: {', '.join(wants)} wanted, {', '.join(has)} at most there",
        "--cpus, --gpus and --memory say what each model gets",
    )


_WORDS = (("CPU", "cpus"), ("GPU", "gpus"))


def _memory(count: float) -> str:
    return f"{count / 1e9:.1f} GB of memory"
