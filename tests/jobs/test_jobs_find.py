"""Which files below a folder are models, and where their results go."""

from __future__ import annotations

import os
import shutil
from pathlib import Path, PurePosixPath

import job_models
import pytest

from modelkit.batch.find import MODELS, WEIGHTS, Found, check_targets, find_models, mirrored
from modelkit.errors import ResourceError, UsageError


def names(found: Found) -> list[str]:
    return [str(name) for name in found.models]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    job_models.mlp(tmp_path / "m" / "b.onnx")
    job_models.mlp(tmp_path / "m" / "sub" / "a model.onnx")
    return tmp_path / "m"


def test_content_decides_and_damaged_ones_count(folder: Path) -> None:
    shutil.copy(folder / "b.onnx", folder / "Ünnamed")
    shutil.copy(folder / "b.onnx", folder / "wrong.txt")
    (folder / "broken.onnx").write_bytes(b"\x08")
    (folder / "pointer.ONNX").write_text(job_models.POINTER)
    for name in ("README.md", "data.npz", "empty"):
        (folder / name).write_bytes(b"" if name == "empty" else b"PK\x03\x04 text")
    shutil.copy(folder / "b.onnx", folder / ".hidden.onnx")
    (folder / ".git").mkdir()
    shutil.copy(folder / "b.onnx", folder / ".git" / "c.onnx")
    assert names(find_models(folder)) == [
        "b.onnx",
        "broken.onnx",
        "pointer.ONNX",
        "sub/a model.onnx",
        "wrong.txt",
        "Ünnamed",
    ]


def test_external_data_is_no_model_whatever_it_looks_like(folder: Path) -> None:
    twins = job_models.SAMPLES / "twins"
    model = (twins / "digits_mlp_external.onnx").read_bytes()
    (folder / "e.onnx").write_bytes(model)
    # Data may happen to begin like a model.
    data = (twins / "digits_mlp_external.onnx.data").read_bytes()
    (folder / "digits_mlp_external.onnx.data").write_bytes((folder / "b.onnx").read_bytes() + data[2000:])
    assert names(find_models(folder)) == ["b.onnx", "e.onnx", "sub/a model.onnx"]
    # And may be called like one; then only unknown content is taken for data.
    renamed = model.replace(b"digits_mlp_external.onnx.data", b"digits_mlp_external/data.onnx")
    (folder / "e.onnx").write_bytes(renamed)
    (folder / "digits_mlp_external.onnx.data").unlink()
    (folder / "digits_mlp_external").mkdir()
    (folder / "digits_mlp_external" / "data.onnx").write_bytes(b"\xff" * 1000)
    assert names(find_models(folder)) == ["b.onnx", "e.onnx", "sub/a model.onnx"]


def test_links_do_not_leave_the_folder(folder: Path, tmp_path: Path) -> None:
    outside = job_models.mlp(tmp_path / "outside" / "o.onnx")
    (folder / "inner.onnx").symlink_to("b.onnx")
    (folder / "outer.onnx").symlink_to(outside)
    (folder / "broken link.onnx").symlink_to("nowhere")
    (folder / "circle").symlink_to(".")
    (folder / "away").symlink_to(outside.parent)
    (folder / "loop.onnx").symlink_to("loop.onnx")
    os.mkfifo(folder / "pipe.onnx")
    found = find_models(folder)
    assert names(found) == ["b.onnx", "inner.onnx", "sub/a model.onnx"]
    assert sorted(found.notes) == [
        "left out, a link out of the folder: outer.onnx",
        "left out, a link that leads nowhere: broken link.onnx, loop.onnx",
        "left out, a link to a folder: away, circle",
    ]


def test_what_modelkit_made_is_no_input_of_a_transform(folder: Path) -> None:
    job_models.mlp(folder / "b.int8.onnx")
    (folder / "b.int8.report.json").write_text(
        '{"schema": "modelkit.report/1", "after": {"file": {"name": "b.int8.onnx"}}}'
    )
    job_models.mlp(folder / "c.int8.onnx")
    (folder / "c.int8.report.json").write_text("[]")
    found = find_models(folder)
    assert names(found) == ["b.onnx", "c.int8.onnx", "sub/a model.onnx"]
    assert found.notes == ["left out, made by modelkit: b.int8.onnx"]
    assert "b.int8.onnx" in names(find_models(folder, artifacts=True))
    job_models.mlp(folder / "out" / "x.onnx")
    assert "out/x.onnx" not in names(find_models(folder, without=folder / "out"))


def test_other_formats_are_named(folder: Path) -> None:
    (folder / "w.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    (folder / "k.h5").write_bytes(b"\x89HDF\r\n\x1a\n")
    assert find_models(folder).notes == [
        "left out, in another format: k.h5",
        "left out, weights that need --arch or --input: w.safetensors",
    ]
    assert "w.safetensors" in names(find_models(folder, kinds=MODELS | WEIGHTS))


def test_globs(folder: Path) -> None:
    job_models.mlp(folder / "old" / "deep" / "c.onnx")
    assert names(find_models(folder, match=["sub/*"])) == ["sub/a model.onnx"]
    assert names(find_models(folder, match=["b.onnx", "*/c.onnx"])) == ["b.onnx", "old/deep/c.onnx"]
    assert names(find_models(folder, skip=["old"])) == ["b.onnx", "sub/a model.onnx"]
    assert names(find_models(folder, skip=["*c.onnx", "b*"])) == ["sub/a model.onnx"]
    for given in ({"match": ["*.pt"]}, {"match": ["b.onnx", "*.pt"]}, {"skip": ["*.pt"]}):
        with pytest.raises(UsageError, match=r"--(match|skip) \*\.pt fits nothing"):
            find_models(folder, **given)


def test_nothing_to_do_is_an_error_that_says_why(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no model below"):
        find_models(tmp_path)
    (tmp_path / "a").symlink_to("/dev/null")
    with pytest.raises(UsageError) as refused:
        find_models(tmp_path)
    assert refused.value.hint == "left out, a link out of the folder: a"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_read(folder: Path) -> None:
    (folder / "sub").chmod(0)
    with pytest.raises(ResourceError, match="cannot read the folder"):
        find_models(folder)
    (folder / "sub").chmod(0o755)


def test_results_mirror_the_models() -> None:
    def name_of(model: Path) -> str:
        return f"{model.stem}.int8.onnx"

    models = [PurePosixPath(name) for name in ("a/x", "a/x.bin", "a/x.onnx", "b/x.onnx", "x-2.onnx")]
    assert [str(target) for target in mirrored(models, name_of).values()] == [
        "a/x-2.int8.onnx",
        "a/x-3.int8.onnx",
        "a/x.int8.onnx",
        "b/x.int8.onnx",
        "x-2.int8.onnx",
    ]


def test_a_result_never_takes_the_place_of_a_model(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is one of the models"):
        check_targets(tmp_path / "m", [PurePosixPath("sub/a.onnx")], [tmp_path / "m" / "sub" / "a.onnx"])
