"""Image folders and the preprocess block, compared with the same steps done by hand."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from pydantic import ValidationError

from modelkit.data.open import open_dataset
from modelkit.data.preprocess import Preprocess
from modelkit.errors import DataError
from modelkit.runtime import TensorSpec

RANDOM = np.random.default_rng(0)


def spec(dtype=np.float32, shape=("batch", 3, 8, 8), name="x"):
    return TensorSpec(name, np.dtype(dtype), tuple(shape))


def picture(path, height=8, width=8, mode="RGB"):
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (height, width, 3) if mode == "RGB" else (height, width)
    image = Image.fromarray(RANDOM.integers(0, 256, shape, np.uint8), mode)
    image.save(path)
    return image


def refused(path, specs, **options):
    with pytest.raises(DataError) as caught:
        open_dataset(path, specs, **options)
    assert caught.value.exit_code == 2
    assert "\n" not in caught.value.message
    assert caught.value.hint
    return caught.value


def test_class_folders_in_sorted_order(tmp_path):
    images = [picture(tmp_path / f"{c}/{i}.png") for c in ("ant", "bee", "cat") for i in range(3)]
    dataset = open_dataset(tmp_path, [spec()], need_labels=True, classes=3)
    batches = list(dataset.batches(4))
    assert [b.valid for b in batches] == [4, 4, 1]
    assert np.concatenate([b.labels for b in batches]).tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    wanted = np.stack([np.asarray(i) for i in images]).transpose(0, 3, 1, 2).astype(np.float32) / 255
    np.testing.assert_allclose(np.concatenate([b.inputs["x"] for b in batches]), wanted, rtol=1e-6)
    (batch,) = dataset.subset([8, 0]).batches(4)
    np.testing.assert_allclose(batch.inputs["x"], wanted[[8, 0]], rtol=1e-6)
    assert batch.labels.tolist() == [2, 0]
    assert dataset.describe()["format"] == "image folder"


def test_flat_folder_and_labels_csv(tmp_path):
    for i in range(3):
        picture(tmp_path / f"{i}.png")
    dataset = open_dataset(tmp_path, [spec()])
    assert not dataset.has_labels
    before = dataset.fingerprint()
    error = refused(tmp_path, [spec()], need_labels=True)
    assert error.problems == [
        "the images have no labels: make a folder for each class or add labels.csv (file,label)"
    ]
    (tmp_path / "labels.csv").write_text("label,file\n4,2.png\n1,0.png\n0,1.png\n")
    dataset = open_dataset(tmp_path, [spec()], need_labels=True, classes=5)
    assert dataset.labels.tolist() == [1, 0, 4]
    assert dataset.fingerprint() != before
    (tmp_path / "labels.csv").write_text("file,label\n0.png,x\n0.png,-1\n9.png,1\n1.png,1\n1.png,2\n")
    assert refused(tmp_path, [spec()]).problems == [
        "labels.csv:2: label 'x' is not a whole number from 0",
        "labels.csv:3: label '-1' is not a whole number from 0",
        f"labels.csv:4: there is no image '9.png' in {tmp_path.name}",
        "labels.csv:6: '1.png' is there twice",
    ]
    (tmp_path / "labels.csv").write_text("file,label\n0.png,1\n")
    assert refused(tmp_path, [spec()]).problems == ["labels.csv has no label for 2 images, such as '1.png'"]
    (tmp_path / "labels.csv").write_text("name;class\n0.png;1\n")
    assert refused(tmp_path, [spec()]).problems == ["labels.csv needs the columns file,label; it has name;class"]


def test_numbered_folders_are_sorted_as_text_with_a_note(tmp_path):
    for name in ("1", "2", "10"):
        picture(tmp_path / name / "a.png")
    dataset = open_dataset(tmp_path, [spec()])
    assert dataset.notes == (
        "classes are numbered by sorted folder name, so '10' is class 1",
        "no preprocess block was given: rgb in nchw, pixels times 0.003922",
    )


def test_guessed_preprocess_follows_the_input(tmp_path):
    gray = picture(tmp_path / "a.png", mode="L")
    (batch,) = open_dataset(tmp_path, [spec(shape=("N", 1, 8, 8))]).batches(1)
    np.testing.assert_allclose(batch.inputs["x"][0, 0], np.asarray(gray) / 255, rtol=1e-6)
    (batch,) = open_dataset(tmp_path, [spec(np.uint8, ("N", 8, 8, 3))]).batches(1)
    assert batch.inputs["x"].dtype == np.uint8
    np.testing.assert_array_equal(batch.inputs["x"][0], np.asarray(gray.convert("RGB")))
    (batch,) = open_dataset(tmp_path, [spec(np.float16, (2, 3, 8, 8))]).batches(9)
    assert batch.inputs["x"].dtype == np.float16
    assert (batch.inputs["x"].shape, batch.valid) == ((2, 3, 8, 8), 1)


@pytest.mark.parametrize("color", ["rgb", "bgr", "gray"])
@pytest.mark.parametrize("layout", ["nchw", "nhwc"])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
def test_every_step_by_hand(tmp_path, color, layout, interpolation):
    image = picture(tmp_path / "a.png", 21, 30)
    channels = 1 if color == "gray" else 3
    mean, std = [0.1, 0.2, 0.3][:channels], [0.5, 0.6, 0.7][:channels]
    steps = Preprocess(
        resize=14, crop=[10, 12], layout=layout, color=color, mean=mean, std=std, interpolation=interpolation
    )
    shape = ("N", channels, 10, 12) if layout == "nchw" else ("N", 10, 12, channels)
    (batch,) = open_dataset(tmp_path, [spec(shape=shape)], preprocess=steps).batches(1)
    wanted = image.convert("L" if color == "gray" else "RGB")
    wanted = wanted.resize((20, 14), Image.Resampling[interpolation.upper()]).crop((4, 2, 16, 12))
    wanted = np.asarray(wanted, np.float32).reshape(10, 12, channels) / 255
    if color == "bgr":
        wanted = wanted[:, :, ::-1]
    wanted = (wanted - np.array(mean)) / np.array(std)
    if layout == "nchw":
        wanted = wanted.transpose(2, 0, 1)
    np.testing.assert_allclose(batch.inputs["x"][0], wanted, atol=1e-5)


@pytest.mark.parametrize(
    ("resize", "crop", "size"),
    [
        (None, None, (21, 30)),
        (14, None, (14, 20)),
        ((9, 7), None, (9, 7)),
        (None, (5, 6), (5, 6)),
        ((9, 7), (3, 3), (3, 3)),
    ],
)
def test_announced_size_is_the_size(resize, crop, size):
    steps = Preprocess(resize=resize, crop=crop)
    assert steps.size_of(21, 30) == size
    image = Image.new("RGB", (30, 21))
    assert steps.apply(image, np.dtype(np.float32)).shape == (3, *size)
    assert Preprocess(resize=10).size_of(40, 20) == (20, 10)


@pytest.mark.parametrize(
    ("block", "complaint"),
    [
        ({"resise": 3}, "Extra inputs are not permitted"),
        ({"resize": 0}, "greater than or equal to 1"),
        ({"resize": "224"}, "valid integer"),
        ({"crop": [4]}, "Field required"),
        ({"crop": [9, 9], "resize": [8, 8]}, r"crop \[9, 9\] is larger than resize \[8, 8\]"),
        ({"mean": [0.5, 0.5]}, "mean has 2 values; 1 or 3 fit rgb"),
        ({"std": [0.5, 0.5, 0.5], "color": "gray"}, "std has 3 values; 1 or 1 fit gray"),
        ({"std": [0]}, "std must not be 0"),
        ({"mean": [float("nan")]}, "finite number"),
        ({"scale": 0}, "greater than 0"),
        ({"layout": "chwn"}, "'nchw' or 'nhwc'"),
        ({"color": "hsv"}, "'rgb', 'bgr' or 'gray'"),
    ],
)
def test_wrong_blocks_are_refused(block, complaint):
    with pytest.raises(ValidationError, match=complaint):
        Preprocess.model_validate(block)


def test_a_block_from_strict_json_and_without_numpy():
    text = '{"resize": [9, 8], "crop": [8, 8], "scale": 1, "mean": [0.5], "std": [1, 2, 3]}'
    block = Preprocess.model_validate_json(text, strict=True)
    assert (block.resize, block.crop, block.scale, block.std) == ((9, 8), (8, 8), 1, [1, 2, 3])
    code = "import sys, modelkit.data.preprocess; assert not {'numpy', 'PIL'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_sizes_that_do_not_fit(tmp_path):
    picture(tmp_path / "a.png", 8, 8)
    picture(tmp_path / "b.png", 9, 8)
    assert refused(tmp_path, [spec()]).problems == [
        "input 'x' is [2, 3, 9, 8], the model takes [batch, 3, 8, 8] (axis 2 differs) for 'b.png'; "
        "see preprocess: resize, crop, layout, color"
    ]
    assert refused(tmp_path, [spec(shape=("N", 3, "h", "w"))]).problems == [
        "images have different sizes ('a.png' 8x8, 'b.png' 9x8); set preprocess: resize or crop to [height, width]"
    ]
    error = refused(tmp_path, [spec()], preprocess=Preprocess(crop=(9, 8)))
    assert "'a.png': crop [9, 8] is larger than the image (8x8 after resize)" in error.problems


def test_models_that_images_do_not_feed(tmp_path):
    picture(tmp_path / "a.png")
    assert refused(tmp_path, [spec(shape=("N", 3))]).problems == [
        "images feed one input of 4 dimensions, the model takes x float32 [N, 3]"
    ]
    assert refused(tmp_path, [spec(np.int64)]).problems == ["input 'x' is int64; images feed float and uint8 inputs"]
    assert refused(tmp_path, [spec(np.uint8)], preprocess=Preprocess()).problems == [
        "input 'x' is uint8, so preprocess takes scale: 1 and neither mean nor std"
    ]


def test_folders_that_are_no_image_folders(tmp_path):
    error = refused(tmp_path, [spec()])
    assert error.message == f"the folder {tmp_path} is empty"
    (tmp_path / "a").mkdir()
    assert refused(tmp_path, [spec()]).message == f"{tmp_path.name} holds no images"
    picture(tmp_path / "a" / "b" / "c.png")
    picture(tmp_path / "a" / "d.png")
    picture(tmp_path / "e.png")
    assert refused(tmp_path, [spec()]).problems == [
        "'a/b' is a folder within a class; images belong one level deep",
        "'e.png' lies beside the class folders; move it into one",
    ]


def test_more_classes_than_the_model_and_deep_images(tmp_path):
    picture(tmp_path / "a" / "a.png")
    picture(tmp_path / "b" / "b.png")
    Image.fromarray(np.zeros((8, 8), np.uint16)).save(tmp_path / "b" / "c.png")
    error = refused(tmp_path, [spec()], classes=1)
    assert error.problems == [
        "'b/c.png' has more than 8 bits a channel",
        "label 1 at row 1 (counted from 0) is not in 0 to 0; 2 labels are out of range",
    ]


def test_preprocess_without_images_is_refused(tmp_path):
    np.savez(tmp_path / "d.npz", x=np.zeros((2, 3, 8, 8), np.float32))
    error = refused(tmp_path / "d.npz", [spec()], preprocess=Preprocess())
    assert error.message == "d.npz is no image folder, so preprocess has nothing to do"
    (tmp_path / "d.npz").unlink()
    np.save(tmp_path / "x.npy", np.zeros((2, 3, 8, 8), np.float32))
    error = refused(tmp_path, [spec()], preprocess=Preprocess())
    assert error.message == f"{tmp_path.name} is no image folder, so preprocess has nothing to do"
