"""DenoiSeg: blind spots against their promises and chance, classes against scikit-image, the loss by hand."""

import math

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.segmentation import find_boundaries

from segedu.datasets.cells import draw_cells
from segedu.instance.denoiseg import DenoiSeg, blind_spots, denoiseg_loss, denoiseg_targets, postprocess, three_classes
from segedu.metrics.instance import match_instances
from segedu.semantic.unet import UNet


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def distinct(batch, height, width, channels=1):
    """Images in which a pixel's value says where it comes from."""
    return torch.arange(float(batch * height * width)).reshape(batch, 1, height, width).repeat(1, channels, 1, 1)


@pytest.mark.parametrize("size", [(64, 48), (13, 21), (1, 30), (2, 1), (9, 9)])
@pytest.mark.parametrize(("side", "radius"), [(8, 2), (3, 1), (1, 4)])
def test_blind_spots_hold_a_neighbour(size, side, radius):
    images = distinct(3, *size, channels=2)
    before = images.clone()
    changed, chosen = blind_spots(images, side, radius, seeded())
    assert torch.equal(images, before) and chosen.dtype == torch.bool and chosen.shape == (3, *size)
    assert torch.equal(changed[:, 0] != images[:, 0], chosen)  # never its own value, and nothing else changes
    assert torch.equal(changed[:, 0], changed[:, 1])
    b, y, x = chosen.nonzero().T
    source = changed[b, 0, y, x].long()
    at, row, column = source // (size[0] * size[1]), source // size[1] % size[0], source % size[1]
    assert torch.equal(at, b)
    assert (torch.maximum((row - y).abs(), (column - x).abs()) <= radius).all()
    for top in range(0, size[0], side):
        for left in range(0, size[1], side):
            square = chosen[:, top : top + side, left : left + side]
            whole = top + side <= size[0] and left + side <= size[1]
            count = square.sum(dim=(1, 2))
            assert (count == 1).all() if whole else (count <= 1).all()


def test_every_pixel_and_every_neighbour_is_as_likely_as_any_other():
    draws = 20000
    images = distinct(1, 5, 7).expand(draws, 1, 5, 7).clone()
    changed, chosen = blind_spots(images, side=3, radius=1, generator=seeded())
    share = chosen.float().mean(dim=0)
    assert (share - 1 / 9).abs().max() < 5 * math.sqrt(1 / 9 * 8 / 9 / draws)
    for place, neighbours in (((2, 3), 8), ((0, 0), 3), ((4, 3), 5)):
        values = changed[:, 0][:, place[0], place[1]][chosen[:, place[0], place[1]]]
        counts = values.unique(return_counts=True)[1] / len(values)
        assert len(counts) == neighbours
        assert (counts - 1 / neighbours).abs().max() < 5 * math.sqrt(1 / neighbours / len(values))


def test_the_generator_decides():
    images = distinct(2, 33, 20)
    one, two, other = (blind_spots(images, generator=seeded(n)) for n in (1, 1, 2))
    assert torch.equal(one[0], two[0]) and torch.equal(one[1], two[1]) and not torch.equal(one[1], other[1])
    assert not torch.equal(one[1][0], one[1][1])  # images of a batch have their own


# --- classes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_classes_equal_scikit_image(seed):
    label_map = draw_cells((9, seed), (67, 81), touching=1.0)["label_map"]
    labels = label_map.numpy()
    # "outer": background beside a cell, and pixels of cells beside another cell
    right = np.where(find_boundaries(labels, connectivity=1, mode="outer") & (labels == 0), 2, labels > 0)
    for label in np.unique(labels[labels > 0]):
        near = ndimage.binary_dilation(labels == label, np.ones((3, 3)))
        right[near & (labels > 0) & (labels != label)] = 2
    found = three_classes(label_map)
    assert found.dtype == torch.int64
    np.testing.assert_array_equal(found.numpy(), right)
    assert (right == 2).any() and ((right == 2) & (labels > 0)).any()


def test_classes_by_hand():
    cells = torch.zeros(5, 6, dtype=torch.int64)
    cells[0:2, 0:2], cells[2, 2], cells[4, 5] = 2**31 - 1, 5, 1
    right = [[1, 1, 2, 0, 0, 0], [1, 2, 2, 0, 0, 0], [2, 2, 2, 2, 0, 0], [0, 0, 2, 0, 0, 2], [0, 0, 0, 0, 2, 1]]
    assert three_classes(cells).tolist() == right
    assert not three_classes(torch.zeros(3, 4, dtype=torch.uint8)).any()
    assert (three_classes(torch.full((3, 4), 9)) == 1).all()
    assert three_classes(torch.tensor([[60000, 0]], dtype=torch.uint16)).tolist() == [[1, 2]]
    assert (denoiseg_targets(cells, labelled=False)["classes"] == 255).all()
    assert torch.equal(denoiseg_targets(cells)["classes"], three_classes(cells))


def ideal(label_map):
    return {"logits": 9 * torch.nn.functional.one_hot(three_classes(label_map), 3).permute(2, 0, 1)[None].float()}


def test_the_round_trip_keeps_cells_apart():
    for seed in range(5):
        label_map = draw_cells((4, seed), (101, 127))["label_map"]
        (found,) = postprocess(ideal(label_map))
        assert found.dtype == torch.int32
        assert match_instances(found, label_map, 0.5)[1:] == (0, 0)
        border = (label_map > 0) & (found == 0)
        assert border.any() and border.sum() < 0.2 * (label_map > 0).sum()


def test_pieces_thresholds_and_sizes():
    logits = torch.zeros(2, 3, 4, 6)
    logits[0, 1, 0, 0] = logits[0, 1, 1, 1] = 5.0  # touch at a corner: one
    logits[0, 1, 3, 3:] = 0.8  # probability 0.527
    first, second = postprocess({"logits": logits})
    assert first.tolist() == [[1, 0, 0, 0, 0, 0], [0, 1, 0, 0, 0, 0], [0] * 6, [0, 0, 0, 2, 2, 2]]
    assert not second.any()
    assert postprocess({"logits": logits}, foreground_threshold=0.53)[0].max() == 1
    third = postprocess({"logits": logits}, min_size=3)[0]
    assert third.tolist() == [[0] * 6, [0] * 6, [0] * 6, [0, 0, 0, 1, 1, 1]]


# --- network and loss -------------------------------------------------------------------------------------------


def by_hand(alpha, classes=(0, 1)):
    images = torch.tensor([[[[0.0, 1.0]]]])  # variance 1/4
    outputs = {"denoised": torch.tensor([[[[0.5, 0.75]]]]), "logits": torch.zeros(1, 3, 1, 2)}
    outputs["logits"][0, 1, 0, 1] = math.log(2)
    blind = torch.tensor([[[False, True]]])
    return denoiseg_loss(outputs, {"images": images, "blind": blind, "classes": torch.tensor([[classes]])}, alpha)


def test_loss_by_hand():
    losses = by_hand(0.25)
    assert losses["denoising"].item() == pytest.approx(0.25 * 0.25**2 * 4)  # the pixel that was not blind is no matter
    assert losses["segmentation"].item() == pytest.approx(0.75 * (math.log(3) + math.log(2)) / 2)
    assert losses["loss"] == losses["denoising"] + losses["segmentation"]
    assert by_hand(1.0)["segmentation"] == by_hand(0.0)["denoising"] == 0
    assert by_hand(0.25, (255, 1))["segmentation"].item() == pytest.approx(0.75 * math.log(2))
    assert by_hand(0.25, (255, 255))["loss"] == losses["denoising"]


class Numbers(torch.nn.Module):
    """Channel n is n everywhere."""

    def forward(self, images):
        channels = torch.arange(float(images.shape[1] + 3))[None, :, None, None]
        return channels.expand(len(images), -1, *images.shape[2:])


@pytest.mark.parametrize("channels", [1, 3])
def test_the_image_comes_first_and_then_the_classes(channels):
    outputs = DenoiSeg(Numbers())(torch.zeros(2, channels, 4, 5))
    assert outputs["denoised"][1, :, 0, 0].tolist() == list(range(channels))
    assert outputs["logits"][1, :, 0, 0].tolist() == list(range(channels, channels + 3))


def test_images_without_labels_only_teach_denoising():
    torch.manual_seed(0)
    model = DenoiSeg(UNet(1, 4, 4, depth=1, padding=1))
    scenes = [draw_cells((6, seed), (32, 24)) for seed in range(2)]
    images = torch.stack([scene["image"][:1] for scene in scenes])
    changed, blind = blind_spots(images, 4, generator=seeded())
    classes = [denoiseg_targets(scene["label_map"], labelled=n == 0)["classes"] for n, scene in enumerate(scenes)]
    outputs = model(changed)
    outputs = {key: value.detach().requires_grad_() for key, value in outputs.items()}
    targets = {"images": images, "blind": blind, "classes": torch.stack(classes)}
    denoiseg_loss(outputs, targets)["loss"].backward()
    assert outputs["logits"].grad[0].abs().min() > 0 and not outputs["logits"].grad[1].any()
    assert torch.equal(outputs["denoised"].grad[:, 0] != 0, blind)


@pytest.mark.learns
def test_learns_one_batch_and_removes_noise():
    scene = draw_cells((6, 4), (24, 28), noise=0.0)
    clean = scene["image"][None, :1]
    noisy = (clean + 0.15 * torch.randn(clean.shape, generator=seeded())).clamp(0, 1)
    torch.manual_seed(0)
    model = DenoiSeg(UNet(1, 4, 8, depth=1, padding=1))
    optimiser = torch.optim.Adam(model.parameters(), 5e-3)
    classes, generator = denoiseg_targets(scene["label_map"])["classes"][None], seeded(1)
    for _ in range(60):
        changed, blind = blind_spots(noisy, 4, generator=generator)
        losses = denoiseg_loss(model(changed), {"images": noisy, "blind": blind, "classes": classes})
        optimiser.zero_grad()
        losses["loss"].backward()
        optimiser.step()
    outputs = model(noisy)
    assert (outputs["denoised"] - clean).square().mean() < 0.5 * (noisy - clean).square().mean()
    assert (outputs["logits"].argmax(dim=1) == classes).float().mean() > 0.8


IMAGES, MAP = torch.rand(2, 1, 4, 5), torch.zeros(4, 5, dtype=torch.int32)
OUT = {"denoised": IMAGES, "logits": torch.zeros(2, 3, 4, 5)}
TRUE = {"images": IMAGES, "blind": torch.zeros(2, 4, 5).bool(), "classes": torch.zeros(2, 4, 5).long()}


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: blind_spots(IMAGES.numpy()), TypeError, "images has type ndarray, expected"),
        (lambda: blind_spots(IMAGES.byte()), TypeError, "images has dtype torch.uint8, expected"),
        (lambda: blind_spots(IMAGES[0]), ValueError, r"images has shape \(1, 4, 5\), expected"),
        (lambda: blind_spots(IMAGES[..., :1, :1]), ValueError, r"images has shape \(2, 1, 1, 1\), expected"),
        (lambda: blind_spots(IMAGES, side=0), ValueError, "side is 0, expected"),
        (lambda: blind_spots(IMAGES, radius=0), ValueError, "radius is 0, expected"),
        (lambda: three_classes(MAP.numpy()), TypeError, "label_map has type ndarray, expected"),
        (lambda: three_classes(MAP.float()), TypeError, "label_map has dtype torch.float32, expected"),
        (lambda: three_classes(MAP[0]), ValueError, r"label_map has shape \(5,\), expected"),
        (lambda: three_classes(MAP[:0]), ValueError, r"label_map has shape \(0, 5\), expected"),
        (lambda: three_classes(MAP - 1), ValueError, "label_map has the label -1, expected"),
        (
            lambda: DenoiSeg(UNet(1, 3, 2, 1, 1))(IMAGES),
            ValueError,
            r"network\(images\) has shape .*, expected \(B, 4, H, W\)",
        ),
        (lambda: denoiseg_loss(OUT, TRUE, alpha=1.1), ValueError, "alpha is 1.1, expected"),
        (lambda: denoiseg_loss({}, TRUE), ValueError, r"outputs has the keys \[\], expected denoised, logits"),
        (lambda: denoiseg_loss(OUT, {}), ValueError, r"targets has the keys \[\], expected images, blind, classes"),
        (
            lambda: denoiseg_loss(OUT, TRUE | {"blind": IMAGES[:, 0]}),
            TypeError,
            r"targets\['blind'\] has dtype torch.float32",
        ),
        (
            lambda: denoiseg_loss(OUT, TRUE | {"images": IMAGES[:1]}),
            ValueError,
            r"targets\['images'\] has shape \(1, 1, 4, 5\), expected",
        ),
        (lambda: denoiseg_loss(OUT, TRUE | {"classes": TRUE["classes"] + 3}), ValueError, "target has the value 3"),
        (lambda: postprocess(OUT, 1.5), ValueError, "foreground_threshold is 1.5, expected"),
        (lambda: postprocess(OUT, float("nan")), ValueError, "foreground_threshold is nan, expected"),
        (lambda: denoiseg_loss(OUT | {"logits": IMAGES}, TRUE), ValueError, r"outputs\['logits'\] has shape"),
        (lambda: DenoiSeg(torch.nn.Flatten())(IMAGES), ValueError, r"network\(images\) has shape"),
        (lambda: postprocess({}), ValueError, r"outputs has the keys \[\], expected logits"),
        (
            lambda: postprocess({"logits": IMAGES}),
            ValueError,
            r"outputs\['logits'\] has shape \(2, 1, 4, 5\), expected",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
