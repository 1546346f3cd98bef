"""Options of a run over a folder: which models, how many at a time, and what each may use."""

from __future__ import annotations

from pydantic import Field, field_validator, model_validator

from modelkit.config.options import Block
from modelkit.config.resolve import Bytes, Seconds
from modelkit.errors import UsageError
from modelkit.jobs.connect import check_address


class FolderOptions(Block):
    """Options of a run over a folder; what they say does not change any result."""

    match: list[str] = Field(
        default_factory=list,
        description="take only models whose path below the folder, or whose name, fits one of these globs",
    )
    skip: list[str] = Field(
        default_factory=list, description="leave out models and folders that fit one of these globs"
    )
    on: str | None = Field(
        None,
        description="where models are worked on: ray starts a local Ray, ray://HOST:10001 is a Ray cluster; "
        "processes of this machine by default",
    )
    workers: int | None = Field(
        None, ge=1, le=1024, description="how many models at a time; 1, or on a cluster as many as it has room for"
    )
    cpus: float | None = Field(None, gt=0, le=1024, description="processors for each model")
    gpus: float | None = Field(None, ge=0, le=1024, description="accelerators for each model, on Ray; 0.5 is a half")
    timeout: Seconds | None = Field(None, gt=0, description="longest time for one model, 90s or 10min")
    memory: Bytes | None = Field(
        None, ge=200_000_000, description="most resident memory for one model, its libraries included: 2GB"
    )

    @field_validator("on")
    @classmethod
    def _is_place(cls, on: str | None) -> str | None:
        try:
            return None if on is None else check_address(on)
        except UsageError as error:
            raise ValueError(f"{error.message}: {error.hint}") from error

    @model_validator(mode="after")
    def _has_accelerators(self) -> FolderOptions:
        if self.gpus and self.on is None:
            raise ValueError("gpus are given out by a Ray cluster only: --on says which")
        return self
