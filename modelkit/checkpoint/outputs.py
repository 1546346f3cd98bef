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
        report: Its report as JSON.
        page: The same as Markdown.
        state: A state dict with the same changes; None where none is written.
        plan: What was changed in the state dict; None where there is none.
    """

    artifact: Path
    data: Path | None
    report: Path
    page: Path
    state: Path | None = None
    plan: Path | None = None

    @property
    def files(self) -> list[Path]:
        """All of them; the report is the first that is JSON."""
        found = (self.data, self.artifact, self.report, self.page, self.state, self.plan)
        return [path for path in found if path is not None]


def outputs_for(model: Path, output: Path, loading: Loading, *, writes_back: bool) -> Outputs:
    """Tell what may be written for a model, by what kind of file it is; it need not be readable.

    Args:
        model: The model's file.
        output: Where the artifact is asked to go. Weights without an architecture stay in their format, and the
            artifact gets the ending of the model's name.
        loading: How a checkpoint is read.
        writes_back: Whether the command writes a state dict back.
    """
    data, artifact, report, page = outputs_of(output)
    if not writes_back or not _holds_state(model):
        return Outputs(artifact, data, report, page)
    if is_alone(loading):
        kept = output.with_suffix(model.suffix) if model.suffix else output
        report, page, plan = (
            kept.with_name(f"{kept.stem}.{end}") for end in ("report.json", "report.md", "plan.json")
        )
        return Outputs(kept, None, report, page, plan=plan)
    if loading.arch is None:  # a whole pickled module, of which no state dict is written
        return Outputs(artifact, data, report, page)
    stem = output.name.removesuffix(".onnx")
    state = output.with_name(stem + (".safetensors" if sniff(model) is Kind.SAFETENSORS else ".pt"))
    return Outputs(artifact, data, report, page, state, output.with_name(f"{stem}.plan.json"))


def is_alone(loading: Loading) -> bool:
    """Whether nothing was said of the architecture that weights belong to."""
    return loading.arch is None and not loading.inputs


def _holds_state(model: Path) -> bool:
    """Whether a file can hold weights without their program; what cannot be read is told by whoever works on it."""
    try:
        return is_state(model)
    except ModelkitError:
        return False
