"""One way of static quantization, and its name in tables."""

from __future__ import annotations

from dataclasses import dataclass

from modelkit.quantize.config import DataRounding, QuantizeConfig, data_rounding
from modelkit.quantize.ranges import RangeMethod

# What the model looks like that is calibrated: equalised, smoothed.
Form = tuple[bool, bool]


@dataclass(frozen=True)
class Variant:
    """One way of static quantization.

    Attributes:
        method: How ranges are cut.
        arithmetic: Whether sums, products and pools compute with integers too.
        equalized: Whether channel ranges are evened out first.
        smoothed: Whether outliers of activations are moved into weights first.
        keep_float: Names of layers that stay float because they are sensitive.
        slow: Names of layers that stay float because they are faster so.
        trained: Whether it is trained with the rounding in it.
        rounding: How weights are rounded by data; None for without.
    """

    method: RangeMethod
    arithmetic: bool = True
    equalized: bool = False
    smoothed: bool = False
    keep_float: frozenset[str] = frozenset()
    slow: frozenset[str] = frozenset()
    trained: bool = False
    rounding: DataRounding | None = None

    @property
    def name(self) -> str:
        """The variant in a table."""
        parts = [f"static {self.method}"]
        if not self.arithmetic:
            parts.append("layers")
        if self.equalized:
            parts.append("equalised")
        if self.smoothed:
            parts.append("smoothed")
        if self.keep_float:
            count = len(self.keep_float)
            parts.append(f"{count} layer{'s' if count > 1 else ''} float")
        if self.slow:
            parts.append(f"without {len(self.slow)} that cost")
        if self.rounding:
            parts.append(self.rounding)
        if self.trained:
            parts.append("trained")
        return ", ".join(parts)

    @property
    def form(self) -> Form:
        """What calibration depends on."""
        return self.equalized, self.smoothed


def variant_of(
    config: QuantizeConfig, method: RangeMethod, *, arithmetic: bool = True, trained: bool = False
) -> Variant:
    """Return a variant as a config has it.

    Args:
        config: The options.
        method: How ranges are cut.
        arithmetic: Whether sums, products and pools compute with integers too.
        trained: Whether it is trained with the rounding in it.
    """
    return Variant(
        method,
        arithmetic=arithmetic,
        equalized=config.equalize,
        smoothed=config.smooth,
        trained=trained,
        rounding=data_rounding(config.weights),
    )
