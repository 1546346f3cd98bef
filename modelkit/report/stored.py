"""A report that was written before, read back as something that a stranger may have made.

Only what verifying needs is read, every type and bound is checked, and names of files must be plain names: what a
report says never leads anywhere but beside it.
"""

from __future__ import annotations

import json
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from modelkit.errors import ResourceError, UnsafeError, UsageError
from modelkit.files import contained, require_file, shown
from modelkit.report.report import SCHEMA

MOST_BYTES = 64 << 20
_Count = Annotated[int, Field(ge=0, lt=2**63)]
_Name = Annotated[str, Field(max_length=100)]
_Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")


class StoredFile(_Part):
    """A file: its plain name, bytes and hash, and the hashes of its external data by their paths from its folder."""

    name: str = Field(min_length=1, max_length=255)
    bytes: _Count
    sha256: _Hash
    external: dict[str, _Hash] = Field(default_factory=dict, max_length=10_000)


class StoredSize(_Part):
    """How large a model was."""

    file_bytes: _Count
    parameters: _Count
    nonzero_parameters: _Count
    external_bytes: _Count


class StoredLatency(_Part):
    """How long a model took, in milliseconds."""

    median_ms: float = Field(gt=0, allow_inf_nan=False)


class StoredSpeedup(_Part):
    """Original over artifact, with the 95 % interval."""

    value: float = Field(gt=0, allow_inf_nan=False)
    low: float = Field(gt=0, allow_inf_nan=False)
    high: float = Field(gt=0, allow_inf_nan=False)


class StoredSide(_Part):
    """The original or the artifact."""

    file: StoredFile
    size: StoredSize
    latency: StoredLatency | None = None
    quality: dict[_Name, float | None] | None = Field(None, max_length=32)


class StoredData(_Part):
    """The samples of one role."""

    name: str = Field(max_length=1000)
    path: str | None = Field(max_length=1000)
    count: _Count
    labelled: bool
    sha256: _Hash
    synthetic: bool


class StoredReport(_Part):
    """What verifying needs of a report (``modelkit.report/1``)."""

    command: _Name
    status: _Name
    method: str = Field(max_length=1000)
    before: StoredSide
    after: StoredSide
    speedup: StoredSpeedup | None
    fidelity: dict[_Name, float | bool | None] | None
    data: dict[Literal["calibration", "selection", "test"], StoredData]
    config: dict[str, Any]
    machine: dict[str, Any]


def read_report(path: Path) -> StoredReport:
    """Read a report.

    Raises:
        UsageError: There is no such file, or it is no report of a transform.
        ResourceError: It cannot be read.
    """
    name = shown(require_file(path))
    try:
        with path.open("rb") as file:
            content = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise ResourceError(f"cannot read '{name}': {error.strerror or error}") from error
    if len(content) > MOST_BYTES:
        raise UsageError(f"'{name}' is larger than {MOST_BYTES >> 20} MiB: it is no report of modelkit")
    hint = "name the .report.json that lies beside an artifact"
    try:
        found = json.loads(content)
    except (ValueError, RecursionError):
        raise UsageError(f"'{name}' is not JSON", hint) from None
    schema = found.get("schema") if isinstance(found, dict) else None
    if schema != SCHEMA:
        told = f" but '{shown(schema[:100])}'" if isinstance(schema, str) else ""
        raise UsageError(f"'{name}' is no report of a transform ({SCHEMA}){told}", hint)
    try:
        return StoredReport.model_validate(found)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise UsageError(
            f"'{name}' is damaged: {shown(place[:200])}: {shown(first['msg'])}", "it was changed by hand, or cut off"
        ) from None


def beside(folder: Path, name: str, option: str) -> Path:
    """Where a file that a report names lies: in one folder, whatever the name is.

    Args:
        folder: The folder.
        name: The name that the report gives.
        option: What a user names the file with, for the error.

    Raises:
        UnsafeError: The name is no plain file name, or a link that leads out of the folder.
    """
    if (
        name != PurePosixPath(name).name
        or name in ("", ".", "..")
        or "\\" in name
        or "\0" in name
        or ":" in name[1:2]
    ):
        raise UnsafeError(
            f"the report names the file '{shown(name[:200])}', which is no plain file name",
            f"a report may only name what lies beside it; {option} names another file",
        )
    try:
        contained(folder, name)
    except UnsafeError as error:
        raise UnsafeError(
            f"'{shown(name)}' beside the report is a link that leads out of its folder",
            f"{option} names the file itself",
        ) from error
    return folder / name
