"""Every error that a person can meet: one line that names the thing, a hint, an exit code.

Exit codes: 0 done; 1 a gate or budget was not met; 2 what was given cannot be used (options,
config, model or data); 3 part of a directory failed; 4 refused as unsafe; 5 the machine or the
runtime failed; 130 interrupted.
"""

from __future__ import annotations


class ModelkitError(Exception):
    """Base of all expected failures.

    Args:
        message: One line that names the thing and what was expected.
        hint: What to do about it, in one line; None where nothing helps.
    """

    exit_code = 5

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class UsageError(ModelkitError):
    """An option, an argument or a path is wrong (exit code 2)."""

    exit_code = 2


class ConfigError(UsageError):
    """A configuration is wrong; carries every problem found, not only the first (exit code 2).

    Args:
        message: Summary line.
        problems: One line for each problem, with its place (file and line, or flag).
        hint: What to do about it.
    """

    def __init__(self, message: str, problems: list[str], hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.problems = problems


class ModelError(ModelkitError):
    """The model file cannot be used as it is, or there is nothing to do on it (exit code 2)."""

    exit_code = 2


class DataError(ModelkitError):
    """The data set cannot be used with this model; carries every mismatch found (exit code 2).

    Args:
        message: Summary line.
        problems: One line for each mismatch.
        hint: What to do about it.
    """

    exit_code = 2

    def __init__(self, message: str, problems: list[str] | None = None, hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.problems = problems or []


class BudgetError(ModelkitError):
    """A gate or budget was not met (exit code 1).

    Args:
        message: What was missed.
        hint: What to do about it.
        report: The report of the best that was found; shown beside the message.
        problems: One line for each gate that was missed, where the message does not say it.
    """

    exit_code = 1

    def __init__(
        self,
        message: str,
        hint: str | None = None,
        report: object = None,
        problems: list[str] | None = None,
    ) -> None:
        super().__init__(message, hint)
        self.report = report
        self.problems = problems or []


class PartError(ModelkitError):
    """Some models of a folder failed; the others are done (exit code 3)."""

    exit_code = 3


class UnsafeError(ModelkitError):
    """Refused because it could harm: a path that leaves its folder, a file that runs code (exit code 4)."""

    exit_code = 4


class ResourceError(ModelkitError):
    """The machine or the runtime failed: disk, permission, memory, onnxruntime (exit code 5)."""

    exit_code = 5


def refusal(error: OSError) -> str:
    """What the system refuses, in one line."""
    name = f" '{error.filename}'" if error.filename else ""
    return f"the system refuses{name}: {error.strerror or error}"


def defect(error: Exception) -> str:
    """An exception that nobody expected, in one line like every error: what it says may span many."""
    said = " ".join(str(error).split())
    return f"this is a defect in modelkit: {type(error).__name__}{f': {said}' if said else ''}"
