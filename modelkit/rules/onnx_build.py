"""A rule set as an ONNX model: stock operators, doubles throughout, one input for each column.

Inputs: for each column ``[N]``, text as string ("" is missing), everything else as double (NaN is missing; dates as
days, datetimes as seconds, booleans as 0 and 1). Outputs: ``label`` or ``prediction``, ``scores``, ``rule_id``, as
in `modelkit.rules.evaluate.Evaluation`. The rule set itself is kept as YAML in the metadata.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from modelkit.errors import ModelError, UsageError
from modelkit.files import Kind, require_file, shown, sniff
from modelkit.rules.document import SCHEMA, to_yaml
from modelkit.rules.load import from_yaml, load
from modelkit.rules.model import RuleSet
from modelkit.rules.onnx_input import Inputs
from modelkit.rules.onnx_match import Matcher, exact_axes
from modelkit.rules.onnx_nodes import IR_VERSION, ML_OPSET, OPSET, Nodes
from modelkit.rules.onnx_output import Outputs
from modelkit.version import VERSION

if TYPE_CHECKING:
    import onnx

METADATA_KEY = "modelkit.rules"
_OUTPUTS = ("label", "prediction", "scores", "rule_id")


def to_onnx(rules: RuleSet) -> onnx.ModelProto:
    """Make the model.

    Args:
        rules: The rule set.

    Raises:
        UsageError: A column has the name of an output.
    """
    from onnx import TensorProto, helper

    taken = [column.name for column in rules.columns if column.name in _OUTPUTS]
    if taken:
        raise UsageError(f"a column is called '{taken[0]}', as an output of the ONNX file is", "rename the column")
    nodes = Nodes([column.name for column in rules.columns])
    axes = exact_axes(rules)
    inputs = Inputs(rules, axes, nodes)
    Outputs(rules, inputs, Matcher(rules, axes, inputs, nodes), nodes).make()
    given = [
        helper.make_tensor_value_info(c.name, TensorProto.STRING if c.type.is_text else TensorProto.DOUBLE, ["N"])
        for c in rules.columns
    ]
    label = TensorProto.STRING if rules.has_text_labels else TensorProto.INT64
    result = ("prediction", TensorProto.DOUBLE) if rules.is_numeric else ("label", label)
    width = 1 if rules.is_numeric else len(rules.classes)
    outputs = [
        helper.make_tensor_value_info(*result, ["N"]),
        helper.make_tensor_value_info("scores", TensorProto.DOUBLE, ["N", width]),
        helper.make_tensor_value_info("rule_id", TensorProto.INT64, ["N"]),
    ]
    graph = helper.make_graph(nodes.nodes, "rules", given, outputs, list(nodes.constants.values()))
    model = helper.make_model(
        graph,
        producer_name="modelkit",
        producer_version=VERSION,
        ir_version=IR_VERSION,
        opset_imports=[helper.make_opsetid("", OPSET), helper.make_opsetid("ai.onnx.ml", ML_OPSET)],
    )
    helper.set_model_props(model, {METADATA_KEY: to_yaml(rules), f"{METADATA_KEY}.schema": SCHEMA})
    return model


def rules_of(path: Path) -> RuleSet:
    """The rule set that an ONNX file was made of.

    Raises:
        UsageError: The file does not exist.
        ModelError: It is no ONNX file, or was not made of rules.
        ConfigError: What it holds is no valid rule set.
    """
    import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

    try:
        model = onnx.load(require_file(path), load_external_data=False)
    except DecodeError as error:
        raise ModelError(f"'{shown(path)}' is no ONNX file") from error
    texts = [entry.value for entry in model.metadata_props if entry.key == METADATA_KEY]
    if not texts:
        raise ModelError(
            f"'{shown(path)}' holds no rule set", "`modelkit rules build` makes ONNX files that explain themselves"
        )
    return from_yaml(texts[0], f"{path.name}, {METADATA_KEY}")


def open_rules(path: Path) -> RuleSet:
    """The rule set of a rules file, or of an ONNX file that was made of one; content tells which it is.

    Raises:
        UsageError: The file does not exist.
        ModelError: It is an ONNX file that was not made of rules.
        ConfigError: What it holds is no valid rule set.
    """
    return rules_of(path) if sniff(require_file(path)) is Kind.ONNX else load(path)
