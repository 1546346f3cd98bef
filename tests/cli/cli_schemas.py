"""JSON Schemas of what --json prints, written down by hand: what others may rely on."""

from __future__ import annotations

from typing import Any

Schema = dict[str, Any]


def record(**fields: Schema) -> Schema:
    """An object with exactly these keys; those whose schema says ``optional`` may be missing."""
    optional = {name for name, schema in fields.items() if schema.get("optional")}
    properties = {name: {k: v for k, v in schema.items() if k != "optional"} for name, schema in fields.items()}
    required = [name for name in fields if name not in optional]
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def listed(items: Schema) -> Schema:
    return {"type": "array", "items": items}


def maybe(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def mapping(values: Schema) -> Schema:
    return {"type": "object", "additionalProperties": values}


TEXT: Schema = {"type": "string"}
COUNT: Schema = {"type": "integer", "minimum": 0}
NUMBER: Schema = {"type": "number"}
POSITIVE: Schema = {"type": "number", "exclusiveMinimum": 0}
SHARE: Schema = {"type": "number", "minimum": 0, "maximum": 1}
FLAG: Schema = {"type": "boolean"}
HASH: Schema = {"type": "string", "pattern": "^[0-9a-f]{64}$"}

FILE = record(name=TEXT, bytes=COUNT, sha256=HASH, external={**mapping(HASH), "optional": True})
SIZE = record(
    file_bytes=COUNT,
    deflated_bytes=COUNT,
    parameters=COUNT,
    nonzero_parameters=COUNT,
    external_bytes=COUNT,
    macs={**maybe(COUNT), "optional": True},
)
SPEEDUP = record(value=POSITIVE, low=POSITIVE, high=POSITIVE)
LATENCY = record(median_ms=POSITIVE, p95_ms=POSITIVE, min_ms=POSITIVE, runs=COUNT)
TIMED = record(median_ms=POSITIVE, p95_ms=POSITIVE, min_ms=POSITIVE, runs=COUNT, speedup=SPEEDUP)
QUALITY = mapping(maybe(NUMBER))
FIDELITY = record(
    top1_agreement={**SHARE, "optional": True},
    sqnr_db=maybe(NUMBER),
    exact=FLAG,
    max_error=NUMBER,
    mean_error=NUMBER,
    kl={**maybe(NUMBER), "optional": True},
    non_finite=COUNT,
    finite_share=SHARE,
)
DECISION = record(target=TEXT, action=TEXT, reason=TEXT, numbers=mapping({"type": ["number", "string", "null"]}))
DATASET = record(
    name=TEXT,
    path=maybe(TEXT),
    format=TEXT,
    count=COUNT,
    labelled=FLAG,
    sha256=HASH,
    synthetic=FLAG,
    notes=listed(TEXT),
)
DATA = record(calibration={**DATASET, "optional": True}, selection=DATASET, test={**DATASET, "optional": True})
MACHINE = record(
    cpu=TEXT,
    cores=COUNT,
    architecture=TEXT,
    features=listed(TEXT),
    int8=TEXT,
    os=TEXT,
    python=TEXT,
    versions=mapping(TEXT),
)
LAYER = record(shape=listed(COUNT), dtype=TEXT, bytes=COUNT, parameters=COUNT, macs=maybe(COUNT))
EPOCH = record(
    number=COUNT,
    rate=NUMBER,
    train_loss=maybe(NUMBER),
    loss=maybe(NUMBER),
    quality=maybe(NUMBER),
    seconds=NUMBER,
)
HISTORY = record(
    epochs=listed(EPOCH),
    best=COUNT,
    rate=NUMBER,
    trials=listed(listed(maybe(NUMBER))),
    batch=COUNT,
    steps=COUNT,
    task=TEXT,
    metric=TEXT,
    loss=TEXT,
    stopped=TEXT,
    device=TEXT,
    samples=listed(COUNT),
    notes=listed(TEXT),
)
SIDE = record(file=FILE, size=SIZE, latency=maybe(LATENCY), quality=maybe(QUALITY))

GATES = listed(record(name=TEXT, asked=TEXT, got=TEXT, ok=FLAG, option=TEXT, by=TEXT))
CANDIDATES = listed(
    record(
        name=TEXT,
        status={"enum": ["chosen", "tried", "rejected", "failed"]},
        reason=TEXT,
        size={"anyOf": [SIZE, {"type": "object", "maxProperties": 0}]},
        fidelity=maybe(FIDELITY),
        quality=maybe(QUALITY),
        latency=maybe(TIMED),
    )
)
AUDIT = maybe(
    record(
        integer=COUNT,
        float=COUNT,
        conversions=COUNT,
        kernels=mapping(COUNT),
        unfused=listed(record(node=TEXT, op=TEXT, reason=TEXT)),
    )
)

REPORT = record(
    schema={"const": "modelkit.report/1"},
    command=TEXT,
    status={"enum": ["done", "budget not met"]},
    before=SIDE,
    after=SIDE,
    method=TEXT,
    speedup=maybe(SPEEDUP),
    fidelity=maybe(FIDELITY),
    gates=GATES,
    candidates=CANDIDATES,
    selection_quality=maybe(QUALITY),
    decisions=listed(DECISION),
    layers=listed(record(name=TEXT, op=TEXT, weights=listed(TEXT), before=maybe(LAYER), after=maybe(LAYER))),
    history=listed(HISTORY),
    normalisation=listed(DECISION),
    audit=AUDIT,
    data=DATA,
    notes=listed(TEXT),
    config={"type": "object"},
    origins=mapping(TEXT),
    seed=COUNT,
    machine=MACHINE,
    size_ratio=POSITIVE,
)

STEP = record(
    number=COUNT,
    command=TEXT,
    status={"enum": ["done", "skipped", "budget not met"]},
    reason=TEXT,
    method=maybe(TEXT),
    seconds=NUMBER,
    cached=FLAG,
    key=maybe(HASH),
    input_sha256=HASH,
    artifact=maybe(record(bytes=COUNT, sha256=HASH)),
    size=maybe(SIZE),
    quality=maybe(QUALITY),
    fidelity=maybe(FIDELITY),
    latency=maybe(LATENCY),
    speedup=maybe(SPEEDUP),
    gates=GATES,
    candidates=CANDIDATES,
    audit=AUDIT,
    data={"anyOf": [DATA, {"type": "object", "maxProperties": 0}]},
    notes=listed(TEXT),
    config={"type": "object"},
    origins=mapping(TEXT),
)
# A recipe judges with what nothing was chosen by, and says of each step what that worked with.
RECIPE: Schema = {
    **REPORT,
    "properties": {**REPORT["properties"], "data": record(test=DATASET), "steps": listed(STEP)},
    "required": [*REPORT["required"], "steps"],
}

PLAN = record(
    schema={"const": "modelkit.plan/1"},
    model=TEXT,
    output=TEXT,
    original_bytes=COUNT,
    candidates=listed(record(name=TEXT, bytes=maybe(COUNT), reason=TEXT)),
    decisions=listed(DECISION),
    data=DATA,
    config={"type": "object"},
    origins=mapping(TEXT),
)

_PLANNED = record(
    number=COUNT,
    command=TEXT,
    cached=FLAG,
    reason=TEXT,
    candidates=listed(record(name=TEXT, bytes=maybe(COUNT), reason=TEXT)),
    data={"anyOf": [DATA, {"type": "object", "maxProperties": 0}]},
    config={"type": "object"},
    origins=mapping(TEXT),
)
RECIPE_PLAN: Schema = {
    **PLAN,
    "properties": {**PLAN["properties"], "data": record(test=DATASET), "steps": listed(_PLANNED)},
    "required": [*PLAN["required"], "steps"],
}

_SHAPE = maybe(listed({"type": ["integer", "string"]}))
_SIZES = listed(COUNT)

INSPECTION = record(
    schema={"const": "modelkit.inspection/1"},
    file=FILE,
    size=SIZE,
    facts=record(
        inputs=listed(record(name=TEXT, dtype=TEXT, shape=_SHAPE)),
        outputs=listed(record(name=TEXT, dtype=TEXT, shape=_SHAPE)),
        opset=COUNT,
        domains=mapping(COUNT),
        ir_version=COUNT,
        producer=TEXT,
        op_counts=mapping(COUNT),
        parameters=COUNT,
        parameter_bytes=COUNT,
        macs=maybe(COUNT),
        macs_unknown=listed(TEXT),
        layers=listed(
            record(
                name=TEXT,
                op=TEXT,
                input_shapes=listed(maybe(_SIZES)),
                output_shape=maybe(_SIZES),
                weights=listed(TEXT),
                weight_shapes=listed(_SIZES),
                parameters=COUNT,
                bytes=COUNT,
                macs=maybe(COUNT),
                weight_dtype=TEXT,
            )
        ),
        quantized=record(scheme=TEXT, counts=mapping(COUNT), weights=COUNT),
        blockers=listed(DECISION),
    ),
    notes=listed(TEXT),
)

COMPARISON = record(
    schema={"const": "modelkit.comparison/1"},
    status={"enum": ["done", "budget not met"]},
    models=listed(
        record(
            name=TEXT,
            file=FILE,
            size=SIZE,
            quality=maybe(QUALITY),
            fidelity=maybe(FIDELITY),
            latency=LATENCY,
            speedup=maybe(SPEEDUP),
            gates=GATES,
        )
    ),
    data=DATASET,
    notes=listed(TEXT),
    seed=COUNT,
    machine=MACHINE,
    config={"type": "object"},
    origins=mapping(TEXT),
)
