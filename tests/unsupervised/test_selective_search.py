"""Selective search against OpenCV's and against the paper read literally, from the same first regions.

OpenCV's colour, size and fill are ours; its texture is not (Scharr filters and images turned by 45 degrees for
Gaussian derivatives). Its regions are neighbours if a pixel touches one to the left, above, or above to the left,
and not in the first row and column: given those pairs, our boxes are its boxes.
"""

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage import data

from segedu.datasets.shapes import draw_shapes
from segedu.ops.boxes import box_iou
from segedu.unsupervised import selective_search as search_file
from segedu.unsupervised.selective_search import (
    FAST,
    Strategy,
    Weights,
    hierarchical_grouping,
    selective_search,
    unit_lab,
)

cv2 = pytest.importorskip("cv2")
peer = pytest.importorskip("cv2.ximgproc").segmentation
PARTS = ("Color", "Texture", "Size", "Fill")


def photograph(name):
    pixels = getattr(data, name)()[:300, :400]
    return np.ascontiguousarray(pixels)


def tensor_of(pixels):
    """Bytes over 256: OpenCV's bins are those of 0 to 256."""
    return torch.from_numpy(pixels).permute(2, 0, 1).double() / 256


def strategy(part):
    return getattr(peer, f"createSelectiveSearchSegmentationStrategy{part}")()


def theirs(pixels, weights):
    """OpenCV's first regions, and its boxes as a set of corners."""
    graph = peer.createGraphSegmentation(0.8, 150, 100)
    search, several = peer.createSelectiveSearchSegmentation(), peer.createSelectiveSearchSegmentationStrategyMultiple()
    search.setBaseImage(pixels)
    search.addImage(pixels)
    search.addGraphSegmentation(graph)
    for part, weight in zip(PARTS, weights, strict=True):
        if weight:
            several.addStrategy(strategy(part), weight)
    search.addStrategy(several)
    boxes = {(x, y, x + w, y + h) for x, y, w, h in search.process().tolist()}
    return graph.processImage(pixels), boxes


def as_set(boxes):
    return {tuple(box) for box in boxes.int().tolist()}


def opencv_pairs(region):
    count = region.max() + 1
    here = region[1:, 1:]
    codes = [np.minimum(here, b) * count + np.maximum(here, b) for b in (region[1:, :-1], region[:-1, 1:])]
    codes.append(np.minimum(here, region[:-1, :-1]) * count + np.maximum(here, region[:-1, :-1]))
    pairs = np.stack(np.divmod(np.unique(codes), count), axis=1)
    return pairs[pairs[:, 0] != pairs[:, 1]]


# --- OpenCV -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("part", "alike"), [("Color", True), ("Size", True), ("Fill", True), ("Texture", False)])
def test_similarities_equal_opencv(part, alike):
    pixels = photograph("coffee")
    region = peer.createGraphSegmentation(0.8, 150, 100).processImage(pixels)
    count = region.max() + 1
    judge = strategy(part)
    judge.setImage(pixels, region, np.bincount(region.ravel()).astype(np.int32)[:, None])
    weights = Weights(*(float(part == other) for other in PARTS))
    regions = search_file._Regions(tensor_of(pixels).numpy(), region, count, weights)
    one, other = np.triu_indices(count, 1)
    right = [judge.get(int(a), int(b)) for a, b in zip(one, other, strict=True)]
    ours = regions.similarity(one, other)
    if part == "Fill":  # OpenCV's stops at 1 and at 0
        ours = ours.clip(0, 1)
    if alike:
        np.testing.assert_allclose(ours, right, rtol=0, atol=1e-6)
    else:
        print(f"texture: correlation {np.corrcoef(ours, right)[0, 1]:.3f}")
        assert np.corrcoef(ours, right)[0, 1] > 0.9


WITHOUT_TEXTURE = [(1, 0, 1, 1), (1, 0, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1)]


@pytest.mark.parametrize("weights", WITHOUT_TEXTURE)
@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee"])
def test_boxes_equal_opencv(monkeypatch, name, weights):
    pixels = photograph(name)
    region, right = theirs(pixels, weights)
    near = as_set(hierarchical_grouping(tensor_of(pixels), torch.from_numpy(region), weights))
    print(f"{name} {weights}: {len(right)} boxes, with our neighbours {len(near)}, in common {len(near & right)}")
    assert len(near & right) > 0.9 * len(near | right)
    monkeypatch.setattr(search_file, "_adjacent_pairs", opencv_pairs)
    assert as_set(hierarchical_grouping(tensor_of(pixels), torch.from_numpy(region), weights)) == right


@pytest.mark.parametrize("name", ["astronaut", "chelsea", "coffee"])
def test_with_texture_most_boxes_are_opencvs(name):
    pixels = photograph(name)
    region, right = theirs(pixels, (1, 1, 1, 1))
    ours = as_set(hierarchical_grouping(tensor_of(pixels), torch.from_numpy(region)))
    print(f"{name}: {len(right)} and {len(ours)} boxes, {len(ours & right)} in common")
    assert len(ours & right) > 0.8 * len(ours | right)


@pytest.mark.parametrize("mistake", ["no merging of histograms", "four bins", "boxes from parts"])
def test_parity_notices_a_mistake(monkeypatch, mistake):
    pixels = photograph("coffee")
    region, right = theirs(pixels, (1, 0, 1, 1))
    monkeypatch.setattr(search_file, "_adjacent_pairs", opencv_pairs)
    merge = search_file._Regions.merge

    def wrong(self, one, other):
        made = merge(self, one, other)
        if mistake[0] == "n":
            self.histograms[made] = self.histograms[one]
        elif mistake[0] == "b":
            self.boxes[made] = self.boxes[one]
        return made

    monkeypatch.setattr(search_file._Regions, "merge", wrong)
    if mistake == "four bins":
        monkeypatch.setattr(search_file, "COLOUR_BINS", 4)
    assert as_set(hierarchical_grouping(tensor_of(pixels), torch.from_numpy(region), (1, 0, 1, 1))) != right


def recall_of(boxes, truth, threshold=0.5):
    return int((box_iou(truth, boxes).amax(dim=1) >= threshold).sum())


def test_recall_of_true_boxes_beside_opencv():
    rows = {name: [0, 0] for name in ("ours, single", "ours, fast", "OpenCV, single", "OpenCV, fast")}
    total = 0
    for seed in range(8):
        scene = draw_shapes(seed, (128, 128))
        pixels = (scene["image"] * 255).round().byte().permute(1, 2, 0).numpy()
        search = peer.createSelectiveSearchSegmentation()
        search.setBaseImage(np.ascontiguousarray(pixels[:, :, ::-1]))
        search.switchToSingleStrategy(100, 0.8)
        single = search.process()
        search.switchToSelectiveSearchFast()
        found = [selective_search(scene["image"]), selective_search(scene["image"], FAST)]
        for boxes in (single, search.process()):
            x, y, w, h = torch.from_numpy(boxes).float().unbind(1)
            found.append(torch.stack([x, y, x + w, y + h], dim=1))
        for row, boxes in zip(rows.values(), found, strict=True):
            row[0] += recall_of(boxes, scene["boxes"])
            row[1] += len(boxes)
        total += len(scene["boxes"])
    for name, (hits, boxes) in rows.items():
        print(f"{name}: recall {hits / total:.3f} of {total} boxes at IoU 0.5, {boxes / 8:.0f} boxes a scene")
    assert rows["ours, fast"][0] >= rows["OpenCV, fast"][0] - 0.03 * total and rows["ours, fast"][0] > 0.95 * total
    assert rows["ours, single"][0] >= rows["OpenCV, single"][0] - 0.1 * total


# --- the paper --------------------------------------------------------------------------------------------------


def by_paper(image, labels, weights):
    """Algorithm 1 with sets of pixels: every similarity is counted anew from the pixels of both regions."""
    channels, height, width = image.shape
    bins = [np.minimum((image * 25).astype(int), 24)]
    for channel in image:
        down, right = ndimage.gaussian_filter1d(channel, 1, 0, 1), ndimage.gaussian_filter1d(channel, 1, 1, 1)
        down, right = ndimage.gaussian_filter1d(down, 1, 1), ndimage.gaussian_filter1d(right, 1, 0)
        top = max(np.hypot(down, right).max(), 1e-12)
        turned = [np.cos(k * np.pi / 4) * right + np.sin(k * np.pi / 4) * down for k in range(8)]
        bins.append(np.minimum((np.array(turned).clip(0) / top * 10).astype(int), 9))

    def histogram(pixels, stack, count):
        rows, columns = zip(*pixels, strict=True)
        parts = [np.bincount(plane[list(rows), list(columns)], minlength=count) for plane in stack]
        return np.concatenate(parts) / (len(stack) * len(pixels))

    def box(pixels):
        rows, columns = zip(*pixels, strict=True)
        return min(columns), min(rows), max(columns) + 1, max(rows) + 1

    def alike(a, b):
        colour = np.minimum(histogram(a, bins[0], 25), histogram(b, bins[0], 25)).sum()
        texture = np.minimum(*(histogram(p, np.concatenate(bins[1:]), 10) for p in (a, b))).sum()
        x1, y1, x2, y2 = box(a | b)
        size = len(a | b) / (height * width)
        fill = (x2 - x1) * (y2 - y1) / (height * width) - size
        return np.dot(weights, (colour, texture, 1 - size, 1 - fill))

    def touch(a, b):
        return any(max(abs(r - i), abs(c - j)) == 1 for r, c in a for i, j in b)

    regions = [{(int(r), int(c)) for r, c in np.argwhere(labels == k)} for k in np.unique(labels)]
    boxes = [box(pixels) for pixels in regions]
    while len(regions) > 1:
        pairs = [(a, b) for i, b in enumerate(regions) for a in regions[:i] if touch(a, b)]
        a, b = max(pairs, key=lambda pair: alike(*pair))
        regions = [r for r in regions if r is not a and r is not b] + [a | b]
        boxes.append(box(a | b))
    return boxes


@pytest.mark.parametrize("weights", [(1, 1, 1, 1), (0, 1, 0, 0), (1, 0.5, 0, 2)])
def test_grouping_equals_the_paper_read_literally(weights):
    for seed in range(4):
        rng = np.random.default_rng(seed)
        height, width = rng.integers(6, 12, 2)
        image = ndimage.gaussian_filter(rng.random((3, height, width)), (0, 1, 1))
        seeds = np.stack([rng.integers(0, n, 7) for n in (height, width)], axis=1)
        away = ((np.indices((height, width)).transpose(1, 2, 0)[:, :, None] - seeds) ** 2).sum(-1)
        labels = away.argmin(-1) * 3 + 5  # any numbers will do
        found = hierarchical_grouping(torch.from_numpy(image), torch.from_numpy(labels), weights).int().tolist()
        assert list(map(tuple, found)) == by_paper(image, labels, weights)


# --- the whole --------------------------------------------------------------------------------------------------


def test_boxes_are_ordered_and_different():
    image = draw_shapes(3, (96, 128))["image"]
    boxes = selective_search(image, FAST)
    assert boxes.dtype == torch.float32 and boxes[0].tolist() == [0, 0, 128, 96]  # the whole image first
    assert len(boxes.unique(dim=0)) == len(boxes)
    assert (boxes[:, 2:] > boxes[:, :2]).all() and boxes.min() >= 0
    singles = [as_set(selective_search(image, [one])) for one in FAST]
    assert as_set(boxes) == set().union(*singles) and len(boxes) > max(map(len, singles))


def test_random_order_depends_on_the_generator_only():
    image = draw_shapes(3)["image"]
    plain = selective_search(image, FAST)
    one, again, other = (selective_search(image, FAST, generator=torch.Generator().manual_seed(s)) for s in (0, 0, 1))
    assert torch.equal(one, again) and not torch.equal(one, other) and not torch.equal(one, plain)
    assert as_set(one) == as_set(other) == as_set(plain)


def test_unit_lab_stays_in_range():
    colours = torch.cartesian_prod(*[torch.linspace(0, 1, 9)] * 3).T.reshape(3, 27, 27)
    lab = unit_lab(colours)
    assert lab.min() >= 0 and lab.max() <= 1 and lab.flatten(1).std(dim=1).min() > 0.05


def test_one_pixel_constant_and_one_region():
    assert selective_search(torch.zeros(3, 1, 1)).tolist() == [[0, 0, 1, 1]]
    assert selective_search(torch.full((3, 5, 9), 0.4), FAST).tolist() == [[0, 0, 9, 5]]
    assert hierarchical_grouping(torch.rand(3, 2, 3), torch.zeros(2, 3).int()).tolist() == [[0, 0, 3, 2]]


def test_arguments_are_left_as_they_were():
    image, labels = torch.rand(3, 6, 7), torch.arange(42).reshape(6, 7)
    copies = image.clone(), labels.clone()
    hierarchical_grouping(image, labels)
    selective_search(image)
    assert torch.equal(image, copies[0]) and torch.equal(labels, copies[1])


IMAGE, LABELS = torch.zeros(3, 4, 5), torch.zeros(4, 5).long()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: selective_search(IMAGE.numpy()), TypeError, "image has type ndarray, expected"),
        (lambda: selective_search(IMAGE.byte()), TypeError, "image has dtype torch.uint8, expected"),
        (lambda: selective_search(IMAGE[None]), ValueError, r"image has shape \(1, 3, 4, 5\), expected"),
        (lambda: selective_search(IMAGE, []), ValueError, "strategies is empty, expected"),
        (lambda: selective_search(IMAGE, [Strategy(scale=-1.0)], min_size=1), ValueError, "scale is -1.0, expected"),
        (lambda: hierarchical_grouping(IMAGE + 2, LABELS), ValueError, r"image has values outside \[0, 1\], expected"),
        (lambda: hierarchical_grouping(IMAGE, LABELS.float()), TypeError, "labels has dtype torch.float32, expected"),
        (lambda: hierarchical_grouping(IMAGE, LABELS.tolist()), TypeError, "labels has type list, expected"),
        (lambda: hierarchical_grouping(IMAGE, LABELS.mT), ValueError, r"labels has shape \(5, 4\), expected"),
        (
            lambda: hierarchical_grouping(IMAGE, LABELS, (1, -1, 1, 1)),
            ValueError,
            r"weights is \(1, -1, 1, 1\), expected",
        ),
    ],
)
def test_bad_input(call, error, message):
    with pytest.raises(error, match=message):
        call()
