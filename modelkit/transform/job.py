"""One model to transform, and everything about it that is loaded and checked before any work is done."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from modelkit.algorithm.candidate import Candidate, Trial
from modelkit.algorithm.config import TransformConfig
from modelkit.checkpoint.loading import Loading
from modelkit.checkpoint.open import open_source
from modelkit.checkpoint.outputs import Outputs, outputs_for
from modelkit.checkpoint.source import Source
from modelkit.config.options import Objective
from modelkit.config.resolve import Resolved
from modelkit.data.open import open_dataset
from modelkit.data.roles import Apart, Roles, assign_roles
from modelkit.data.synthetic import synthetic_dataset
from modelkit.decision import Decision
from modelkit.errors import UsageError
from modelkit.files import check_outputs, outputs_of, shown
from modelkit.graph.layers import input_vocabulary
from modelkit.graph.load import Loaded, load
from modelkit.graph.normalise import normalise, prepare_exactly
from modelkit.graph.save import save
from modelkit.graph.verify import verify_same
from modelkit.progress import Progress, silent
from modelkit.report.report import SCHEMA
from modelkit.runtime import DEFAULT_PROVIDERS, TensorSpec, class_count, input_specs, make_session, output_specs

if TYPE_CHECKING:
    import onnx_ir as ir

    from modelkit.data.dataset import Dataset
    from modelkit.data.preprocess import Preprocess


class Algorithm(Protocol):
    """A command's side of the work."""

    @property
    def objective(self) -> Objective:
        """What is preferred among candidates inside the budget."""

    def candidates(self) -> list[Candidate]:
        """Return what to try first."""

    def refine(self, trials: list[Trial], progress: Progress) -> list[Candidate]:
        """Return what to try next, given what came of the candidates so far; nothing ends the search."""

    def audit(self, path: Path, decisions: Sequence[Decision]) -> dict[str, Any] | None:
        """Say how onnxruntime runs the artifact."""


HIDDEN = ".modelkit"
"""Folder beside an output for what is no output."""


@dataclass(frozen=True)
class Job:
    """One model to transform.

    Attributes:
        command: Name of the command.
        model: The model file.
        output: Where the artifact goes; its report goes beside it.
        options: The resolved config, a ``TransformConfig``.
        safe: Whether the built-in safety limits hold where no budget is set (auto modes).
        data: Data to work with; None for made-up inputs.
        test: Data set apart for the final figures.
        apart: Which part of ``test`` that is; None for all of it. Where ``data`` is the same file, the rest of it
            is what to work with.
        preprocess: How images become inputs.
        force: Whether to overwrite an artifact that exists.
        html: Whether to write the report as a page for the browser too.
        training: Whether the algorithm trains, and so gets most of the data.
        writes_back: Whether a state dict that the model came from is written back too.
        exact: Whether no number may change: the graph is not cleaned up then.
        loading: How a checkpoint is read.
        reads: Further files that the algorithm reads, which no output may replace.
        resume: Whether to go on from what an interrupted run left in ``work``.
        source: Where the model came from; None until it is opened.
    """

    command: str
    model: Path
    output: Path
    options: Resolved[Any]
    safe: bool
    data: Path | None = None
    test: Path | None = None
    apart: Apart | None = None
    preprocess: Preprocess | None = None
    force: bool = False
    html: bool = False
    training: bool = False
    writes_back: bool = False
    exact: bool = False
    keeps_best: bool = False
    loading: Loading = Loading()  # noqa: RUF009 - frozen
    reads: tuple[Path, ...] = ()
    resume: bool = False
    source: Source | None = None

    @property
    def named(self) -> Path:
        """The file that the user named; ``model`` is the ONNX file that stands for it."""
        return self.source.path if self.source is not None else self.model

    @property
    def work(self) -> Path:
        """Where an algorithm that takes long keeps what an interrupted run goes on from; gone after the run."""
        return self.output.parent / HIDDEN / f"work-{self.output.name}"

    @property
    def kept(self) -> Path:
        """Where what takes long to compute and depends on nothing but hashes is kept for later runs."""
        return self.output.parent / HIDDEN / "kept"

    @property
    def outputs(self) -> Outputs:
        """Every file that may be written."""
        return outputs_for(self.named, self.output, self.loading, writes_back=self.writes_back, html=self.html)


@dataclass
class Prepared:
    """A job whose inputs are loaded and checked.

    Attributes:
        loaded: The original.
        model: The normalised model.
        changes: What normalising did.
        roles: The samples by their use.
        algorithm: The command's side, made for this model.
        candidates: What will be tried first.
    """

    loaded: Loaded
    model: ir.Model
    changes: list[Decision]
    roles: Roles
    algorithm: Algorithm
    candidates: list[Candidate]


Maker = Callable[["ir.Model", "Dataset | None"], Algorithm]


@contextmanager
def opened(job: Job, progress: Progress = silent) -> Iterator[Job]:
    """Give the job with its model as an ONNX file, which a checkpoint becomes for as long as the block lasts.

    Raises:
        ModelkitError: The checkpoint cannot be used.
    """
    with open_source(job.model, job.loading, progress) as source:
        yield replace(job, model=source.onnx, source=source)


def prepare(job: Job, make: Maker, progress: Progress = silent) -> Prepared:
    """Load and check everything before any work is done.

    Raises:
        ModelkitError: Whatever is wrong with the model, the data or the paths.
    """
    options: TransformConfig = job.options.value
    loaded = load(job.model)
    named = [p for p in (job.data, job.test, *job.reads) if p is not None]
    inputs = [job.named, job.model, *loaded.external, *named]
    check_outputs(job.outputs.files, inputs, force=job.force or only_failed(job.output))
    if job.apart is None:
        check_separate(job.data, job.test)
    session = make_session(job.model, providers=[options.measure.provider], arena=False)
    specs = input_specs(session)
    classes = class_count(output_specs(session))
    data, test = _open_data(job, specs, classes)
    progress("cleaning up the graph", 0, 1)
    model = loaded.model
    vocabulary = input_vocabulary(model)
    changes = prepare_exactly(model) if job.exact else normalise(model)
    with tempfile.TemporaryDirectory(prefix="modelkit-") as folder:
        cleaned = Path(folder) / "normalised.onnx"
        save(model, cleaned)
        original = session if (options.measure.provider,) == DEFAULT_PROVIDERS else job.model
        changes.append(verify_same(original, cleaned, seed=options.seed, vocabulary=vocabulary))
    del session, original
    made_up = synthetic_dataset(
        specs,
        count=options.synthetic.samples,
        seed=options.seed,
        vocabulary=vocabulary,
        dims=dict(options.synthetic.dims),
    )
    roles = assign_roles(data, test, made_up, seed=options.seed, training=job.training)
    algorithm = make(model, roles.calibration)
    return Prepared(loaded, model, changes, roles, algorithm, algorithm.candidates())


def _open_data(job: Job, specs: Sequence[TensorSpec], classes: int | None) -> tuple[Dataset | None, Dataset | None]:
    """Open what there is to work with and to test on."""
    opened = partial(open_dataset, specs=specs, preprocess=job.preprocess, classes=classes)
    test = None if job.test is None else opened(job.test)
    if job.apart is not None and test is not None:
        rest, test = job.apart.divide(test)
        if is_same_data(job.data, job.test):
            return rest, test
    return None if job.data is None else opened(job.data), test


def is_same_data(data: Path | None, test: Path | None) -> bool:
    """Whether both are there and are one file or folder."""
    return data is not None and test is not None and os.path.realpath(data) == os.path.realpath(test)


def check_separate(data: Path | None, test: Path | None) -> None:
    """Refuse to test on the samples that are worked with.

    Raises:
        UsageError: Both are the same file or folder.
    """
    if test is not None and is_same_data(data, test):
        raise UsageError(
            f"'{shown(test)}' is named both to work with and to test on",
            "leave --test out, and labelled data is split in parts; or give other samples",
        )


def only_failed(output: Path) -> bool:
    """Whether all that is there is the report of a run that missed its budget: it may be replaced unasked."""
    data, artifact, report, _ = outputs_of(output)
    if os.path.lexists(data) or os.path.lexists(artifact):
        return False
    try:
        found = json.loads(report.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(found, dict) and found.get("schema") == SCHEMA and found.get("status") == "budget not met"
