"""Soccer field: mask, boundary and semantic truth say the same; what stands on the field does not move its boundary."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from segedu.datasets import field
from segedu.datasets.field import CLASSES, draw_field

GROUND = torch.tensor([CLASSES.index("field"), CLASSES.index("line")])
ON_IT = torch.tensor([CLASSES.index(name) for name in ("goal", "robot", "ball")])


@pytest.mark.parametrize("size", [(32, 32), (33, 61), (96, 128)])
def test_boundary_mask_and_classes_agree(size: tuple[int, int]) -> None:
    for seed in range(12):
        scene = draw_field(seed, size)
        mask, boundary, semantic = scene["field_mask"], scene["boundary"], scene["semantic"]
        assert mask.dtype == torch.bool and mask.shape == size
        assert boundary.dtype == torch.int64 and boundary.shape == (size[1],)
        rows = torch.arange(size[0])[:, None]
        assert torch.equal(mask, rows >= boundary)  # below its boundary all is carpet, down to the robot's feet
        seen = torch.isin(semantic, GROUND)
        assert not (seen & ~mask).any()
        assert torch.isin(semantic[mask & ~seen], ON_IT).all()


def test_things_stand_before_the_boundary() -> None:
    """Somewhere a robot hides the boundary, and field_mask goes on behind it."""
    hidden = 0
    for seed in range(20):
        scene = draw_field(seed)
        columns = torch.arange(scene["boundary"].numel())
        inside = scene["boundary"] < 96
        at = scene["semantic"][scene["boundary"].clamp(max=95), columns]
        hidden += int((torch.isin(at, ON_IT) & inside).sum())
    assert hidden > 20


def test_boundary_is_made_of_straight_pieces() -> None:
    """A rectangle in perspective: between corners its boundary is straight, so second differences are small."""
    for seed in range(10):
        boundary = draw_field(seed, (96, 128))["boundary"].numpy().astype(float)
        bends = np.abs(np.diff(boundary, 2))
        assert (bends > 1).sum() <= 8  # corners, and where the boundary leaves the image


def test_version_is_bumped_when_scenes_change() -> None:
    """If this fails, the scenes changed: raise FIELD_VERSION and measure again whatever was trained on them."""
    scene = draw_field((0, 0))
    assert field.FIELD_VERSION == 1
    assert scene["semantic"].unique(return_counts=True)[1].tolist() == GOLDEN["pixels"]
    assert scene["image"].mean().item() == pytest.approx(GOLDEN["mean"], abs=1e-4)


GOLDEN = {"pixels": [5888, 6117, 122, 136, 25], "mean": 0.55987}
