"""What a worker does with one model of a folder: the same as a run for that model alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelkit import api
from modelkit.batch.facts import facts_of
from modelkit.checkpoint.open import is_checkpoint
from modelkit.errors import BudgetError
from modelkit.files import check_outputs
from modelkit.progress import Progress
from modelkit.recipe.config import RUN
from modelkit.recipe.job import recipe_job
from modelkit.report.report import Report
from modelkit.report.summary import DONE, figures_of, subject_of
from modelkit.report.write import write_document
from modelkit.transform.commands import COMMANDS, make_job
from modelkit.transform.job import Job


def perform(payload: Mapping[str, Any], progress: Progress) -> dict[str, Any]:
    """Do a command on one model (an ``Entry`` of modelkit.jobs.protocol).

    Args:
        payload: ``command``; ``model``; ``output``, or None to write nothing; ``outputs``, all files that may be
            written; ``force``; ``arguments`` of the command's function in modelkit.api.
        progress: Told how far the work is.

    Returns:
        ``status`` ("done" or "budget not met") with ``reason`` and ``hint``; ``output``, the path of the result, or
        None; ``page``, the path of its page, or None; ``figures`` (see modelkit.report.summary); ``facts``, the
        hashes for the journal; ``document``, the whole result where it was not written to a file.

    Raises:
        ModelkitError: Whatever is wrong with this model.
    """
    command, model, output = payload["command"], Path(payload["model"]), payload["output"]
    page: Path | None = None
    arguments, reason, hint = dict(payload["arguments"]), "", None
    if not is_checkpoint(model):  # of a folder that holds both
        arguments.pop("loading", None)
    if command in COMMANDS or command == RUN:
        try:
            job = _job(command, model, output, arguments, force=payload["force"])
            page = job.outputs.page
            found = api.run(job, progress)
        except BudgetError as error:
            assert isinstance(error.report, Report)
            found, reason, hint = error.report, error.message, error.hint
        document = found.to_dict()
    else:
        html = bool(arguments.pop("html", False))
        page = output.with_suffix(".html") if html and output is not None else None
        files = [path for path in (output, page) if path is not None]
        check_outputs(files, [model], force=payload["force"])
        try:
            document = _look(command, model, arguments, progress)
        except BudgetError as error:
            assert isinstance(error.report, dict)
            document, reason, hint = error.report, error.message, error.hint
        if output is not None:
            write_document(document, output, page)
    status = str(document.get("status", DONE))
    # What missed its budget leaves no artifact; a document about a model is always written.
    kept = status == DONE or not (command in COMMANDS or command == RUN)
    written = [path for path in payload["outputs"] if path.is_file() and (kept or ".report." in path.name)]
    return {
        "status": status,
        "reason": reason,
        "hint": hint,
        "output": output if kept else None,
        "figures": figures_of(document),
        "page": page if page is not None and page.is_file() else None,
        "facts": facts_of(model, _external(model, document), written),
        "document": document if output is None else None,
    }


def _job(command: str, model: Path, output: Path, arguments: dict[str, Any], *, force: bool) -> Job:
    """Describe what a command that makes an artifact is to do."""
    if command == RUN:
        return recipe_job(model, arguments.pop("config"), output=output, force=force, **arguments)
    return make_job(command, model, output=output, force=force, **arguments)


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
