"""What a recipe needs, checked before its first step: the original, the samples that judge, and what steps get."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from modelkit.data.open import open_dataset
from modelkit.data.roles import Apart, test_share
from modelkit.data.synthetic import synthetic_dataset
from modelkit.errors import DataError, ModelError, ModelkitError, UsageError
from modelkit.files import check_outputs, content_hash, shown
from modelkit.graph.layers import input_vocabulary
from modelkit.graph.load import Loaded, load
from modelkit.recipe.config import RecipeConfig, step_options
from modelkit.recipe.job import RecipeJob
from modelkit.runtime import class_count, input_specs, make_session, output_specs
from modelkit.transform.commands import COMMANDS, make_job, maker_of
from modelkit.transform.job import Job, check_separate, only_failed
from modelkit.transform.job import prepare as prepare_job

if TYPE_CHECKING:
    from modelkit.data.dataset import Dataset

_NO_DATA = "without data, the result was compared with the original on made-up inputs; --data gives real ones"


@dataclass(frozen=True)
class Step:
    """One step, ready to be done on any model.

    Attributes:
        number: Its place, from 1.
        command: Name of its command.
        job: What to do, on the original; the model and the output are still to be put in.
        optional: Whether it is left out where it has nothing to do.
        hashes: Of its data, of the samples that test, and of files that its options name, by role.
    """

    number: int
    command: str
    job: Job
    optional: bool
    hashes: dict[str, str] = field(default_factory=dict)

    @property
    def title(self) -> str:
        """What to call it in a sentence."""
        return f"step {self.number} ({self.command})"

    @property
    def name(self) -> str:
        """What to call it in a table; also its working folder."""
        return f"{self.number} {self.command}"

    def on(self, model: Path, output: Path) -> Job:
        """The step's job for a model."""
        return replace(self.job, model=model, output=output)


@dataclass(frozen=True)
class Inputs:
    """A recipe whose inputs are loaded and checked.

    Attributes:
        loaded: The original.
        judge: The samples that everything is judged on, and nothing is chosen by.
        steps: The steps, in order.
        notes: What a reader of the figures must know.
    """

    loaded: Loaded
    judge: Dataset
    steps: list[Step]
    notes: list[str]


def prepare(job: RecipeJob) -> Inputs:
    """Load and check everything before any work is done.

    Raises:
        ModelkitError: Whatever is wrong with the model, the data, the paths, or with what a step is to do.
    """
    recipe: RecipeConfig = job.options.value
    loaded = load(job.model)
    own = {number: step.data for number, step in enumerate(recipe.steps, 1) if step.data is not None}
    given = [
        job.named,
        job.model,
        *loaded.external,
        *own.values(),
        *(p for p in (job.data, job.test) if p is not None),
    ]
    check_outputs(job.outputs.files, given, force=job.force or only_failed(job.output))
    for number, path in own.items():
        if not path.exists():
            raise UsageError(f"the data '{shown(path)}' of step {number} does not exist")
    for worked_with in (job.data, *own.values()):
        check_separate(worked_with, job.test)
    judge, apart, notes = _judge(job, loaded)
    return Inputs(loaded, judge, _steps(job, apart), notes)


def _judge(job: RecipeJob, loaded: Loaded) -> tuple[Dataset, Apart | None, list[str]]:
    """The samples for the final figures, how they are set apart from the data, and what is to be said of that."""
    recipe: RecipeConfig = job.options.value
    session = make_session(job.model, providers=[recipe.measure.provider])
    specs, classes = input_specs(session), class_count(output_specs(session))
    opened = partial(open_dataset, specs=specs, preprocess=job.preprocess, classes=classes)
    if job.test is not None:
        return opened(job.test), None, []
    if job.data is None:
        made_up = synthetic_dataset(
            specs,
            count=recipe.synthetic.samples,
            seed=recipe.seed + 1,  # not those that steps choose by
            vocabulary=input_vocabulary(loaded.model),
            dims=dict(recipe.synthetic.dims),
        )
        return made_up, None, [_NO_DATA]
    whole = opened(job.data)
    share = test_share(whole, training=_trains(job))
    if not share:
        return whole, None, [f"{whole.count} samples are too few to split: the steps worked with them too"]
    apart = Apart(share, recipe.seed)
    return apart.divide(whole)[1], apart, []


def _trains(job: RecipeJob) -> bool:
    steps = job.options.value.steps
    return any(COMMANDS[s.command].training(step_options(job.options, i).value) for i, s in enumerate(steps))


def _steps(job: RecipeJob, apart: Apart | None) -> list[Step]:
    known: dict[Path, str] = {}

    def hashed(path: Path) -> str:
        if path not in known:
            known[path] = content_hash(path)
        return known[path]

    found = []
    for index, step in enumerate(job.options.value.steps):
        data, test = step.data or job.data, job.data if apart is not None else job.test
        made = make_job(
            step.command, job.model, output=job.output, data=data, test=test, config=step_options(job.options, index)
        )
        hashes = {role: hashed(path) for role, path in (("data", data), ("test", test)) if path is not None}
        hashes |= {f"file {number}": hashed(path) for number, path in enumerate(made.reads, 1)}
        found.append(Step(index + 1, step.command, replace(made, apart=apart), step.optional, hashes))
    return found


def check_options(steps: Sequence[Step], original: Path) -> None:
    """Refuse what a step cannot do on any model, which it would only say after the work of those before it.

    Each step is prepared on the original, without its patterns: names may be different when its turn comes.

    Raises:
        UsageError: A step is asked for something impossible, or needs data and has none.
        DataError: A step's data does not fit.
    """
    for step in steps:
        options = step.job.options
        anywhere: Any = options.value.model_copy(update={"include": [], "exclude": []})
        with tempfile.TemporaryDirectory(prefix="modelkit-") as folder:
            job = replace(step.on(original, Path(folder) / "x.onnx"), options=replace(options, value=anywhere))
            try:
                prepare_job(job, maker_of(job))
            except (UsageError, DataError) as error:
                raise named(error, step) from None
            except ModelError:  # what it will be given may be another matter
                continue


def named(error: ModelkitError, step: Step) -> ModelkitError:
    """The error with the step that it is about."""
    error.message = f"{step.title}: {error.message}"
    error.args = (error.message,)
    return error
