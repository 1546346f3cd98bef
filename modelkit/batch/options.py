"""Options of a run over a folder: which models, how many at a time, and what each may use."""

from __future__ import annotations

from pydantic import Field

from modelkit.config import Bytes, Seconds
from modelkit.options import Block


class FolderOptions(Block):
    """Options of a run over a folder; what they say does not change any result."""

    match: list[str] = Field(
        default_factory=list,
        description="take only models whose path below the folder, or whose name, fits one of these globs",
    )
    skip: list[str] = Field(
        default_factory=list, description="leave out models and folders that fit one of these globs"
    )
    workers: int = Field(1, ge=1, le=1024, description="how many models at a time")
    timeout: Seconds | None = Field(None, gt=0, description="longest time for one model, 90s or 10min")
    memory: Bytes | None = Field(
        None, ge=200_000_000, description="most resident memory for one model, its libraries included: 2GB"
    )
