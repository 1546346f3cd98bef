"""What a worker does with one model of a folder: the same as a run for that model alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelkit import api
from modelkit.batch.facts import facts_of
from modelkit.checkpoint.open import is_checkpoint
from modelkit.commands import COMMANDS, make_job
from modelkit.errors import BudgetError
from modelkit.files import check_outputs, write_json
from modelkit.progress import Progress
from modelkit.report.report import Report
from modelkit.report.summary import DONE, figures_of, subject_of


def perform(payload: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Do a command on one model (an ``Entry`` of modelkit.jobs.protocol).

    Args:
        payload: ``command``; ``model``; ``output``, or None to write nothing; ``outputs``, all files that may be
            written; ``force``; ``arguments`` of the command's function in modelkit.api.
        progress: Told how far the work is.

    Returns:
        ``status`` ("done" or "budget not met") with ``reason`` and ``hint``; ``output``, the path of the result,
        whose ending may be the model's, or None; ``figures`` (see modelkit.report.summary); ``facts``, the hashes for
        the journal; ``document``, the whole result where it was not written to a file.

    Raises:
        ModelkitError: Whatever is wrong with this model.
    """
    command, model, output = payload["command"], Path(payload["model"]), payload["output"]
    arguments, reason, hint = dict(payload["arguments"]), "", None
    if not is_checkpoint(model):  # of a folder that holds both
        arguments.pop("loading", None)
    if command in COMMANDS:
        try:
            job = make_job(command, model, output=output, force=payload["force"], **arguments)
            found = api.run(job, progress)
        except BudgetError as error:
            assert isinstance(error.report, Report)
            found, reason, hint = error.report, error.message, error.hint
        # Weights without an architecture keep their format, and so their ending.
        document, output = found.to_dict(), output.with_name(found.after.file["name"])
    else:
        if output is not None:
            check_outputs([output], [model], force=payload["force"])
        try:
            document = _look(command, model, arguments, progress)
        except BudgetError as error:
            assert isinstance(error.report, dict)
            document, reason, hint = error.report, error.message, error.hint
        if output is not None:
            write_json(output, document)
    status = str(document.get("status", DONE))
    outputs = dict.fromkeys([*payload["outputs"], *([output] if output is not None else [])])
    # What missed its budget leaves no artifact; a document about a model is always written.
    kept = status == DONE or command not in COMMANDS
    written = [path for path in outputs if path.is_file() and (kept or ".report." in path.name)]
    return {
        "status": status,
        "reason": reason,
        "hint": hint,
        "output": output if kept else None,
        "figures": figures_of(document),
        "facts": facts_of(model, _external(model, document), written),
        "document": document if output is None else None,
    }


def _look(command: str, model: Path, arguments: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Do a command that only tells something about a model."""
    if command == "inspect":
        return api.inspect(model, **arguments)
    return api.evaluate([model], **arguments, progress=progress)


def _external(model: Path, document: Mapping[str, Any]) -> list[Path]:
    """The external data of a model; the model is read again only where there is any."""
    if not subject_of(document).get("size", {}).get("external_bytes") or is_checkpoint(model):
        return []
    from modelkit.graph.load import load

    return load(model).external
