"""Runs a recipe from file to file: steps, figures, one verdict against the original, one report."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from modelkit.errors import BudgetError
from modelkit.files import Staging, file_record
from modelkit.progress import Progress, silent
from modelkit.recipe.cache import Cache, external_of
from modelkit.recipe.compose import compose
from modelkit.recipe.figures import ORIGINAL, measure
from modelkit.recipe.inputs import prepare
from modelkit.recipe.job import RecipeJob
from modelkit.recipe.steps import Chain, last_of
from modelkit.report.report import Report
from modelkit.report.summary import DONE, MISSED
from modelkit.report.write import write_report
from modelkit.transform import gates
from modelkit.transform.job import only_failed, opened
from modelkit.transform.pipeline import older_artifact, save_as

_WORK = "steps"


def run_recipe(job: RecipeJob, progress: Progress = silent) -> Report:
    """Run a recipe on one model.

    The artifact, ``<stem>.report.json`` and ``<stem>.report.md`` are written together or not at all; when the
    budget is not met only the report is. What each step made is in the cache as soon as the step ends.

    Args:
        job: The recipe, the model and the data.
        progress: Told how far the work is.

    Raises:
        BudgetError: The result is outside the budget, or a step missed its own; carries the report as ``report``.
        ModelkitError: Anything else that is wrong; what is about a step begins with its number and name.
    """
    with opened(job, progress) as ready:
        assert isinstance(ready, RecipeJob)
        return _run(ready, progress)


def _run(job: RecipeJob, progress: Progress) -> Report:
    inputs = prepare(job)
    with Staging(job.output.parent) as stage:
        work = stage.path(_WORK)
        work.mkdir()
        cache = None if job.cache is None else Cache(job.cache)
        chain = Chain(job.model, inputs, cache, work, progress)
        with _telling_what_is_kept(chain, len(inputs.steps)):
            done = chain.run()
            recipe = job.options.value
            paths = {each.step.name: each.path for each in done if each.path is not None}
            models = {ORIGINAL: job.model, **paths}
            figures = measure(models, inputs.judge, recipe.measure, recipe.seed, progress)
        report = compose(job, inputs, done, figures, chain.notes)
        names: list[str] = []
        if report.status == DONE:
            last = last_of(done)
            assert last is not None and last.path is not None
            names = save_as(_own(last.path), stage, job.output.name)
            external = [stage.path(name) for name in names if name != job.output.name]
            report.after.file = file_record(stage.path(job.output.name), external)
        older = older_artifact(job) if report.status != DONE else None
        report.notes += [older] if older else []
        reports = [path.name for path in job.outputs.reports]
        write_report(report, stage, reports)
        stage.publish([*names, *reports], force=job.force or only_failed(job.output) or report.status != DONE)
    if report.status != DONE:
        raise BudgetError(
            _missed(report),
            f"{reports[0]} tells what each step gave" + (f"; {older}" if older else ""),
            report=report,
        )
    return report


def _own(path: Path) -> Path:
    """A model in a file of its own, so that who writes into an artifact does not write into the cache, or back."""
    if path.stat().st_nlink == 1 or external_of(path):  # external data is written anew under the artifact's name
        return path
    return Path(shutil.copyfile(path, path.with_name("own.onnx")))


def _missed(report: Report) -> str:
    last = report.steps[-1]
    if last["status"] == MISSED:
        return f"step {last['number']} ({last['command']}): {last['reason']}"
    return f"the result of the recipe misses the budget: {gates.missed(report.gates)}"


@contextmanager
def _telling_what_is_kept(chain: Chain, total: int) -> Iterator[None]:
    """Whatever ends the block early carries a note on how many steps need not be done again."""
    try:
        yield
    except BaseException as error:
        if chain.kept:
            verb = "is" if chain.kept == 1 else "are"
            error.add_note(f"{chain.kept} of {total} steps {verb} in the cache, where the same command goes on")
        raise
