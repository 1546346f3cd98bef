"""A folder of its own for each attack by a checkpoint, with an architecture that is innocent."""

from pathlib import Path

import pytest


@pytest.fixture
def checkpoint_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text("from torch import nn\n\n\ndef make():\n    return nn.Linear(4, 4)\n")
    return tmp_path
