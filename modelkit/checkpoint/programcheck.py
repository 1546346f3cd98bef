"""Decides whether the program text in a ``.pt2`` file is one of plain tensor operators, which cannot run code."""

from __future__ import annotations

import json
import re
from typing import Any

from modelkit.files import shown

_NAME = re.compile(r"[A-Za-z0-9_.\-]{0,400}", re.ASCII)
_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,400}", re.ASCII)
_PLAIN_OPERATOR = re.compile(r"torch\.ops\.(aten|prims)\.([A-Za-z0-9_]+)\.[A-Za-z0-9_]+", re.ASCII)
_CONTROL = re.compile(r"torch\.ops\.higher_order\.(cond|wrap_with_set_grad_enabled|wrap_with_autocast)", re.ASCII)
_SCALAR = re.compile(
    r"_operator\.(add|sub|mul|truediv|floordiv|mod|pow|neg|pos|eq|ne|lt|le|gt|ge|and_|or_|getitem|lshift|rshift)"
    r"|math\.(ceil|floor|trunc|sqrt)"
    r"|torch\.sym_(int|float|ite|max|min|not|sqrt|sum|fresh_size)",
    re.ASCII,
)
# These reach files; every other ATen operator only computes with tensors.
_FILES = frozenset({"from_file", "save", "load", "_save", "read"})
# Sizes are written as sympy calls, "Mul(Integer(2), Symbol('s0', integer=True))", and evaluated as Python. With these
# words and marks only, nothing but arithmetic can be said. Powers and shifts are left out: they grow without end.
_TOKEN = re.compile(
    r"\s*([A-Za-z]\w{0,30}|'(?:(?:s|u|zuf|zf)\d{1,9}|-?\d{1,20}(?:\.\d{0,20})?(?:e[+-]?\d{1,2})?)'|\d{1,19}|[-(),=])",
    re.ASCII,
)
_WORDS = frozenset(
    {
        *("Symbol", "Integer", "Float", "Rational", "Add", "Mul", "Max", "Min", "Abs", "Mod", "PythonMod"),
        *("FloorDiv", "CleanDiv", "CeilDiv", "CeilToInt", "FloorToInt", "TruncToInt", "RoundToInt", "ToFloat"),
        *("IntTrueDiv", "FloatTrueDiv", "ModularIndexing", "Where", "Identity"),
        *("Eq", "Ne", "Lt", "Le", "Gt", "Ge", "And", "Or", "Not", "Equality", "Unequality"),
        *("StrictLessThan", "LessThan", "StrictGreaterThan", "GreaterThan"),
        *("True", "False", "true", "false", "positive", "integer", "nonnegative", "real", "precision"),
    }
)
_LONGEST_SIZE = 2000
# What ATen operators take as text: ways of padding, rounding, reducing, interpolating, and an einsum.
_MODE = re.compile(r"[a-z_]{0,24}|[A-Za-z,.]{0,100}->[A-Za-z.]{0,30}", re.ASCII)
_MESSAGES = frozenset({"assert_msg", "msg", "message"})
_TREES = frozenset({None, "builtins.tuple", "builtins.list", "builtins.dict", "collections.OrderedDict"})
_DEEPEST = 60


class RunsCodeError(Exception):
    """Loading the file could run code; says what part of it."""


def check(program: Any) -> None:
    """Check a deserialised ``models/model.json``, and drop what is not needed of it, in place.

    Dropped are stack traces and other notes on nodes, and guards (Python source that checks inputs). Devices become
    the CPU.

    Raises:
        RunsCodeError: An operator, a size, a name or a structure is none that a program of tensor operators needs.
    """
    try:
        module = program["graph_module"]
        module["metadata"] = {}
        program["guards_code"] = []
        if module.get("treespec_namedtuple_fields"):
            raise RunsCodeError("it returns a class of its own")
    except (KeyError, TypeError, AttributeError) as error:
        raise RunsCodeError("its program has another form than torch writes") from error
    _walk(program, "", 0)


def check_names(value: Any) -> None:
    """Check that all keys and texts in plain JSON are names.

    Raises:
        RunsCodeError: One is not.
    """
    _walk(value, "", 0)


def _walk(value: Any, key: str, depth: int) -> None:
    if depth > _DEEPEST:
        raise RunsCodeError("it is nested too deeply")
    if isinstance(value, dict):
        _mapping(value, depth)
    elif isinstance(value, list):
        for item in value:
            _walk(item, key, depth + 1)
    elif isinstance(value, str):
        _text(value, key)


def _mapping(value: dict[str, Any], depth: int) -> None:
    if isinstance(value.get("target"), str) and "inputs" in value:
        value["metadata"] = {}
    if set(value) == {"type", "index"}:
        value["type"], value["index"] = "cpu", None
    for kind in ("as_custom_obj", "as_operator", "custom_obj", "class_fqn"):
        if value.get(kind) is not None:
            raise RunsCodeError("it uses an object that is no tensor")
    if value.get("custom_obj_values"):
        raise RunsCodeError("it uses an object that is no tensor")
    name = value.get("name")
    message = isinstance(name, str) and name in _MESSAGES
    for key, item in value.items():
        if not _NAME.fullmatch(key):
            raise RunsCodeError(f"the name '{shown(key)[:80]}'")
        if message and key == "arg" and isinstance(item, dict) and isinstance(item.get("as_string"), str):
            item["as_string"] = ""  # the text of an assertion
        _walk(item, key, depth + 1)


def _text(value: str, key: str) -> None:
    if key == "target":
        _operator(value)
    elif key == "expr_str":
        _expression(value)
    elif key in ("in_spec", "out_spec"):
        _tree(value)
    elif key in ("as_string", "as_strings"):
        if not _MODE.fullmatch(value):
            raise RunsCodeError(f"an operator is given the text '{shown(value)[:80]}'")
    elif key in ("name", "as_name", "user_input_name", "forward_arg_names"):
        if value and not _IDENTIFIER.fullmatch(value):
            raise RunsCodeError(f"the name '{shown(value)[:80]}'")
    elif key == "torch_version":
        if not re.fullmatch(r"[\w.+\-]{0,80}", value, re.ASCII):
            raise RunsCodeError("its torch version is none")
    elif not _NAME.fullmatch(value):
        raise RunsCodeError(f"the name '{shown(value)[:80]}'")


def _operator(target: str) -> None:
    found = _PLAIN_OPERATOR.fullmatch(target)
    if found and found.group(2) not in _FILES:
        return
    if not (_CONTROL.fullmatch(target) or _SCALAR.fullmatch(target)):
        raise RunsCodeError(f"it calls '{shown(target)[:80]}', which is no operator of torch itself")


def _expression(text: str) -> None:
    position = 0
    while position < len(text):
        token = _TOKEN.match(text, position)
        known = token is not None and (not token.group(1)[0].isalpha() or token.group(1) in _WORDS)
        if token is None or not known or len(text) > _LONGEST_SIZE:
            raise RunsCodeError(f"the size '{shown(text)[:80]}'")
        position = token.end()


def _tree(text: str) -> None:
    try:
        found = json.loads(text)
        version, tree = found
    except (ValueError, TypeError, RecursionError) as error:
        raise RunsCodeError("its inputs have a structure that is damaged") from error
    if version != 1:
        raise RunsCodeError("its inputs have a structure of an unknown form")
    stack = [tree]
    while stack:
        node = stack.pop()
        if not isinstance(node, dict) or node.get("type") not in _TREES:
            raise RunsCodeError(f"its inputs or outputs use the class '{shown(str(node))[:80]}'")
        context = node.get("context")
        if context is not None:
            keys = _loads(context)
            plain = isinstance(keys, list) and all(isinstance(k, str) and _IDENTIFIER.fullmatch(k) for k in keys)
            if keys is not None and not plain:
                raise RunsCodeError("its inputs or outputs have names that are none")
        children = node.get("children_spec")
        if not isinstance(children, list):
            raise RunsCodeError("its inputs have a structure that is damaged")
        stack.extend(children)


def _loads(context: Any) -> Any:
    try:
        return json.loads(context)
    except (ValueError, TypeError, RecursionError) as error:
        raise RunsCodeError("its inputs have a structure that is damaged") from error
