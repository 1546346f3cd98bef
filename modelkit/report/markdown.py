"""The report as a Markdown page, for pull requests and for the file beside the artifact."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from modelkit.decision import Decision
from modelkit.report import beside, rows, steps, units
from modelkit.report.report import Report
from modelkit.report.text import safe

# What begins markup, HTML, formulas and what GitHub makes links and mentions of; nothing in a page needs an entity
# that does not have to be one.
_MARKUP = re.compile(
    r"[\\`*<>|~$]|(?<![0-9A-Za-z])_|_(?![0-9A-Za-z])|\](?=[(\[:])|&(?=#?\w+;)|[@#](?=\w)|(?<=://)|(?<=www)(?=\.)"
)


def render(report: Report) -> str:
    """Return the page; names from the model are shown as they are, never as markup."""
    lines = [*_figures(report), "", "## Decisions", "", *_decisions(report.decisions)]
    if report.normalisation:
        lines += ["", "## Clean-up before", "", *_decisions(report.normalisation)]
    return "\n".join([*lines, *_provenance(report)]) + "\n"


def brief(report: Report) -> str:
    """Return the part of the page that has the figures, without what was done to each layer."""
    return "\n".join(_figures(report)) + "\n"


def _figures(report: Report) -> list[str]:
    lines = [f"# {code(report.before.file['name'])}: {report.command}, {escape(report.method)}", ""]
    if report.status != "done":
        lines += [
            f"**{report.status}**: no artifact was written; the figures are those of the best found.",
            "",
        ]
    lines += table(["", "original", "artifact", "change"], rows.before_after(report))
    if report.beside:
        head, body = beside.table(report)
        lines += ["", f"## {beside.TITLE}", "", *table(head, body), "", escape(beside.verdict(report))]
    lines += _steps(report) if report.steps else _tried(report)
    if report.gates:
        gates = [(g.name, g.asked, g.got, g.verdict) for g in report.gates]
        lines += ["", "## Budget", "", *table(["what", "asked", "got", ""], gates)]
    if report.audit:
        lines += ["", "## Kernels", "", f"{rows.kernels(report.audit)}."]
        unfused = [(e["node"], e["op"], e["reason"]) for e in report.audit["unfused"]]
        if unfused:
            lines += ["", *table(["layer", "operator", "why it runs in float"], unfused, names=2)]
    lines += ["", "## Data", "", *_data(report.data)]
    for step in report.steps:
        lines += _data(
            {f"step {step['number']}, {role}": facts for role, facts in step["data"].items() if role != "test"}
        )
    return lines + (["", *[f"- note: {escape(note)}" for note in report.notes]] if report.notes else [])


def _tried(report: Report) -> list[str]:
    lines = ["", f"## {rows.tried_title(report)}", "", *table(*rows.tried(report))]
    reasons = [f"- {escape(e['name'])}: {escape(e['reason'])}" for e in report.candidates if e["reason"]]
    return [*lines, "", *reasons] if reasons else lines


def _steps(report: Report) -> list[str]:
    lines = ["", f"## {steps.TITLE}", "", *table(*steps.table(report))]
    reasons = [f"- {escape(name)}: {escape(reason)}" for name, reason in steps.reasons(report.steps)]
    return [*lines, "", *reasons] if reasons else lines


def escape(text: object) -> str:
    """Any text on one line, so that Markdown shows it as it is, inside a table cell too."""
    # An entity means the character itself everywhere; a backslash would mean something else before a pipe.
    return _MARKUP.sub(lambda found: f"&#{ord(found[0])};" if found[0] else "&#8203;", safe(text))


def code(text: object) -> str:
    """A name as code: no part of it can be a link, a mention or an image."""
    cleaned = safe(text)
    if not cleaned.strip() or "|" in cleaned:  # no code span can hold these, or not within a table
        return escape(cleaned)
    longest = max((len(run) for run in re.findall(r"`+", cleaned)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if cleaned[0] in "` " or cleaned[-1] in "` " else ""
    return f"{fence}{pad}{cleaned}{pad}{fence}"


def table(head: Sequence[str], body: Iterable[Sequence[object]], *, names: int = 0) -> list[str]:
    """A table; its first ``names`` columns are names from the model."""
    lines = ["| " + " | ".join(escape(name) for name in head) + " |", "|" + " --- |" * len(head)]
    for row in body:
        cells = [code(cell) if index < names else escape(cell) for index, cell in enumerate(row)]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def _decisions(decisions: Sequence[Decision]) -> list[str]:
    if not decisions:
        return ["None."]
    body = [(d.target, d.action, d.reason, units.figures(d.numbers)) for d in decisions]
    return table(["target", "action", "reason", "figures"], body, names=1)


def _data(data: dict[str, object]) -> list[str]:
    lines = []
    for role, facts in data.items():
        if not isinstance(facts, dict):
            lines.append(f"- {escape(role)}: {escape(facts)}")
            continue
        source = "made-up inputs" if facts.get("synthetic") else code(facts.get("path") or facts.get("name"))
        labelled = ", labelled" if facts.get("labelled") else ""
        lines.append(
            f"- {escape(role)}: {facts.get('count')} samples of {source}{labelled}, "
            f"sha256 {code(facts.get('sha256'))}"
        )
        lines += [f"  - {escape(note)}" for note in facts.get("notes") or ()]
    return lines


def _provenance(report: Report) -> list[str]:
    before, after = report.before.file, report.after.file
    lines = ["", "## Provenance", ""]
    lines += [f"- original: {code(before['name'])} sha256 {code(before['sha256'])}"]
    if report.status == "done":
        lines += [f"- artifact: {code(after['name'])} sha256 {code(after['sha256'])}"]
    lines += [f"- after {escape(name)}: sha256 {code(digest)}" for name, digest in steps.hashes(report.steps)]
    lines += [f"- seed: {report.seed}"]
    lines += [
        f"- {escape(key.replace('_', ' '))}: {escape(rows.plain(value))}" for key, value in report.machine.items()
    ]
    if not report.steps:
        return [*lines, "", "## Options", "", *_options(report.config, report.origins)]
    for step in report.steps:
        lines += ["", f"## Options of step {step['number']}: {escape(step['command'])}", ""]
        lines += _options(step["config"], step["origins"])
    return lines


def _options(config: dict[str, object], origins: dict[str, str]) -> list[str]:
    options = [(key, rows.plain(value), origins.get(key, "default")) for key, value in rows.flat(config)]
    return table(["option", "value", "from"], options)
