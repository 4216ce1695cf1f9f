"""Regions to ignore: a crowd changes no loss of any detector or query model; metrics ignore what lies inside one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from detection.small_detectors import DETECTORS
from torch import Tensor, nn

from segedu.datasets.batch import instance_batch
from segedu.detection.detr import detr_loss
from segedu.detection.fast_rcnn import fast_rcnn_loss
from segedu.detection.faster_rcnn import faster_rcnn_loss
from segedu.detection.fcos import fcos_loss
from segedu.detection.rcnn import fit_heads, rcnn_loss
from segedu.detection.retinanet import retinanet_loss
from segedu.detection.ssd import ssd_loss
from segedu.detection.yolov1 import yolov1_loss
from segedu.instance.condinst import condinst_loss
from segedu.instance.mask_rcnn import mask_rcnn_loss
from segedu.instance.solov2 import solov2_loss
from segedu.instance.yolact import yolact_loss
from segedu.instance.yolo11_seg import yolo11_seg_loss
from segedu.layers.proposals import add_ground_truth
from segedu.ops.crowds import without_crowds
from segedu.panoptic.detr_panoptic import detr_panoptic_loss
from segedu.panoptic.mask2former.loss import mask2former_loss
from segedu.panoptic.maskformer import maskformer_loss
from segedu.panoptic.oneformer import oneformer_loss, task_targets
from segedu.panoptic.panoptic_fpn import panoptic_fpn_loss

Target = dict[str, Tensor]
BUILD = {name: build for name, build, _ in DETECTORS}
SIZE = (64, 64)
OBJECTS = torch.tensor([[4.0, 6.0, 30.0, 40.0], [33.0, 20.0, 60.0, 50.0]])
CROWD = torch.tensor([[2.0, 41.0, 31.0, 63.0]])


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def plainly(loss: Callable[..., dict[str, Tensor]]) -> Callable[[nn.Module, Tensor, list[Target]], dict[str, Tensor]]:
    return lambda model, images, targets: loss(model(images), targets)


def with_points(
    loss: Callable[..., dict[str, Tensor]],
) -> Callable[[nn.Module, Tensor, list[Target]], dict[str, Tensor]]:
    """Losses that look at random points of the masks."""
    return lambda model, images, targets: loss(model(images), targets, generator=generator())


def with_targets(
    loss: Callable[..., dict[str, Tensor]],
) -> Callable[[nn.Module, Tensor, list[Target]], dict[str, Tensor]]:
    """Networks whose proposals are sampled with the help of the targets."""

    def losses(model: nn.Module, images: Tensor, targets: list[Target]) -> dict[str, Tensor]:
        return loss(model(images, targets=targets, generator=generator()), targets, generator=generator())

    return losses


def with_proposals(
    loss: Callable[..., dict[str, Tensor]],
) -> Callable[[nn.Module, Tensor, list[Target]], dict[str, Tensor]]:
    def losses(model: nn.Module, images: Tensor, targets: list[Target]) -> dict[str, Tensor]:
        boxes = [torch.cat([CROWD + 1, OBJECTS - 1, torch.tensor([[0.0, 0.0, 9.0, 12.0]])])] * len(images)
        return loss(model.model(images, proposals=boxes, targets=targets, generator=generator()), targets)

    return losses


LOSSES: dict[str, Callable[[nn.Module, Tensor, list[Target]], dict[str, Tensor]]] = {
    "fcos": plainly(fcos_loss),
    "condinst": plainly(condinst_loss),
    "solov2": plainly(
        lambda out, targets: solov2_loss(out, targets, ((1, 16), (8, 32), (16, 64), (32, 128), (64, 256)))
    ),
    "yolact": plainly(yolact_loss),
    "retinanet": plainly(retinanet_loss),
    "ssd": plainly(ssd_loss),
    "rcnn": with_proposals(rcnn_loss),
    "fast_rcnn": with_proposals(fast_rcnn_loss),
    "faster_rcnn": with_targets(faster_rcnn_loss),
    "mask_rcnn": with_targets(mask_rcnn_loss),
    "panoptic_fpn": with_targets(panoptic_fpn_loss),
    "detr": plainly(detr_loss),
    "detr_panoptic": plainly(detr_panoptic_loss),
    "maskformer": plainly(maskformer_loss),
    "mask2former": with_points(mask2former_loss),
    "oneformer": with_points(oneformer_loss),
    "yolo11_seg": plainly(yolo11_seg_loss),
    "yolov1": plainly(yolov1_loss),
}


def target_of(boxes: Tensor) -> Target:
    """Objects of class 1, 2 and 3 whose masks fill their boxes, and a semantic map without any of them."""
    rows, columns = torch.arange(SIZE[0])[:, None], torch.arange(SIZE[1])
    x1, y1, x2, y2 = boxes[:, :, None, None].unbind(1)
    masks = (columns >= x1) & (columns < x2) & (rows >= y1) & (rows < y2)
    labels = torch.arange(1, len(boxes) + 1)
    return {"boxes": boxes, "labels": labels, "masks": masks, "semantic": torch.zeros(SIZE, dtype=torch.int64)}


def targets_of_two_images() -> tuple[list[Target], list[Target], list[Target]]:
    """Without the crowds, with them, and with them as if they were objects. The second image has nothing but a crowd."""
    single = [target_of(OBJECTS), target_of(OBJECTS[:0])]
    objects = [target_of(torch.cat([OBJECTS, CROWD])), target_of(CROWD)]
    crowds = [{**t, "iscrowd": torch.arange(len(t["labels"])) >= n} for t, n in zip(objects, (2, 0), strict=True)]
    return single, crowds, objects


def test_every_detector_and_query_model_is_in_the_table() -> None:
    assert set(LOSSES) == set(BUILD)


@pytest.mark.parametrize("name", LOSSES)
def test_a_crowd_changes_no_loss(name: str) -> None:
    torch.manual_seed(0)
    model = BUILD[name]().double().eval()
    images = torch.rand(2, 3, *SIZE, generator=generator(), dtype=torch.float64)
    single, crowds, objects = targets_of_two_images()
    expected = LOSSES[name](model, images, single)
    got = LOSSES[name](model, images, crowds)
    for key, value in expected.items():
        assert torch.equal(value, got[key]), key
    gradients = [torch.autograd.grad(x["loss"], list(model.parameters()), allow_unused=True) for x in (expected, got)]
    for one, other in zip(*gradients, strict=True):
        assert (one is None and other is None) or torch.equal(one, other)
    as_objects = LOSSES[name](model, images, objects)  # the crowd would be learnt, if it were not left out
    assert abs(float(as_objects["loss"].detach() - expected["loss"].detach())) > 1e-4


def test_numbers_0_and_1_mark_crowds_too() -> None:
    _, crowds, _ = targets_of_two_images()
    numbers = [{**target, "iscrowd": target["iscrowd"].long()} for target in crowds]
    model, images = BUILD["retinanet"]().eval(), torch.rand(2, 3, *SIZE, generator=generator())
    assert torch.equal(retinanet_loss(model(images), numbers)["loss"], retinanet_loss(model(images), crowds)["loss"])


def test_the_machines_of_rcnn_do_not_learn_from_crowds() -> None:
    torch.manual_seed(0)
    model = BUILD["rcnn"]().model.eval()
    images = torch.rand(2, 3, *SIZE, generator=generator())
    near = torch.tensor([[3.0, 40.0, 30.0, 62.0], [5.0, 5.0, 31.0, 39.0], [30.0, 22.0, 58.0, 50.0]])
    fitted = []
    for targets in targets_of_two_images():
        outputs = model(images, proposals=add_ground_truth([near, near], targets))
        fit_heads(model, outputs, targets)
        fitted.append(torch.cat([model.svm.weight.flatten(), model.box.weight.flatten()]).clone())
    assert torch.equal(fitted[0], fitted[1]) and (fitted[0] - fitted[2]).abs().max() > 1e-3


@pytest.mark.parametrize(("task", "labels"), [("panoptic", [1, 2]), ("instance", [2]), ("semantic", [1, 2])])
def test_targets_of_each_task_have_no_crowds(task: str, labels: list[int]) -> None:
    crowd = targets_of_two_images()[1][0]
    segments = task_targets(crowd, task, things={2, 3})
    assert segments["labels"].tolist() == labels and len(segments["masks"]) == len(labels)


def test_a_batch_keeps_the_marks() -> None:
    single, crowds, _ = targets_of_two_images()
    image = torch.zeros(3, *SIZE)
    _, targets = instance_batch([{"image": image, **crowds[0]}, {"image": image, **single[0]}])
    assert set(targets[0]) == {"boxes", "labels", "masks", "iscrowd"} and set(targets[1]) == {
        "boxes",
        "labels",
        "masks",
    }
    assert targets[0]["iscrowd"].tolist() == [False, False, True]
    left = without_crowds(targets[0])
    assert all(torch.equal(left[key], single[0][key]) for key in ("boxes", "labels", "masks"))
    assert left["iscrowd"].tolist() == [False, False] and without_crowds(single[0]).keys() == single[0].keys()


@pytest.mark.parametrize(
    ("iscrowd", "error", "message"),
    [
        ([0, 0, 1], TypeError, r"^targets\[0\]\['iscrowd'\] has type list, expected a tensor"),
        (torch.tensor([0.0, 0.0, 1.0]), TypeError, "has dtype torch.float32, expected torch.bool"),
        (torch.tensor([0, 1]), ValueError, r"has shape \(2,\), expected \(3,\), one for each of boxes"),
        (torch.tensor([[0, 0, 1]]), ValueError, r"has shape \(1, 3\), expected \(3,\)"),
        (torch.tensor([0, 0, 2]), ValueError, r"has the values \[0, 2\], expected 0 and 1"),
    ],
)
@pytest.mark.parametrize("name", ["retinanet", "mask2former"])
def test_bad_marks(name: str, iscrowd: Any, error: type[Exception], message: str) -> None:
    objects = targets_of_two_images()[2]
    images = torch.rand(2, 3, *SIZE, generator=generator())
    message = message.replace("boxes", "(boxes|labels)")
    with pytest.raises(error, match=message):
        LOSSES[name](BUILD[name]().eval(), images, [{**objects[0], "iscrowd": iscrowd}, objects[1]])
