"""Channels: which weights shrink together, and the physical cut, over the ONNX graph with exact index maps."""

from modelkit.graph.channels.group import Group, Part
from modelkit.graph.channels.surgery import cut, find_groups, zeroed

__all__ = ["Group", "Part", "cut", "find_groups", "zeroed"]
