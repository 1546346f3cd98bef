"""One call from samples, and a space or a saved model, to a Pareto set of verified ONNX files: `modelkit nas`."""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from modelkit.config.resolve import Resolved, as_yaml
from modelkit.errors import UsageError
from modelkit.files import Staging, check_outputs, json_bytes, outputs_of, require_file, sha256, shown
from modelkit.jobs.local import LocalRunner
from modelkit.jobs.protocol import Runner
from modelkit.nas import trial as work
from modelkit.nas.config import NasConfig
from modelkit.nas.data import Parts, keep, open_for, read_samples, spec_facts
from modelkit.nas.feasible import Architectures, Problem, require_some
from modelkit.nas.outcome import Chosen, choose
from modelkit.nas.parse import parse_space
from modelkit.nas.records import Sources, report_of
from modelkit.nas.run import DEFAULT_TRIALS, Run
from modelkit.nas.search import search_of
from modelkit.nas.space import Genome
from modelkit.nas.storage import Shared
from modelkit.nas.study import Study, folder_of
from modelkit.nas.written import is_around
from modelkit.progress import Progress, silent
from modelkit.report import searched
from modelkit.version import VERSION

_WARM = ("modelkit.nas.trial", "modelkit.train.finetune", "modelkit.train.loop", "onnxruntime")


def pareto_folder(output: Path) -> Path:
    """Where the Pareto set goes: beside the best model."""
    return output.with_name(f"{output.name.removesuffix('.onnx')}.pareto")


@dataclass(frozen=True)
class _Setting:
    """What is searched, and what each task is told of it."""

    problem: Problem
    parts: Parts
    payload: dict[str, Any]
    first: tuple[tuple[str, Genome], ...] = ()


def nas(
    data: Path,
    output: Path,
    options: Resolved[NasConfig],
    *,
    model: Path | None = None,
    test: Path | None = None,
    force: bool = False,
    html: bool = False,
    resume: bool = False,
    store: str = "",
    on: str | None = None,
    runner: Runner | None = None,
    progress: Progress = silent,
    began: float | None = None,
) -> dict[str, Any]:
    """Search architectures, and write the best and the Pareto set as ONNX files.

    Args:
        data: Samples: npz with one array and ``labels``, or anything that fits a given model.
        output: Where the best model goes; reports and the folder of the Pareto set go beside it.
        options: The resolved config.
        model: A saved model to search around; else ``space`` is searched.
        test: Samples that only the reported figures are from; a part of ``data`` by default.
        force: Whether to replace outputs that exist.
        html: Whether the report is written as a page for the browser too.
        resume: Whether to go on with an earlier run that was ended.
        store: The function that stores weights in fewer bits, as ``"package.module:function"``.
        on: A Ray cluster that runs the trials, ``ray`` or ``ray://HOST:PORT``; processes of this machine by default.
        runner: What runs the trials instead.
        progress: Told how far the run is.
        began: ``time.monotonic()`` of the start.

    Returns:
        The report (schema ``modelkit.nas/1``).

    Raises:
        UsageError: A file is not there, an output exists, or a study belongs to something else.
        ConfigError: The space is empty or wrong.
        DataError: The samples cannot be used.
        ModelError: The model cannot be searched around, or nothing can be trained.
        BudgetError: The time is too short for one trial, or nothing keeps the limits.
    """
    config = options.value
    began = time.monotonic() if began is None else began
    _check(config, model, data, test, output, html=html, force=force or resume)
    progress("reading the samples", 0, 1)
    with tempfile.TemporaryDirectory(prefix="modelkit-nas-") as scratch:
        setting = _setting(config, model, data, test, Path(scratch), store, progress)
        require_some(setting.problem, config.seed)
        facts = _facts(config, setting, data, model)
        search = search_of(setting.problem, config, config.trials or DEFAULT_TRIALS, setting.first)
        shared = None
        if config.storage is not None:
            maker = f"{socket.gethostname()} {os.getpid()} {time.time():.6f}"
            common = {name: facts[name] for name in ("space", "data")}
            shared = Shared(config.storage, config.study, common, maker)
        study = Study(folder_of(output), facts, resume=resume)
        sources = Sources(data, test, model, options, setting.parts.describe(), setting.problem.space, began)
        with study:
            for part in ("training", "validation"):
                keep(getattr(setting.parts, part), setting.parts.specs, Path(scratch) / f"{part}.npz")
            run = Run(search, study, config, setting.payload, shared, progress, began)
            run.remember()
            publish = _Publisher(run, setting, sources, output, force or resume, html, progress, Path(scratch))
            with _interruptible(publish), runner or _runner(config, on) as active:
                run.run(active)
            report = publish(interrupted=False)
        study.remove()
        return report


def _runner(config: NasConfig, on: str | None) -> Runner:
    if on is None:
        return LocalRunner(config.workers, warm=_WARM)
    from modelkit.jobs.cluster import ClusterRunner

    return ClusterRunner(on, config.workers, warm=_WARM)


def _check(
    config: NasConfig, model: Path | None, data: Path, test: Path | None, output: Path, *, html: bool, force: bool
) -> None:
    """Refuse what can be told before any work."""
    if model is None and config.space is None:
        raise UsageError(
            "there is nothing to search: neither a space nor a model",
            "give a space with --config (modelkit init nas writes one), or a saved model to search around",
        )
    if model is not None and config.space is not None and not is_around(config.space):
        raise UsageError(
            "a space and a model are given: one of them is searched",
            "leave space out of the config; only one of family derived is one around a model",
        )
    if model is None and is_around(config.space):
        raise UsageError(
            "a space of family derived is one around a saved model, and none is given",
            "give the model that it was derived from: modelkit nas MODEL --space FILE --data DATA",
        )
    for path in (data, test, model):
        if path is not None and not path.is_dir():
            require_file(path)
    inputs = [path for path in (data, test, model) if path is not None]
    check_outputs(outputs_of(output, html=html), inputs, force=force)
    folder = pareto_folder(output)
    if folder.exists() and not force:
        raise UsageError(f"'{shown(folder)}' exists", "--force replaces it; or choose another output with -o")


def _setting(
    config: NasConfig,
    model: Path | None,
    data: Path,
    test: Path | None,
    scratch: Path,
    store: str,
    progress: Progress,
) -> _Setting:
    payload: dict[str, Any] = {
        "training": scratch / "training.npz",
        "validation": scratch / "validation.npz",
        "options": config.training.model_dump(),
        "timing": config.timing.model_dump(),
        "seed": config.seed,
    }
    # Each worker is one process of several, and small networks gain nothing from more threads.
    payload["options"]["threads"] = config.training.threads or 1
    if model is None:
        assert config.space is not None
        space = parse_space(config.space)
        parts, signature = read_samples(data, test, config)
        payload |= {"signature": work.signature_facts(signature), "specs": spec_facts(parts.specs)}
        return _Setting(Architectures(space, signature, config.constraints), parts, payload)
    from modelkit.nas.derived import around
    from modelkit.nas.planned import planned

    problem, specs, more = around(model, config, scratch, store, progress)
    parts = open_for(data, test, specs, config)
    payload |= {**more, "specs": spec_facts(specs)}
    first = [("given", genome) for genome in problem.first()]
    first += [("planned", genome) for genome in planned(problem, parts.training, progress)]
    return _Setting(problem, parts, payload, tuple(first))


def _facts(config: NasConfig, setting: _Setting, data: Path, model: Path | None) -> dict[str, Any]:
    """What must be the same for an earlier study to be gone on with."""
    free = {"time", "trials", "workers", "trial", "storage", "study", "limits", "pick", "baseline", "space", "timing"}
    found = {name: value for name, value in config.model_dump(mode="json").items() if name not in free}
    hashed = sha256(data) if data.is_file() else setting.parts.training.fingerprint()
    kept = {"data": hashed, "version": VERSION, "space": setting.problem.space.hash}
    return {**found, **kept, "model": None if model is None else sha256(model)}


@contextmanager
def _interruptible(publish: _Publisher) -> Iterator[None]:
    """Write what was found so far where a person or the system ends the run."""
    try:
        yield
    except BaseException as stop:
        if not publish.run.search.done():
            publish.run.study.remove_if_empty()
        elif not isinstance(stop, Exception):
            publish(interrupted=True)
        raise


@dataclass
class _Publisher:
    """Writes what a run found."""

    run: Run
    setting: _Setting
    sources: Sources
    output: Path
    force: bool
    html: bool
    progress: Progress
    scratch: Path

    def __call__(self, *, interrupted: bool) -> dict[str, Any]:
        run = self.run
        mine = [t for t in [*run.search.done(), *run.extra] if t.is_done and self._file(t).exists()]
        chosen = choose(mine, self.sources.options.value)
        self.progress("measuring on the test samples", 0, 1)
        tested = {t.number: self._test(t) for t in chosen.pareto}
        self.progress("writing", 0, 1)
        self._write_set(chosen)
        report = report_of(run, chosen, tested, self._file(chosen.best), self.output.name, self.sources, interrupted)
        self._write(chosen.best, report)
        return report

    def _file(self, trial: Any) -> Path:
        return self.run.study.trial_folder(trial.number) / work.MODEL

    def _test(self, trial: Any) -> dict[str, Any]:
        """The one look at the test samples."""
        timing = {**self.sources.options.value.timing.model_dump(), "seconds": 0.02}
        return work.measure(self._file(trial), self.setting.parts.test, timing, self.run.payload.get("reference"))

    def _write_set(self, chosen: Chosen) -> None:
        folder = pareto_folder(self.output)
        if folder.exists():
            for old in [*folder.glob("[0-9]*.onnx"), *folder.glob("[0-9]*.yaml")]:
                old.unlink()
        folder.mkdir(parents=True, exist_ok=True)
        with Staging(folder) as stage:
            names = []
            for number, trial in enumerate(chosen.pareto, 1):
                shutil.copyfile(self._file(trial), stage.path(f"{number:02d}.onnx"))
                stage.path(f"{number:02d}.yaml").write_text(as_yaml(trial.document), encoding="utf-8")
                names += [f"{number:02d}.onnx", f"{number:02d}.yaml"]
            stage.publish(names, force=True)

    def _write(self, best: Any, report: Mapping[str, Any]) -> None:
        _, artifact, beside_json, beside_md, *pages = outputs_of(self.output, html=self.html)
        with Staging(self.output.parent) as stage:
            shutil.copyfile(self._file(best), stage.path(artifact.name))
            stage.path(beside_json.name).write_bytes(json_bytes(report))
            stage.path(beside_md.name).write_text(searched.markdown(report), encoding="utf-8")
            for page in pages:
                from modelkit.report.html.page import render

                stage.path(page.name).write_bytes(render(report))
            again = self.force or self.output.exists()
            stage.publish([each.name for each in (artifact, beside_json, beside_md, *pages)], force=again)
