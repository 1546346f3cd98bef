"""Make the sample models: `python sample_models/make.py [NAME ...] [--out DIR] [--jobs N]`.

Needs the `samples` extra and Debian's dataset-fashion-mnist. Each sample trains on one thread in its
own process from fixed seeds, so a second run on the same machine writes the same bytes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path

HERE = Path(__file__).resolve().parent
NAMES = ("fashion_cnn", "resnet18", "language_transformer", "language_gru", "article_cnn", "digits_mlp")
"""The slowest first, so that no process is left alone at the end."""
BEGIN, END = "<!-- written by make.py from samples.json -->", "<!-- end -->"


def folder(out: Path, shipped: bool) -> Path:
    """Where a model belongs: `out` itself, or the folder that git ignores."""
    return out if shipped else out / "made"


def weights_of(name: str, out: Path) -> Path:
    """Where the trained weights stay, from which the twins are exported again."""
    return out / "made" / "weights" / f"{name}.pt"


def make_sample(name: str, out: Path) -> dict[str, object]:
    """Train, export, measure and save one sample.

    Returns:
        The entry for `samples.json`.
    """
    import export
    import numpy as np
    import onnx
    import recipes
    import torch
    import train
    from data import save_npz

    sample = recipes.SAMPLES[name]
    train.seed_everything(0)
    trained = sample.build(sample.net(), lambda line: print(f"{name}: {line}", file=sys.stderr, flush=True))
    weights = weights_of(name, out)
    weights.parent.mkdir(parents=True, exist_ok=True)
    torch.save(trained.net.state_dict(), weights)
    target = folder(out, sample.shipped) / f"{name}.onnx"
    export.export(trained.net, trained.eval.x[:2], target, input_name=sample.input_name, legacy=sample.legacy)
    for kind, split in (("calib", trained.calib), ("eval", trained.eval)):
        save_npz(target.with_name(f"{name}.{kind}.npz"), {sample.input_name: split.x, "labels": split.y})
    logits = export.run(target, trained.test.x)
    known = {row.tobytes(): i for i, row in enumerate(trained.test.x)}
    rows = np.array([known[row.tobytes()] for row in trained.eval.x])
    right = logits.argmax(1) == trained.test.y
    graph = onnx.load(target).graph
    return {
        "file": target.relative_to(out).as_posix(),
        "task": sample.task,
        "data": sample.data,
        "licence": sample.licence,
        "input": sample.input_name,
        "input_shape": list(trained.eval.x.shape[1:]),
        "classes": list(trained.classes),
        "parameters": sum(
            int(np.prod(item.dims)) for item in graph.initializer if item.data_type == onnx.TensorProto.FLOAT
        ),
        "bytes": target.stat().st_size,
        "calib_samples": len(trained.calib.y),
        "eval_samples": len(trained.eval.y),
        "eval_accuracy": round(float(right[rows].mean()), 6),
        "test_samples": len(trained.test.y),
        "test_accuracy": round(float(right.mean()), 6),
    }


def update(
    path: Path, entries: dict[str, dict[str, object]], order: list[str]
) -> dict[str, dict[str, object]]:
    """Put new entries into a JSON file beside the old ones, in a fixed order, and return all."""
    known = json.loads(path.read_text()) if path.exists() else {}
    known.update(entries)
    known = {name: known[name] for name in order if name in known}
    path.write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n")
    return known


def write_table(readme: Path, entries: dict[str, dict[str, object]]) -> None:
    """Replace the table between the markers of README.md."""
    lines = [
        "| model | task | data | licence of the data | parameters | bytes | accuracy (test samples) |",
        "| --- | --- | --- | --- | ---: | ---: | ---: |",
    ]
    for entry in entries.values():
        lines.append(
            f"| `{entry['file']}` | {entry['task']} | {entry['data']} | {entry['licence']} "
            f"| {entry['parameters']:,} | {entry['bytes']:,} "
            f"| {entry['test_accuracy']:.2%} ({entry['test_samples']:,}) |"
        )
    head, rest = readme.read_text().split(BEGIN)
    tail = rest.split(END)[1]
    readme.write_text(f"{head}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{tail}")


def main() -> None:
    """Read the command line and make what it names."""
    parser = argparse.ArgumentParser(description="Train and export the sample models.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"{', '.join(NAMES)} or twins (default: all)"
    )
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write to (default: sample_models)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="samples made side by side")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - {*NAMES, "twins"})
    if unknown:
        parser.error(f"unknown name {unknown[0]}; known: {', '.join((*NAMES, 'twins'))}")
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    wanted = [name for name in NAMES if name in options.names or not options.names]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max(1, options.jobs), mp_context=context) as pool:
        futures = {pool.submit(make_sample, name, out): name for name in wanted}
        for future in as_completed(futures):
            entries = update(out / "samples.json", {futures[future]: future.result()}, sorted(NAMES))
            if (out / "README.md").exists():
                write_table(out / "README.md", entries)
    if "twins" in options.names or not options.names:
        import twins

        update(out / "twins.json", twins.make_all(out), list(twins.TWINS))


if __name__ == "__main__":
    main()
