"""The library's function that searches architectures: `modelkit nas` as a call."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from modelkit.config.resolve import Resolved
from modelkit.nas.config import NasConfig
from modelkit.progress import Progress, silent


def nas(
    data: Path | str,
    *,
    model: Path | str | None = None,
    output: Path | str | None = None,
    test: Path | str | None = None,
    config: Mapping[str, Any] | Resolved[NasConfig] | None = None,
    force: bool = False,
    html: bool = False,
    resume: bool = False,
    on: str | None = None,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Search architectures, in a space or around a saved model, and write the Pareto set.

    Args:
        data: Samples: npz with one array and ``labels``, or what fits the model.
        model: A saved model to search around; else the config's ``space`` is searched.
        output: Where the best model goes; ``best.onnx``, or beside the model as ``<stem>.nas.onnx``.
        test: Samples for the final figures only.
        config: Options as dotted keys (``{"space": {...}, "trials": 100}``), or already resolved.
        force: Whether to overwrite what exists.
        html: Whether to write the report as a page for the browser too.
        resume: Whether to go on with a run that was ended.
        on: A Ray cluster that runs the trials; processes of this machine by default.
        progress: Told how far the work is.

    Returns:
        The report (schema ``modelkit.nas/1``).

    Raises:
        ModelkitError: With a message, a hint and an exit code; see modelkit.errors.
    """
    from modelkit.config.resolve import resolve
    from modelkit.nas.session import nas as search
    from modelkit.transform.bits import STORE

    if not isinstance(config, Resolved):
        config = resolve(NasConfig, flags={key: (value, key) for key, value in (config or {}).items()})
    given = None if model is None else Path(model)
    default = Path("best.onnx") if given is None else given.with_suffix(".nas.onnx")
    return search(
        Path(data),
        default if output is None else Path(output),
        config,
        model=given,
        test=None if test is None else Path(test),
        force=force,
        html=html,
        resume=resume,
        store=STORE,
        on=on,
        progress=progress,
    )
