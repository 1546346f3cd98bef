"""From a decoded image to a model's input: the `preprocess:` block of a config, and what it does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from modelkit.errors import DataError

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

    from modelkit.runtime import TensorSpec

Pixels = Annotated[int, Field(strict=True, ge=1, le=16384)]
Number = Annotated[float, Field(allow_inf_nan=False)]


class Preprocess(BaseModel):
    """What is done to each image, in this order: resize, crop, colour, scale, mean and std, layout.

    The steps and their rounding are torchvision's (Resize with antialias, CenterCrop, ToTensor, Normalize).
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    resize: Pixels | tuple[Pixels, Pixels] | None = Field(
        default=None, description="Length of the shorter side, or [height, width]; none keeps the size"
    )
    crop: tuple[Pixels, Pixels] | None = Field(default=None, description="[height, width] cut from the centre")
    layout: Literal["nchw", "nhwc"] = Field(default="nchw", description="Where the model has the channels")
    color: Literal["rgb", "bgr", "gray"] = Field(default="rgb", description="Which channels, in which order")
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        default=1 / 255, description="Factor on the pixels (0 to 255) before mean and std"
    )
    mean: list[Number] = Field(default=[], description="Subtracted after scaling: one value, or one for each channel")
    std: list[Number] = Field(default=[], description="Divided by after that: one value, or one for each channel")
    interpolation: Literal["bilinear", "bicubic", "nearest"] = Field(
        default="bilinear", description="How resizing fills in between pixels"
    )

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        for name, values in (("mean", self.mean), ("std", self.std)):
            if len(values) not in {0, 1, self.channels}:
                raise ValueError(f"{name} has {len(values)} values; 1 or {self.channels} fit {self.color}")
        if 0 in self.std:
            raise ValueError("std must not be 0")
        if (
            isinstance(self.resize, tuple)
            and self.crop
            and any(c > r for c, r in zip(self.crop, self.resize, strict=True))
        ):
            raise ValueError(f"crop {list(self.crop)} is larger than resize {list(self.resize)}")
        return self

    @property
    def channels(self) -> int:
        """1 for gray, else 3."""
        return 1 if self.color == "gray" else 3

    @property
    def keeps_bytes(self) -> bool:
        """Whether the pixels stay integers from 0 to 255."""
        return self.scale == 1 and not self.mean and not self.std

    @classmethod
    def for_input(cls, spec: TensorSpec) -> Preprocess:
        """Guess from an input's shape and dtype; float inputs get 0 to 1, uint8 inputs the pixels themselves.

        Args:
            spec: The model's image input.
        """
        last = len(spec.shape) == 4 and spec.shape[3] in (1, 3) and spec.shape[1] not in (1, 3)
        channels = spec.shape[3 if last else 1] if len(spec.shape) == 4 else 3
        return cls(
            layout="nhwc" if last else "nchw",
            color="gray" if channels == 1 else "rgb",
            scale=1 / 255 if spec.dtype.kind not in "iu" else 1,
        )

    def size_of(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) that an image of the given size ends with.

        Raises:
            DataError: The crop is larger than the image.
        """
        height, width = self._resized(height, width)
        if self.crop is None:
            return height, width
        if self.crop[0] > height or self.crop[1] > width:
            raise DataError(f"crop {list(self.crop)} is larger than the image ({height}x{width} after resize)")
        return self.crop

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        if self.resize is None:
            return height, width
        if isinstance(self.resize, tuple):
            return self.resize
        # torchvision truncates the longer side.
        if height <= width:
            return self.resize, max(1, int(self.resize * width / height))
        return max(1, int(self.resize * height / width)), self.resize

    def apply(self, image: Image, dtype: np.dtype) -> np.ndarray:
        """Turn an image into one sample.

        Args:
            image: A decoded image of 8 bits a channel.
            dtype: The model's dtype: a float, or uint8 where the pixels stay as they are.

        Returns:
            ``[C, H, W]`` or ``[H, W, C]``.
        """
        # Here, so that reading a config (which holds a Preprocess) needs no numpy.
        import numpy as np
        from PIL import Image as PillowImage

        image = image.convert("L" if self.color == "gray" else "RGB")
        height, width = self._resized(image.height, image.width)
        if (height, width) != (image.height, image.width):
            method = PillowImage.Resampling[self.interpolation.upper()]
            image = image.resize((width, height), method)
        if self.crop is not None:
            top, left = round((height - self.crop[0]) / 2), round((width - self.crop[1]) / 2)
            image = image.crop((left, top, left + self.crop[1], top + self.crop[0]))
        pixels = np.asarray(image).reshape(image.height, image.width, self.channels)
        if self.color == "bgr":
            pixels = pixels[:, :, ::-1]
        if not self.keeps_bytes:
            pixels = pixels.astype(np.float32) * np.float32(self.scale)
            if self.mean:
                pixels = pixels - np.asarray(self.mean, np.float32)
            if self.std:
                pixels = pixels / np.asarray(self.std, np.float32)
        if self.layout == "nchw":
            pixels = pixels.transpose(2, 0, 1)
        return np.ascontiguousarray(pixels.astype(dtype))
