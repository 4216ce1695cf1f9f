"""What an accumulator keeps does not grow with the number of images."""

import io

import pytest
import torch

from segedu.metrics.confusion import ConfusionMatrix
from segedu.metrics.instance import InstanceMetrics
from segedu.metrics.panoptic import PanopticQuality


def panoptic(seed):
    seg = torch.randint(1, 5, (8, 8), generator=torch.Generator().manual_seed(seed))
    ids = seg.unique().tolist()
    return {"panoptic_seg": seg, "segments_info": [{"id": i, "category_id": i % 2, "isthing": i % 2 == 0} for i in ids]}


def labels(seed):
    return torch.randint(0, 3, (8, 8), generator=torch.Generator().manual_seed(seed))


def size_of_state(total):
    file = io.BytesIO()
    torch.save(vars(total), file)
    return len(file.getvalue())


@pytest.mark.parametrize(
    ("total", "draw"),
    [(ConfusionMatrix(3), labels), (InstanceMetrics(), labels), (PanopticQuality(2), panoptic)],
    ids=["confusion", "instance", "panoptic"],
)
def test_state_does_not_grow(total, draw):
    sizes = []
    for count in (1, 50):
        for seed in range(count):
            total.update(draw(seed), draw(seed + 1))
        total.compute()
        sizes.append(size_of_state(total))
    assert sizes[0] == sizes[1]
