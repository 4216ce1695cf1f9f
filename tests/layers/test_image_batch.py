"""Batches of images of several sizes, against the transform of torchvision's detectors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torchvision.models.detection import transform as oracle

from segedu.layers.image_batch import pad_to_batch, resize_and_pad, resize_boxes
from segedu.layers.normalize import IMAGENET_MEAN, IMAGENET_STD, Normalize

BATCHES = [[(40, 60)], [(33, 47), (80, 21)], [(431, 17), (50, 50), (1, 3)]]


def random_images(sizes: list[tuple[int, int]], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.rand(3, *size, generator=generator, dtype=dtype) for size in sizes]


@pytest.mark.parametrize("sizes", BATCHES)
@pytest.mark.parametrize(("shortest", "longest"), [(64, 100), (50, 400), (31, 31)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equals_torchvision_once_normalised(
    sizes: list[tuple[int, int]], shortest: int, longest: int, dtype: torch.dtype
) -> None:
    images = random_images(sizes, dtype)
    theirs = oracle.GeneralizedRCNNTransform(shortest, longest, list(IMAGENET_MEAN), list(IMAGENET_STD)).eval()
    expected, _ = theirs(images)
    batch, got_sizes = resize_and_pad(images, shortest, longest, fill=IMAGENET_MEAN)
    assert batch.dtype == dtype and got_sizes == expected.image_sizes
    normalised = Normalize(IMAGENET_MEAN, IMAGENET_STD)(batch)
    torch.testing.assert_close(normalised, expected.tensors, rtol=0, atol=2e-6)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(normalised.roll(1, -1), expected.tensors, rtol=0, atol=2e-6)


def test_what_is_filled_up_is_exactly_zero_to_a_network() -> None:
    images = random_images([(8, 9), (20, 5)])
    batch, sizes = pad_to_batch(images, 16, fill=IMAGENET_MEAN)
    assert batch.shape == (2, 3, 32, 16) and sizes == [(8, 9), (20, 5)]
    inside = Normalize(IMAGENET_MEAN, IMAGENET_STD)(batch)
    for padded, normalised, image, (h, w) in zip(batch, inside, images, sizes, strict=True):
        assert torch.equal(padded[:, :h, :w], image)
        assert not normalised[:, h:].any() and not normalised[:, :, w:].any()


def test_rounded_down_as_torchvision_does() -> None:
    lengths = [n for n in range(300, 700) if int(n * (800 / n)) == 799]
    assert lengths  # there are such
    _, sizes = resize_and_pad([torch.zeros(1, lengths[0], lengths[0])], fill=[0.0])
    assert sizes == [(799, 799)]


def test_a_strip_keeps_a_row() -> None:
    batch, sizes = resize_and_pad([torch.ones(1, 1, 300)], 20, 100, 4, fill=[0.0])
    assert sizes == [(1, 100)] and batch.shape == (1, 1, 4, 100) and batch.sum() == 100


def test_gradients_reach_the_images() -> None:
    image = random_images([(7, 5)])[0].requires_grad_()
    resize_and_pad([image], 10, 20, 8, fill=IMAGENET_MEAN)[0].sum().backward()
    assert (image.grad > 0).all()


def test_boxes_equal_torchvision_and_come_back() -> None:
    boxes = torch.rand(9, 4, generator=torch.Generator().manual_seed(1)) * 50
    for sizes in (((40, 60), (80, 120)), ((33, 47), (62, 90))):
        got = resize_boxes(boxes, *sizes)
        torch.testing.assert_close(got, oracle.resize_boxes(boxes, *sizes))
        torch.testing.assert_close(resize_boxes(got, *sizes[::-1]), boxes)
    assert resize_boxes(boxes[:0], (3, 4), (5, 6)).shape == (0, 4)


GREY = torch.zeros(1, 2, 2)


@pytest.mark.parametrize(
    ("error", "words", "call"),
    [
        (ValueError, "images is empty", lambda: resize_and_pad([], fill=[0])),
        (TypeError, "images[0] has type list", lambda: resize_and_pad([[0.0]], fill=[0])),
        (TypeError, "images[1] has dtype torch.uint8", lambda: pad_to_batch([GREY, GREY.byte()], fill=[0])),
        (ValueError, "images[0] has shape (1, 1, 2, 2)", lambda: pad_to_batch([GREY[None]], fill=[0])),
        (ValueError, "images[0] has shape (1, 0, 2)", lambda: pad_to_batch([GREY[:, :0]], fill=[0])),
        (ValueError, "images[1] has shape (3, 2, 2)", lambda: pad_to_batch([GREY, GREY.repeat(3, 1, 1)], fill=[0])),
        (TypeError, "images[1] has dtype torch.float64", lambda: pad_to_batch([GREY, GREY.double()], fill=[0])),
        (ValueError, "fill has 3 entries", lambda: resize_and_pad([GREY], fill=IMAGENET_MEAN)),
        (ValueError, "multiple is 0", lambda: resize_and_pad([GREY], 4, 8, 0, fill=[0])),
        (ValueError, "shortest and longest are 9 and 8", lambda: resize_and_pad([GREY], 9, 8, fill=[0])),
        (ValueError, "shortest and longest are 0 and 8", lambda: resize_and_pad([GREY], 0, 8, fill=[0])),
        (ValueError, "boxes has shape (4,)", lambda: resize_boxes(torch.zeros(4), (1, 1), (2, 2))),
        (ValueError, "size is (0, 1)", lambda: resize_boxes(torch.zeros(1, 4), (0, 1), (2, 2))),
        (TypeError, "new_size is (2,)", lambda: resize_boxes(torch.zeros(1, 4), (1, 1), (2,))),
    ],
)
def test_bad_input(error: type, words: str, call: object) -> None:
    with pytest.raises(error) as caught:
        call()
    assert str(caught.value).startswith(words) and "expected" in str(caught.value)
