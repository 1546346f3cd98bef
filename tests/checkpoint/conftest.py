"""Each test works in an empty folder, where the factories of ``--arch`` are."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(Path(__file__).with_name("checkpoint_nets.py"), tmp_path / "checkpoint_nets.py")
    monkeypatch.chdir(tmp_path)
    return tmp_path
