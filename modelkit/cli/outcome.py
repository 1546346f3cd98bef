"""What a run has to tell continuous integration, gathered on its way."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from modelkit.report.cases import Case


@dataclass
class Outcome:
    """What a run has to tell.

    Attributes:
        command: What runs, such as "quantize".
        subject: The model, folder or report that was named first.
        junit: Where the JUnit file goes; None for none.
        closing: The line that makes GitHub listen again; None where it is told nothing.
        cases: What was checked so far.
        body: Markdown for the step summary, below the cases.
    """

    command: str
    subject: Path
    junit: Path | None
    closing: str | None
    cases: list[Case] = field(default_factory=list)
    body: str = ""
