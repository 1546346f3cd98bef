"""From a rules file to a verified ONNX file with its report; all of it in place, or nothing."""

from __future__ import annotations

from pathlib import Path

from modelkit.errors import BudgetError, UsageError
from modelkit.files import Staging, check_outputs, file_record, json_bytes, outputs_of
from modelkit.progress import Progress, silent
from modelkit.rules.build_report import BuildReport
from modelkit.rules.check import check
from modelkit.rules.findings import CheckReport, Level
from modelkit.rules.fit import fit
from modelkit.rules.load import load
from modelkit.rules.onnx_build import to_onnx
from modelkit.rules.table import read_table
from modelkit.rules.verify import RANDOM_ROWS, verify


def build(
    source: Path,
    output: Path | None = None,
    *,
    data: Path | None = None,
    target: str | None = None,
    seconds: float = 60.0,
    allow_findings: bool = False,
    random: int = RANDOM_ROWS,
    seed: int = 0,
    force: bool = False,
    progress: Progress = silent,
) -> BuildReport:
    """Build an ONNX file of a rules file.

    Args:
        source: The rules file.
        output: Where the ONNX file goes; beside the rules file without.
        data: csv or parquet with the rule set's columns, and labels where precision is wanted.
        target: The column of the labels; found by name without.
        seconds: How long the check may take.
        allow_findings: Whether to go on where the check found errors.
        random: Random rows to verify on.
        seed: Seed of these rows.
        force: Whether to replace files that exist.
        progress: Told how far it is.

    Raises:
        ConfigError: The rules file is wrong.
        BudgetError: The check found errors; its ``report`` is the `CheckReport`.
        DataError: The data does not fit.
        ResourceError: The file that was made is not right, and is not published.
    """
    target_path = source.with_suffix(".onnx") if output is None else output
    if target_path.suffix != ".onnx":
        raise UsageError(f"the output '{target_path}' must end in .onnx")
    rules = load(source)
    outputs = [path for path in outputs_of(target_path) if path.suffix != ".data"]
    check_outputs(outputs, [source, *([] if data is None else [data])], force=force)
    table = None if data is None else read_table(rules, data, label=target)
    checked = check(rules, seconds=seconds, progress=progress)
    refuse_findings(checked, allow=allow_findings)
    measured = None if table is None else fit(rules, *table)
    with Staging(target_path.parent) as stage:
        staged = stage.path(target_path.name)
        progress("building", 0, 0)
        staged.write_bytes(to_onnx(rules).SerializeToString(deterministic=True))
        verified = verify(rules, staged, random=random, seed=seed, progress=progress)
        found = {**file_record(staged), "name": target_path.name}
        record = None if data is None else file_record(data)
        report = BuildReport(rules, file_record(source), found, checked, verified, measured, record)
        write_reports(stage, outputs, report)
        stage.publish([path.name for path in outputs], force=force)
    return report


def refuse_findings(checked: CheckReport, *, allow: bool) -> None:
    """Stop where a check found errors.

    Raises:
        BudgetError: With the report, and the first error in words.
    """
    errors = [finding for finding in checked.findings if finding.level is Level.ERROR]
    if errors and not allow:
        more = "" if len(errors) == 1 else f" (and {len(errors) - 1} more)"
        raise BudgetError(
            f"the check found errors: {errors[0].text}{more}",
            "correct the rules, or build all the same with --allow-findings",
            report=checked,
        )


def write_reports(stage: Staging, outputs: list[Path], report: BuildReport) -> None:
    """Write the JSON and Markdown reports beside a staged model.

    Args:
        stage: Where the model was staged.
        outputs: The model's path, then the reports'.
        report: What they say.
    """
    from modelkit.rules.markdown import report_markdown

    by_suffix = {path.suffix: path for path in outputs}
    stage.path(by_suffix[".json"].name).write_bytes(json_bytes(report.as_json()))
    stage.path(by_suffix[".md"].name).write_text(report_markdown(report), encoding="utf-8")
