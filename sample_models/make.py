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


def folder(out: Path, shipped: bool) -> Path:
    """Where a model belongs: `out` itself, or the folder that git ignores."""
    return out if shipped else out / "made"


def weights_of(name: str, out: Path) -> Path:
    """Where the trained weights stay, from which the twins are exported again."""
    return out / "made" / "weights" / f"{name}.pt"


def make_sample(name: str, out: Path, reuse: bool) -> dict[str, object]:
    """Train (with `reuse`, only if no trained weights are there), export, measure and save one sample.

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
    weights = weights_of(name, out)
    train.seed_everything(0)
    net = sample.net()
    if reuse and weights.exists():
        net.load_state_dict(torch.load(weights, weights_only=True))
        net.eval()
    else:
        sample.fit(net, lambda line: print(f"{name}: {line}", file=sys.stderr, flush=True))
        weights.parent.mkdir(parents=True, exist_ok=True)
        torch.save(net.state_dict(), weights)
    data = sample.ship()
    target = folder(out, sample.shipped) / f"{name}.onnx"
    export.export(net, data.eval.x[:2], target, input_name=sample.input_name, legacy=sample.legacy)
    for kind, split in (("calib", data.calib), ("eval", data.eval)):
        save_npz(target.with_name(f"{name}.{kind}.npz"), {sample.input_name: split.x, "labels": split.y})
    right = export.run(target, data.test.x).argmax(1) == data.test.y
    places = {row.tobytes(): i for i, row in enumerate(data.test.x)}
    shipped = [places[row.tobytes()] for row in data.eval.x]
    floats = [item for item in onnx.load(target).graph.initializer if item.data_type == onnx.TensorProto.FLOAT]
    return {
        "file": target.relative_to(out).as_posix(),
        "task": sample.task,
        "data": sample.data,
        "licence": sample.licence,
        "input": sample.input_name,
        "input_shape": list(data.eval.x.shape[1:]),
        "classes": list(data.classes),
        "parameters": sum(int(np.prod(item.dims)) for item in floats),
        "bytes": target.stat().st_size,
        "shipped": sample.shipped,
        "calib_samples": len(data.calib.y),
        "eval_samples": len(data.eval.y),
        "eval_accuracy": round(float(right[shipped].mean()), 6),
        "test_samples": len(data.test.y),
        "test_accuracy": round(float(right.mean()), 6),
    }


def update(path: Path, entries: dict[str, dict[str, object]], order: list[str]) -> None:
    """Put new entries into a JSON file beside the old ones, in a fixed order."""
    known = json.loads(path.read_text()) if path.exists() else {}
    known.update(entries)
    known = {name: known[name] for name in order if name in known}
    path.write_text(json.dumps(known, indent=1, ensure_ascii=False) + "\n")


def write_tables(out: Path) -> None:
    """Replace the two tables of README.md, if there is one, by what samples.json and twins.json say."""
    readme, samples, twins = out / "README.md", out / "samples.json", out / "twins.json"
    if not readme.exists():
        return
    lines = [
        "| model | task | data | licence of the data | parameters | bytes | accuracy (test samples) |",
        "| --- | --- | --- | --- | ---: | ---: | ---: |",
    ]
    for entry in json.loads(samples.read_text()).values() if samples.exists() else ():
        lines.append(
            f"| `{entry['file']}` | {entry['task']} | {entry['data']} | {entry['licence']} "
            f"| {entry['parameters']:,} | {entry['bytes']:,} "
            f"| {entry['test_accuracy']:.2%} ({entry['test_samples']:,}) |"
        )
    text = _between("samples", lines, readme.read_text())
    lines = ["| twin | of | what is awkward | opset | bytes |", "| --- | --- | --- | ---: | ---: |"]
    for name, entry in json.loads(twins.read_text()).items() if twins.exists() else ():
        lines.append(f"| `{name}` | `{entry['parent']}` | {entry['what']} | {entry['opset']} | {entry['bytes']:,} |")
    readme.write_text(_between("twins", lines, text))


def _between(name: str, lines: list[str], text: str) -> str:
    """Put `lines` between the two markers that carry `name`."""
    begin, end = f"<!-- {name}: written by make.py -->\n", f"<!-- end of {name} -->"
    head, rest = text.split(begin)
    return f"{head}{begin}" + "\n".join(lines) + f"\n{end}{rest.split(end)[1]}"


def main() -> None:
    """Read the command line and make what it names."""
    parser = argparse.ArgumentParser(description="Train and export the sample models.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{', '.join(NAMES)} or twins (default: all)")
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write to (default: sample_models)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="samples made side by side")
    parser.add_argument("--reuse", action="store_true", help="train only where made/weights has no weights")
    options = parser.parse_args()
    unknown = sorted(set(options.names) - {*NAMES, "twins"})
    if unknown:
        parser.error(f"unknown name {unknown[0]}; known: {', '.join((*NAMES, 'twins'))}")
    out = options.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    wanted = [name for name in NAMES if name in options.names or not options.names]
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(max(1, options.jobs), mp_context=context) as pool:
        futures = {pool.submit(make_sample, name, out, options.reuse): name for name in wanted}
        for future in as_completed(futures):
            update(out / "samples.json", {futures[future]: future.result()}, sorted(NAMES))
    if "twins" in options.names or not options.names:
        import twins

        update(out / "twins.json", twins.make_all(out), list(twins.TWINS))
    write_tables(out)


if __name__ == "__main__":
    main()
