"""What is known of a rule set that was built."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from modelkit.rules.document import document
from modelkit.rules.findings import CheckReport
from modelkit.rules.fit import Fit
from modelkit.rules.model import RuleSet
from modelkit.rules.verify import Verified

SCHEMA = "modelkit.rules.report/1"


@dataclass(frozen=True)
class BuildReport:
    """What was built, and what is known of it.

    Attributes:
        rules: The rule set.
        source: The rules file: name, bytes, sha256.
        file: The ONNX file likewise.
        checked: What the check found.
        verified: On how many rows the file was compared with the evaluator.
        fit: Figures on data; None without data.
        data: The data file; None without.
    """

    rules: RuleSet
    source: dict[str, str | int]
    file: dict[str, str | int]
    checked: CheckReport
    verified: Verified
    fit: Fit | None = None
    data: dict[str, str | int] | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain values, as the report file holds them."""
        return {
            "schema": SCHEMA,
            "rules": document(self.rules),
            "source": self.source,
            "file": self.file,
            "verified": {
                "boundary_rows": self.verified.boundary,
                "random_rows": self.verified.random,
                "all_boundaries": self.verified.all_boundaries,
                "disagreements": 0,
            },
            "check": self.checked.as_json(),
            "data": self.data,
            "fit": None if self.fit is None else self.fit.as_json(),
        }
