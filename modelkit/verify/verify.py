"""Verifying a report: hashes are computed again, and what can be measured is measured again.

The report is taken for something that a stranger may have made. It decides what is compared and with what options, as
far as they are valid; it does not decide which files are read (see ``modelkit.report.stored``), how long is measured,
or what is trusted.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from modelkit.checkpoint.loading import Loading
from modelkit.checkpoint.open import is_checkpoint, open_source
from modelkit.config.options import Block
from modelkit.config.resolve import Percent
from modelkit.errors import ModelError, ModelkitError, UsageError
from modelkit.files import Kind, contained, file_record, sha256, shown, sniff
from modelkit.measure.machine import machine_facts
from modelkit.measure.size import measure_size
from modelkit.progress import Progress, silent
from modelkit.report.stored import StoredReport, StoredSide, beside, read_report
from modelkit.report.summary import DONE
from modelkit.report.units import number, size
from modelkit.report.verification import Verification
from modelkit.verify.remeasure import Remeasure, options_of, sources_of


class VerifyConfig(Block):
    """How latency is measured again."""

    tolerance: Percent = Field(0.5, ge=0, le=1000, description="share by which it may run slower than reported")
    seconds: float = Field(2.0, gt=0, le=600, description="time spent on timing each model, in seconds")


@dataclass(frozen=True)
class Given:
    """What a user says beside the report.

    Attributes:
        model: The original; by default what lies beside the report under its name.
        artifact: The same.
        data: The data that was worked with; the same.
        test: The data that was tested on; the same.
        loading: How an original that is a checkpoint is read; nothing is trusted because a report names it.
        tolerance: Share by which it may run slower than reported.
        latency: Whether to measure latency.
        seconds: Time spent on timing each model.
    """

    model: Path | None = None
    artifact: Path | None = None
    data: Path | None = None
    test: Path | None = None
    loading: Loading = Loading()  # noqa: RUF009 - frozen
    tolerance: float = 0.5
    latency: bool = True
    seconds: float = 2.0


def verify_report(path: Path, given: Given = Given(), progress: Progress = silent) -> Verification:
    """Compare a report with what is so now.

    Args:
        path: The report, ``<artifact>.report.json``.
        given: Files that do not lie beside it, and how to measure.
        progress: Told how far the work is.

    Raises:
        UsageError: The file is no report, the run that it is about wrote no artifact, or a named file is missing.
        UnsafeError: The report names a file that is not beside it.
        ModelkitError: A file cannot be read.
    """
    stored = read_report(path)
    if stored.status != DONE:
        raise UsageError(
            f"'{shown(path)}' is about a run that wrote no artifact ({shown(stored.status[:100])})",
            "there is nothing to verify",
        )
    _check_named(stored, given)
    found = Verification(path.name, stored.command, stored.method, machine=machine_facts())
    progress("comparing hashes", 0, 1)
    original = _file(found, "original", stored.before, path.parent, given.model, "--model")
    artifact = _file(found, "artifact", stored.after, path.parent, given.artifact, "--artifact")
    _size(found, "original", stored.before, original)
    _size(found, "artifact", stored.after, artifact)
    if artifact is None or sniff(artifact) is not Kind.ONNX:
        return found
    with ExitStack() as stack:
        source = _source(found, original, given.loading, stack, progress)
        options = options_of(stored)
        if isinstance(options, str):
            found.notes.append(options)
        else:
            Remeasure(found, stored, options, given, progress).run(path.parent, source, artifact)
    return found


def _check_named(stored: StoredReport, given: Given) -> None:
    """Refuse files that are not there, and data for a run that had none."""
    for option, named in (
        ("--model", given.model),
        ("--artifact", given.artifact),
        ("--data", given.data),
        ("--test", given.test),
    ):
        if named is not None and not os.path.lexists(named):
            raise UsageError(f"{option} '{shown(named)}' does not exist")
    working, apart = sources_of(stored)
    for option, named, role in (("--data", given.data, working), ("--test", given.test, apart)):
        if named is not None and role is None:
            raise UsageError(f"{option} is given, and the report is about a run without", f"leave {option} out")


def _file(
    found: Verification, role: str, side: StoredSide, folder: Path, named: Path | None, option: str
) -> Path | None:
    """Compare a file's hash; returns the file where it is the one that the report is about."""
    stored = side.file
    path = named if named is not None else beside(folder, stored.name, option)
    if not os.path.lexists(path):
        missing = f"'{shown(path.name)}' is not beside the report; {option} names it"
        if role == "artifact":
            found.add(f"{role} sha256", stored.sha256[:16], "missing", False, missing)
        else:
            found.skip(f"{role} sha256", stored.sha256[:16], missing)
        return None
    if not path.is_file():
        raise UsageError(f"the {role} '{shown(path)}' is not a regular file")
    record = file_record(path)
    same = found.add(
        f"{role} sha256",
        stored.sha256[:16],
        str(record["sha256"])[:16],
        record["sha256"] == stored.sha256,
        "" if record["sha256"] == stored.sha256 else "it is another file: nothing else of it is compared",
    )
    for name, digest in stored.external.items():
        same = _external(found, role, path.parent, name, digest) and same
    return path if same else None


def _external(found: Verification, role: str, folder: Path, name: str, digest: str) -> bool:
    """Compare the hash of a file of weights beside a model."""
    file = contained(folder, name)
    title = f"{role} data '{shown(name[:80])}'"
    if not file.is_file():
        return found.add(title, digest[:16], "missing", False)
    now = sha256(file)
    return found.add(title, digest[:16], now[:16], now == digest)


def _size(found: Verification, role: str, side: StoredSide, path: Path | None) -> None:
    """Compare bytes and parameters, exactly; a checkpoint's are those of what it was exported to."""
    reported = side.size
    if path is None:
        found.skip(f"{role} bytes", size(reported.file_bytes), "the file is not there to be measured")
        return
    if sniff(path) is not Kind.ONNX:
        return
    try:
        now = measure_size(path)
    except ModelError as error:
        found.add(f"{role} bytes", size(reported.file_bytes), "unreadable", False, error.message)
        return
    for name, key, show in (
        ("bytes", "file_bytes", size),
        ("parameters", "parameters", number),
        ("non-zero parameters", "nonzero_parameters", number),
    ):
        old, new = getattr(reported, key), getattr(now, key)
        # Rounded for reading, figures that differ could look the same.
        texts = (show(old), show(new)) if old == new else (str(old), str(new))
        found.add(f"{role} {name}", *texts, old == new)


def _source(
    found: Verification, original: Path | None, loading: Loading, stack: ExitStack, progress: Progress
) -> Path | None:
    """The original as an ONNX file; None where there is none, with a note that says why."""
    if original is None:
        return None
    try:
        mine = loading if is_checkpoint(original) else Loading()
        source = stack.enter_context(open_source(original, mine, progress))
    except ModelkitError as error:
        found.notes.append(f"the original was not run: {error.message}{f' ({error.hint})' if error.hint else ''}")
        return None
    return source.onnx
