"""Weights without an architecture: zeroed by size, written back in the format that they had."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from modelkit.api import dry_run, prune
from modelkit.errors import BudgetError, UsageError
from modelkit.transform.commands import make_job


def weights() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {
        "conv.weight": torch.randn(8, 4, 3, 3, generator=generator),
        "conv.bias": torch.randn(8, generator=generator),
        "fc.weight": torch.randn(10, 16, generator=generator).half(),
        "steps": torch.tensor(3),
    }


@pytest.fixture(params=["safetensors", "pt"])
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    path = tmp_path / f"net.{request.param}"
    if request.param == "safetensors":
        save_file(weights(), path)
    else:
        torch.save({"epoch": 7, "state_dict": weights()}, path)
    return path


def state(path: Path) -> dict[str, torch.Tensor]:
    return load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)["state_dict"]


def test_the_smallest_weights_become_zero_and_all_else_stays(saved: Path) -> None:
    report = prune(saved, config={"sparsity": 0.5})
    artifact = saved.with_name(f"net.pruned{saved.suffix}")
    assert report.status == "done" and report.after.file["name"] == artifact.name
    before, after = state(saved), state(artifact)
    assert list(before) == list(after)
    for key in ("conv.weight", "fc.weight"):
        kept = after[key] != 0
        assert after[key].dtype == before[key].dtype
        assert kept.float().mean() == 0.5
        assert torch.equal(after[key][kept], before[key][kept])
        assert before[key][kept].abs().min() >= before[key][~kept].abs().max()
    assert torch.equal(after["conv.bias"], before["conv.bias"]) and torch.equal(after["steps"], before["steps"])
    plan = json.loads(saved.with_name("net.pruned.plan.json").read_text())
    assert plan["keys"]["conv.weight"]["action"] == "zeroed" and plan["keys"]["conv.weight"]["sparsity"] == 0.5
    assert "how much the model lost is not known" in report.notes[0]
    reasons = {decision.target: decision.reason for decision in report.decisions if decision.action == "kept"}
    assert reasons == {"conv.bias": "one number for each channel", "steps": "stored as int64"}


def test_a_pattern_and_names(saved: Path) -> None:
    prune(saved, config={"pattern": "2:4", "exclude": ["fc.*"]})
    after = state(saved.with_name(f"net.pruned{saved.suffix}"))
    assert torch.equal(after["fc.weight"], weights()["fc.weight"])
    groups = after["conv.weight"].permute(0, 2, 3, 1).reshape(-1, 4)
    flat = after["conv.weight"].reshape(-1, 4)
    assert any(np.all((g != 0).sum(1).numpy() == 2) for g in (groups, flat))


def test_what_needs_a_graph_is_refused_at_once(saved: Path) -> None:
    config = {"channels": 0.5, "method": "obs", "finetune.epochs": 1, "budget.max_drop": 0.01}
    with pytest.raises(UsageError) as error:
        prune(saved, config=config, data="data.npz")
    for word in ("--channels", "method obs", "--data", "--finetune", "--max-drop", "needs a graph"):
        assert word in error.value.message
    assert "--arch" in str(error.value.hint)
    with pytest.raises(UsageError, match="how much should be pruned"):
        prune(saved)
    assert sorted(path.name for path in saved.parent.glob("net*")) == [saved.name]


def test_a_missed_budget_leaves_only_the_report(saved: Path) -> None:
    with pytest.raises(BudgetError, match="smaller by"):
        prune(saved, config={"sparsity": 0.5, "budget.min_ratio": 3.0})
    names = sorted(path.name for path in saved.parent.glob("net*"))
    assert names == sorted([saved.name, "net.pruned.report.json", "net.pruned.report.md"])


def test_a_plan_writes_nothing(saved: Path) -> None:
    plan = dry_run(make_job("prune", saved, config={"sparsity": 0.5}))
    assert plan.output.endswith(f"net.pruned{saved.suffix}")
    assert {d.target for d in plan.decisions if d.action == "pruned"} == {"conv.weight", "fc.weight"}
    assert [path.name for path in saved.parent.glob("net*")] == [saved.name]


def test_safetensors_need_no_torch(tmp_path: Path) -> None:
    save_file(weights(), tmp_path / "net.safetensors")
    code = (
        "import sys; from modelkit.cli.app import run; "
        f"code = run(['prune', {str(tmp_path / 'net.safetensors')!r}, '--sparsity', '0.5', '--quiet']); "
        "sys.exit(code or 10 * ('torch' in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
