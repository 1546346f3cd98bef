"""Every file that a command may write for a model: one list for whoever checks, writes, announces or hashes them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from modelkit.checkpoint.loading import Loading
from modelkit.checkpoint.tell import is_state
from modelkit.errors import ModelkitError
from modelkit.files import Kind, outputs_of, sniff


@dataclass(frozen=True)
class Outputs:
    """The files of one artifact, all in one folder.

    Attributes:
        artifact: The artifact.
        data: Its external data, where it is large; None where it can have none.
        reports: Its report: as JSON, as Markdown, and where it is asked for as a page for the browser.
        state: A state dict with the same changes; None where none is written.
        plan: What was changed in the state dict; None where there is none.
    """

    artifact: Path
    data: Path | None
    reports: tuple[Path, ...]
    state: Path | None = None
    plan: Path | None = None

    @property
    def files(self) -> list[Path]:
        """All of them; the report is the first that is JSON."""
        found = (self.data, self.artifact, *self.reports, self.state, self.plan)
        return [path for path in found if path is not None]

    @property
    def report(self) -> Path:
        """The report as JSON."""
        return self.reports[0]

    @property
    def page(self) -> Path | None:
        """The report as a page for the browser; None where none is asked for."""
        return next((path for path in self.reports if path.suffix == ".html"), None)


def outputs_for(model: Path, output: Path, loading: Loading, *, writes_back: bool, html: bool = False) -> Outputs:
    """Tell what may be written for a model, by what kind of file it is; it need not be readable.

    Args:
        model: The model's file.
        output: Where the artifact is asked to go. Weights without an architecture stay in their format, and the
            artifact gets the ending of the model's name.
        loading: How a checkpoint is read.
        writes_back: Whether the command writes a state dict back.
        html: Whether the report is written as a page for the browser too.
    """
    data, artifact, *reports = outputs_of(output, html=html)
    if not writes_back or not _holds_state(model):
        return Outputs(artifact, data, tuple(reports))
    if is_alone(loading):
        kept = output.with_suffix(model.suffix) if model.suffix else output
        reports = outputs_of(kept.with_name(f"{kept.stem}.onnx"), html=html)[2:]
        return Outputs(kept, None, tuple(reports), plan=kept.with_name(f"{kept.stem}.plan.json"))
    if loading.arch is None:  # a whole pickled module, of which no state dict is written
        return Outputs(artifact, data, tuple(reports))
    stem = output.name.removesuffix(".onnx")
    state = output.with_name(stem + (".safetensors" if sniff(model) is Kind.SAFETENSORS else ".pt"))
    return Outputs(artifact, data, tuple(reports), state, output.with_name(f"{stem}.plan.json"))


def is_alone(loading: Loading) -> bool:
    """Whether nothing was said of the architecture that weights belong to."""
    return loading.arch is None and not loading.inputs


def _holds_state(model: Path) -> bool:
    """Whether a file can hold weights without their program; what cannot be read is told by whoever works on it."""
    try:
        return is_state(model)
    except ModelkitError:
        return False
