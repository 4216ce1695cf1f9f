"""Any synthetic scene as a PyTorch data set: item i depends only on (seed, i), the size and the arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from segedu.datasets.texture import check_count
from segedu.validation.numbers import check_size


class Scenes(Dataset):
    """`length` scenes of one drawing function.

    Args:
        draw: function (seed, size, ...) -> sample dict, such as `draw_street`; it gets the seed (seed, index).
        length: number of scenes.
        seed: use different seeds for training and validation.
        size: (H, W) or (D, H, W); None means the default size of `draw`.
        transforms: called with the sample dict, see `segedu.datasets.transforms`.
        scene: further arguments of `draw`.
    """

    def __init__(
        self,
        draw: Callable[..., dict[str, Any]],
        length: int,
        seed: int = 0,
        size: tuple[int, ...] | None = None,
        transforms: Callable | None = None,
        **scene: Any,
    ):
        if not callable(draw):
            raise TypeError(f"draw is {draw!r}, expected a function such as draw_street")
        self.draw, self.seed, self.transforms, self.scene = draw, seed, transforms, scene
        self.length, _ = check_count(length)
        if size is not None:
            axes = 3 if isinstance(size, (tuple, list)) and len(size) == 3 else 2
            self.scene = {"size": check_size("size", size, 1, axes)} | scene

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> dict[str, Tensor | list]:
        if not -self.length <= index < self.length:
            raise IndexError(f"index is {index}, expected an index into {self.length} scenes")
        sample = self.draw((self.seed, index % self.length), **self.scene)
        return self.transforms(sample) if self.transforms else sample
