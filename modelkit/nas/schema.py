"""The JSON Schema of a space: that of an architecture, with choices and ranges wherever it has a value."""

from __future__ import annotations

from typing import Any, get_args

from modelkit.architectures.config import FAMILIES, CellOp

_CONDITION: dict[str, Any] = {"type": "object"}
_RANGE = {
    "type": "object",
    "properties": {
        "from": {"type": "number"},
        "to": {"type": "number"},
        "step": {"type": "number", "exclusiveMinimum": 0},
        "log": {"type": "boolean"},
        "values": {"type": "integer", "minimum": 2},
        "when": _CONDITION,
    },
    "required": ["from", "to"],
    "additionalProperties": False,
}


def space_schema() -> dict[str, Any]:
    """Return the schema of the key ``space``."""
    return {"anyOf": [*(_family(name) for name in FAMILIES), _around()]}


def _around() -> dict[str, Any]:
    """The schema of a space around a saved model that is written out."""

    def named(value: dict[str, Any]) -> dict[str, Any]:
        listed = {"type": "array", "items": value, "minItems": 1}
        return {"type": "object", "additionalProperties": {"anyOf": [value, listed]}}

    return {
        "type": "object",
        "properties": {
            "family": {"const": "derived"},
            "model": {"type": "string"},
            "drop": named({"type": "boolean"}),
            "widths": named({"type": "integer", "minimum": 1}),
            "bits": named({"enum": [4, 8, 32]}),
        },
        "required": ["family"],
        "additionalProperties": False,
    }


def _family(name: str) -> dict[str, Any]:
    whole = FAMILIES[name].model_json_schema()
    found = _open(whole, whole.get("$defs", {}))
    found["properties"]["family"] = {"const": name}
    found["required"] = ["family"]
    if name == "cell":
        found["properties"]["ops"] = {"type": "array", "items": {"enum": list(get_args(CellOp))}}
    return found


def _open(schema: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    """An object's schema with choices allowed for each value."""
    properties = {}
    for name, each in schema["properties"].items():
        properties[name] = each if name == "image" else _value(each, known)
    return {"type": "object", "properties": properties, "additionalProperties": False}


def _value(schema: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        return _open(known[schema["$ref"].rpartition("/")[2]], known)
    if schema.get("type") == "array":
        return {"type": "array", "items": _value(schema["items"], known)}
    if schema.get("type") == "object":
        return {"type": "object", "additionalProperties": _choices(schema["additionalProperties"])}
    return _choices(schema)


def _choices(schema: dict[str, Any]) -> dict[str, Any]:
    plain = {name: value for name, value in schema.items() if name not in ("default", "title", "description")}
    listed = {"type": "array", "items": plain, "minItems": 1}
    conditional = {
        "type": "object",
        "properties": {"choices": listed, "when": _CONDITION},
        "required": ["choices"],
        "additionalProperties": False,
    }
    found = {"anyOf": [plain, listed, _RANGE, conditional]}
    return {**found, "description": schema["description"]} if "description" in schema else found
