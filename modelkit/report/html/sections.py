"""Parts that the pages of several reports share: options, provenance, data, training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from modelkit.decision import Decision
from modelkit.report import rows, units
from modelkit.report.html import charts
from modelkit.report.html.parts import Block, Cell, Chart, Column, Facts, Section, Table

# Epochs of one curve.
_EPOCHS = 300


def options(config: dict[str, Any], origins: Mapping[str, str]) -> Section:
    """Every option, its value and where that came from; what was not left as it is stands out."""
    body, changed = [], []
    for number, (key, value) in enumerate(rows.flat(config)):
        origin = origins.get(key, "default")
        changed += [number] if origin != "default" else []
        body.append([Cell(key), Cell(rows.plain(value)), Cell(origin, tone="dim" if origin == "default" else "")])
    table = Table(
        [Column("option", "option", "name"), Column("value", "value", "prose"), Column("from", "from")],
        body,
        name="options",
        tools=True,
        facet="from",
        what="options",
        marked=frozenset(changed),
    )
    lead = f"{len(changed)} of {len(body)} were set; the others are defaults." if body else ""
    return Section("config", "Configuration", [table], lead, folded=True)


def provenance(pairs: Iterable[tuple[str, str, bool]], machine: Mapping[str, Any], seed: int | None) -> Section:
    """What the report is about, and what made it."""
    found = [*pairs]
    if seed is not None:
        found.append(("seed", str(seed), True))
    for key, value in machine.items():
        found.append((key.replace("_", " "), rows.plain(value), False))
    return Section("provenance", "Provenance", [Facts(found)])


def data(found: Mapping[str, Any]) -> list[tuple[str, str, bool]]:
    """What was calibrated, selected and tested on, as facts."""
    facts: list[tuple[str, str, bool]] = []
    for role, each in found.items():
        if not isinstance(each, Mapping):
            facts.append((role, rows.plain(each), False))
            continue
        labelled = ", labelled" if each.get("labelled") else ""
        source = "made-up inputs" if each.get("synthetic") else each.get("path") or each.get("name")
        facts.append((f"{role} data", f"{each.get('count')} samples of {source}{labelled}", False))
        facts.append(("sha256", str(each.get("sha256")), True))
        facts += [("", str(note), False) for note in each.get("notes") or ()]
    return facts


def file_facts(what: str, file: Mapping[str, Any]) -> list[tuple[str, str, bool]]:
    """Name and hash of a file, as facts."""
    return [(what, str(file["name"]), True), ("sha256", str(file["sha256"]), True)]


def decisions(found: Sequence[Decision], name: str) -> Table:
    """What was done, and why."""
    columns = [
        Column("target", "target", "name"),
        Column("action", "action"),
        Column("reason", "reason", "prose"),
        Column("figures", "figures", "prose", wide=True),
    ]
    body = [[Cell(d.target), Cell(d.action), Cell(d.reason), Cell(units.figures(d.numbers))] for d in found]
    return Table(columns, body, name=name, tools=len(body) > 1, facet="action", what="decisions")


def training(history: Sequence[Mapping[str, Any]]) -> Section:
    """Loss and quality of each epoch."""
    metric = next((str(run["metric"]) for run in history if run["metric"]), "")
    points = [_point(run, number, epoch, metric) for number, run in enumerate(history, 1) for epoch in _thinned(run)]
    legend = [("accent", "training"), ("accent-2", "validation")]
    series = [("train_loss", "training loss", charts.ACCENT), ("loss", "validation loss", charts.ACCENT_2)]
    blocks: list[Block] = [
        Chart(
            "loss",
            {"loss": charts.curves(series, "loss", "number", best=True)},
            rows=points,
            label="Loss by epoch",
            legend=[*legend, ("dash", "kept")],
            half=bool(metric),
        )
    ]
    if metric:
        kind = "share" if metric in ("accuracy", "agreement") else "number"
        quality = charts.curves([("quality", metric, charts.ACCENT_2)], metric, kind, best=True)
        blocks.append(
            Chart(
                "quality",
                {"quality": quality},
                rows=points,
                label=f"{metric} by epoch",
                legend=[("accent-2", f"validation {metric}"), ("dash", "kept")],
                half=True,
            )
        )
    facts: list[tuple[str, str, bool]] = []
    for number, run in enumerate(history, 1):
        head = f"training {number}: " if len(history) > 1 else ""
        seconds = sum(epoch["seconds"] for epoch in run["epochs"])
        facts.append(
            (
                f"{head}loss",
                f"{run['loss']}, learning rate {run['rate']:g}, batches of {run['batch']} on {run['device']}",
                False,
            )
        )
        samples = f"{run['samples'][0]} to train, {run['samples'][1]} to validate"
        kept = f"{run['stopped']}; weights of epoch {run['best']} were kept"
        facts += [("samples", samples, False), ("end", f"{kept}; {seconds:.1f} s", False)]
        facts += [("note", str(note), False) for note in run["notes"]]
    return Section("training", "Training", [*blocks, Facts(facts)])


def _thinned(run: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """As many epochs as a curve can show, and the one that was kept."""
    epochs = run["epochs"]
    step = -(-len(epochs) // _EPOCHS) if epochs else 1
    best = next((index for index, epoch in enumerate(epochs) if epoch["number"] == run["best"]), 0)
    return [epoch for index, epoch in enumerate(epochs) if index % step == 0 or index == best]


def _point(run: Mapping[str, Any], number: int, epoch: Mapping[str, Any], metric: str) -> dict[str, Any]:
    shown = units.metric(metric, epoch["quality"]) if metric else "-"
    return {
        "run": number,
        "epoch": epoch["number"],
        "train_loss": epoch["train_loss"],
        "train_loss_text": units.metric("loss", epoch["train_loss"]),
        "loss": epoch["loss"],
        "loss_text": units.metric("loss", epoch["loss"]),
        "quality": epoch["quality"],
        "quality_text": shown,
        "best": epoch["number"] == run["best"],
    }
