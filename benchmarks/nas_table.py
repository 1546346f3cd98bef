"""Makes benchmarks/nas_table.npz: every architecture of a cell space, trained on the digits with three seeds.

    python benchmarks/nas_table.py              # all that is missing; goes on where it was ended
    python benchmarks/nas_table.py --seconds 90 # for so long

The space has 512 architectures: cells of four nodes, as NAS-Bench-201 has them, with two to four operations on each
of the six edges. Each is trained by modelkit's own loop for nine epochs on 320 of scikit-learn's digits, at half
their resolution. The table holds the accuracy on 300 validation images after each epoch, that on 1177 test images in
the end, the median latency of one image in onnxruntime, multiply-accumulates and parameters.
"""

from __future__ import annotations

import argparse
import itertools
import json
import time
from pathlib import Path

import numpy as np

EDGES = {
    "0-1": ["skip", "conv1x1", "conv3x3", "avg_pool"],
    "1-2": ["skip", "conv1x1", "conv3x3", "avg_pool"],
    "2-3": ["skip", "conv1x1", "conv3x3", "max_pool"],
    "0-2": ["none", "conv3x3"],
    "1-3": ["none", "conv1x1"],
    "0-3": ["none", "skip"],
}
SEEDS, EPOCHS, SIDE = 3, 9, 4
TABLE = Path(__file__).with_name("nas_table.npz")
_HALF_DONE = Path(__file__).with_name("nas_table.jsonl")


def cells() -> list[dict[str, str]]:
    """The edges of all architectures, in the order of the table."""
    return [dict(zip(EDGES, ops, strict=True)) for ops in itertools.product(*EDGES.values())]


def architecture(edges: dict[str, str]) -> dict[str, object]:
    """An architecture as its YAML has it."""
    return {"family": "cell", "nodes": 4, "width": 12, "stages": 1, "edges": edges}


def main() -> None:
    """Train what is missing, and write the table when nothing is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1e9)
    until = time.monotonic() + parser.parse_args().seconds
    done = {}
    if _HALF_DONE.exists():
        done = {(each["cell"], each["seed"]): each for each in map(json.loads, _HALF_DONE.read_text().splitlines())}
    train = _trainer()
    with _HALF_DONE.open("a") as file:
        for seed, number in itertools.product(range(SEEDS), range(len(cells()))):
            if (number, seed) not in done:
                if time.monotonic() > until:
                    print(len(done), "of", SEEDS * len(cells()))
                    return
                found = done[number, seed] = {"cell": number, "seed": seed, **train(cells()[number], seed)}
                file.write(json.dumps(found) + "\n")
                file.flush()
    _write(done)


def _trainer():
    from sklearn.datasets import load_digits

    from modelkit.architectures.build import build, parse
    from modelkit.architectures.signature import Signature
    from modelkit.data.arrays import from_arrays
    from modelkit.graph.run import session_of
    from modelkit.runtime import TensorSpec
    from modelkit.train.config import TrainOptions
    from modelkit.train.finetune import finetune

    digits = load_digits()
    halved = digits.images.reshape(-1, 1, SIDE, 2, SIDE, 2).mean(axis=(3, 5))
    images, labels = (halved / 8 - 1).astype(np.float32), digits.target
    order = np.random.default_rng(0).permutation(len(images))
    specs = [TensorSpec("input", np.dtype("float32"), ("batch", 1, SIDE, SIDE))]
    parts = [order[:320], order[320:620], order[620:]]
    training, validation = (from_arrays({"input": images[p]}, specs, labels=labels[p]) for p in parts[:2])
    options = TrainOptions(epochs=EPOCHS, batch=32, learning_rate=0.05, patience=0, threads=1)

    def train(edges: dict[str, str], seed: int) -> dict[str, object]:
        model = build(parse(architecture(edges), "cell"), Signature((1, SIDE, SIDE), 10), seed=seed)
        _, history = finetune(model, training, options, validation=validation, seed=seed)
        given = session_of(model).run(None, {"input": images[parts[2]]})[0]
        curve = [epoch.quality for epoch in history.epochs[1:]]
        return {"validation": curve, "test": float((given.argmax(1) == labels[parts[2]]).mean())}

    return train


def _write(done: dict[tuple[int, int], dict]) -> None:
    from modelkit.architectures.build import build, cost, parse
    from modelkit.architectures.signature import Signature
    from modelkit.graph.run import session_of

    signature, count = Signature((1, SIDE, SIDE), 10), len(cells())
    validation = np.zeros((count, SEEDS, EPOCHS), np.float32)
    test = np.zeros((count, SEEDS), np.float32)
    for (cell, seed), each in done.items():
        curve = each["validation"] + [each["validation"][-1]] * EPOCHS
        validation[cell, seed], test[cell, seed] = curve[:EPOCHS], each["test"]
    figures = []
    image = np.zeros((1, 1, SIDE, SIDE), np.float32)
    for edges in cells():
        made = parse(architecture(edges), "cell")
        session, times = session_of(build(made, signature)), []
        for _ in range(200):
            began = time.perf_counter_ns()
            session.run(None, {"input": image})
            times.append(time.perf_counter_ns() - began)
        taken = cost(made, signature)
        figures.append([float(np.median(times)) / 1e6, taken.macs, taken.parameters])
    latency, macs, parameters = np.array(figures).T
    np.savez_compressed(
        TABLE,
        validation=np.round(validation * 1e4).astype(np.uint16),
        test=np.round(test * 1e4).astype(np.uint16),
        latency_us=np.round(latency * 1e3).astype(np.uint16),
        macs=macs.astype(np.uint32),
        parameters=parameters.astype(np.uint32),
    )
    print(f"{TABLE.name}: {TABLE.stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
