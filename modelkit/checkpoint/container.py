"""A state dict in its file: read, loaded into a module, and written back with the same keys, order and nesting."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from modelkit.checkpoint import safetensorsfile, state, torchfile
from modelkit.checkpoint.links import Links
from modelkit.checkpoint.safetensorsfile import SafetensorsFile
from modelkit.checkpoint.tensors import TensorRef
from modelkit.checkpoint.torchfile import TorchFile
from modelkit.errors import ModelError, UnsafeError
from modelkit.files import Kind, file_record, shown

if TYPE_CHECKING:
    from torch import nn

PLAN_SCHEMA = "modelkit.checkpoint-plan/1"


@dataclass
class Container:
    """A file that holds a state dict.

    Attributes:
        file: What is known of it without loading it.
        place: Where in it the state dict is.
        tensors: Its tensors by the file's keys, in the file's order.
        names: The module's key for each of the file's keys; the same where no module is known.
        trust: Whether objects in it may be loaded that can run code.
        notes: What a reader of the report must know.
        links: How an exported graph and the state dict belong together.
        module_state: The module's own tensors after loading, by its keys.
    """

    file: TorchFile | SafetensorsFile
    place: state.Place
    tensors: dict[str, TensorRef]
    names: dict[str, str]
    trust: bool = False
    notes: list[str] = field(default_factory=list)
    links: Links = field(default_factory=Links)
    module_state: dict[str, np.ndarray] = field(default_factory=dict)
    _tree: Any = None

    @property
    def path(self) -> Path:
        """The file."""
        return self.file.path

    @property
    def kind(self) -> str:
        """What it is, in words."""
        return "safetensors" if isinstance(self.file, SafetensorsFile) else "state dict"

    @property
    def suffix(self) -> str:
        """Ending of the name that such a file usually has."""
        return ".safetensors" if isinstance(self.file, SafetensorsFile) else ".pt"

    @property
    def ran_code(self) -> bool:
        """Whether something in it had to be trusted."""
        return isinstance(self.file, TorchFile) and bool(self.file.opaque)

    def array(self, key: str) -> np.ndarray:
        """A tensor's numbers by the file's key, mapped from the file."""
        return self.file.array(self.tensors[key])

    def load_into(self, net: nn.Module, arch: str) -> None:
        """Put the weights into a module.

        Args:
            net: What the factory made; changed in place.
            arch: The factory's name, for errors.

        Raises:
            ModelError: Keys are missing, unexpected or have another shape; all are listed at once.
        """
        import torch

        wanted = {key: value for key, value in net.state_dict().items() if isinstance(value, torch.Tensor)}
        shapes = {key: tuple(value.shape) for key, value in wanted.items()}
        self.names = state.align(list(self.tensors), shapes)
        found = {self.names[key]: ref.shape for key, ref in self.tensors.items()}
        pointers = {wanted[key].data_ptr() for key in found if key in wanted}
        free = [
            key
            for key, value in wanted.items()
            # Tied to a weight that is there, or a counter that older files lack and inference never reads.
            if (value.data_ptr() in pointers and value.numel()) or key.endswith("num_batches_tracked")
        ]
        state.check_fit(found, shapes, free, arch, shown(self.path.name))
        net.load_state_dict({self.names[key]: value for key, value in self._torch_tensors().items()}, strict=False)
        self.module_state = arrays_of(net.state_dict())

    def _torch_tensors(self) -> dict[str, Any]:
        if isinstance(self.file, SafetensorsFile):
            from safetensors.torch import load_file

            return dict(load_file(str(self.path)))
        mapping = self.place.of(self.tree())
        return {key: mapping[key] for key in self.tensors}

    def tree(self) -> Any:
        """What torch makes of the whole file; loaded once."""
        assert isinstance(self.file, TorchFile)
        if self._tree is None:
            self._tree = torchfile.load(self.file, trust=self.trust)
        return self._tree

    def save(
        self, path: Path, changed: Mapping[str, np.ndarray], plan: Mapping[str, dict[str, Any]] | None = None
    ) -> dict[str, Any]:
        """Write the container again with some tensors replaced.

        Keys, their order, nesting, prefixes, types, tied weights, metadata and all other entries stay. With nothing
        to change a safetensors file is the same byte for byte, and every tensor of a ``.pt`` is.

        Args:
            path: Where to.
            changed: New arrays by the file's keys, in any float type; stored in the original's.
            plan: What to say of each in the plan, beside its shape and zeros.

        Returns:
            ``{"schema": "modelkit.checkpoint-plan/1", "source": ..., "state_dict": ..., "keys": {...}}``; see
            docs/checkpoints.md.
        """
        typed = {key: _cast(array, self.array(key)) for key, array in changed.items()}
        if isinstance(self.file, SafetensorsFile):
            safetensorsfile.write(path, self.file, typed)
        else:
            self._save_torch(path, typed)
        return {
            "schema": PLAN_SCHEMA,
            "source": file_record(self.path),
            "state_dict": ".".join(self.place.path),
            "untouched": self.place.others,
            "unchanged": len(self.tensors) - len(typed),
            "keys": {
                key: {
                    "action": "updated",
                    **((plan or {}).get(key) or {}),
                    "shape": list(typed[key].shape),
                    "original_shape": list(self.tensors[key].shape),
                    "sparsity": _sparsity(typed[key]),
                }
                for key in self.tensors
                if key in typed
            },
        }

    def _save_torch(self, path: Path, typed: Mapping[str, np.ndarray]) -> None:
        import torch

        tree = self.tree()
        mapping = self.place.of(tree)
        fresh: dict[tuple[Any, ...], tuple[np.ndarray, torch.Tensor]] = {}
        old = {key: mapping[key] for key in typed}
        try:
            for key, array in typed.items():
                tensor = old[key]
                identity = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride())
                if identity in fresh and np.array_equal(fresh[identity][0], array, equal_nan=True):
                    mapping[key] = fresh[identity][1]  # tied weights stay tied
                    continue
                made = torch.empty(array.shape, dtype=tensor.dtype)
                made.view(-1).view(torch.uint8).numpy()[:] = np.frombuffer(array.tobytes(), np.uint8)
                if isinstance(tensor, torch.nn.Parameter):
                    made = torch.nn.Parameter(made, requires_grad=tensor.requires_grad)
                fresh[identity] = array, made
                mapping[key] = made
            # The older form, which torch wrote before version 1.6, stays what it is.
            zipped = isinstance(self.file, TorchFile) and self.file.zipped
            torch.save(tree, path, _use_new_zipfile_serialization=zipped)
        finally:
            mapping.update(old)


def arrays_of(tensors: Mapping[str, Any]) -> dict[str, np.ndarray]:
    """Torch tensors as arrays; bfloat16, which numpy lacks, becomes float32."""
    import torch

    found = {}
    for key, value in tensors.items():
        if isinstance(value, torch.Tensor) and value.layout is torch.strided:
            plain = value.detach().float() if value.dtype == torch.bfloat16 else value.detach()
            found[key] = plain.numpy()
    return found


def read(path: Path, kind: Kind, *, trust: bool = False) -> Container:
    """Look at a file with a state dict; nothing of it is loaded.

    Raises:
        ModelError: It is damaged or holds no state dict.
        UnsafeError: It holds other things than tensors and is not trusted, or tensors that cannot be.
    """
    name = shown(path.name)
    if kind is Kind.SAFETENSORS:
        file: SafetensorsFile | TorchFile = safetensorsfile.read(path)
    else:
        file = torchfile.read(path, kind)
        if file.opaque and not trust:
            raise UnsafeError(torchfile.refusal(file), torchfile.TRUST)
    place = state.find(file.tree, TensorRef, name)
    mapping = place.of(file.tree)
    tensors = {key: value for key, value in dict.items(mapping) if isinstance(value, TensorRef)}
    if not tensors:
        raise ModelError(f"'{name}' holds no tensors", "save a state dict that has some")
    notes = []
    if place.path:
        notes.append(f"the state dict is '{'.'.join(place.path)}' in '{name}'")
    if place.others:
        notes.append(f"left as they are in '{name}': {', '.join(place.others[:6])}")
    return Container(file, place, tensors, {str(key): str(key) for key in tensors}, trust, notes)


def _cast(array: np.ndarray, original: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array).reshape(array.shape).astype(original.dtype, copy=False)


def _sparsity(array: np.ndarray) -> float:
    return round(float((array == 0).mean()), 6) if array.size else 0.0
