"""Panoptic quality against the paper read literally: masks, every pair of segments, one after the other."""

import functools
import math
from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from segedu.metrics.panoptic import PanopticQuality, panoptic_quality

K = 6  # classes: 0 to 2 stuff, 3 to 5 things; random maps leave some of them out
NUMBERS = ("pq", "sq", "rq", "num_classes")


def literal(images, num_classes=K):
    """Section 4 of arXiv 1801.00868, sentence by sentence, on lists of (class, crowd, mask)."""
    iou_sum, tp, fp, fn = ([0.0] * num_classes for _ in range(4))
    for preds, target in images:
        segments, truth = as_masks(preds, crowds=False), as_masks(target, crowds=True)
        void = np.asarray(target["panoptic_seg"]) == 0
        matched = set()
        for j, (true_class, crowd, true) in enumerate(truth):
            for i, (pred_class, _, pred) in enumerate(segments):
                if pred_class != true_class or crowd:
                    continue
                # "all void pixels in the ground truth are removed from the prediction"
                iou = (pred & true).sum() / ((pred & ~void) | true).sum()
                if iou > 0.5:
                    iou_sum[true_class] += iou
                    tp[true_class] += 1
                    matched |= {("target", j), ("preds", i)}
        for j, (true_class, crowd, _) in enumerate(truth):
            fn[true_class] += ("target", j) not in matched and not crowd
        for i, (pred_class, _, pred) in enumerate(segments):
            unknown = void.copy()
            for true_class, crowd, true in truth:
                if crowd and true_class == pred_class:
                    unknown |= true
            if ("preds", i) not in matched and (pred & unknown).sum() / pred.sum() <= 0.5:
                fp[pred_class] += 1
    return [(s, t, p, n) for s, t, p, n in zip(iou_sum, tp, fp, fn, strict=True)]


def as_masks(side, crowds):
    """(class, crowd, mask) of every segment; all regions of a stuff class are one segment."""
    pixels, segments = np.asarray(side["panoptic_seg"]), {}
    for info in side["segments_info"]:
        crowd = crowds and bool(info.get("iscrowd", 0))
        key = (info["category_id"], crowd, info["id"] if info["isthing"] else "stuff")
        segments[key] = segments.get(key, False) | (pixels == info["id"])
    return [(category, crowd, mask) for (category, crowd, _), mask in segments.items()]


def table(rows):
    """pq, sq, rq of each class and their means from the literal counts."""
    per_class = []
    for iou, tp, fp, fn in rows:
        size = tp + fp / 2 + fn / 2
        per_class.append((iou / size, iou / tp if tp else 0.0, tp / size) if size else (math.nan,) * 3)
    means = {}
    for name, classes in (("all", range(K)), ("things", range(3, K)), ("stuff", range(3))):
        values = [per_class[c] for c in classes if not math.isnan(per_class[c][0])]
        means[name] = [*np.mean(values, axis=0), len(values)] if values else [math.nan] * 3 + [0]
    return per_class, means


def random_image(seed, shape=(18, 25)):
    """A truth of rectangles with void, crowds and absent classes, and a prediction that moves and relabels some."""
    rng = np.random.default_rng(seed)
    classes = rng.choice(K, size=rng.integers(1, K + 1), replace=False)
    target = np.zeros(shape, dtype=np.int32)
    preds = np.zeros(shape, dtype=np.int32)
    names = rng.choice(2**24 if seed % 2 else 99, size=(2, 14), replace=False) + 1
    infos = [], []
    for true_id, pred_id in names.T.tolist():
        category, (y, x) = int(rng.choice(classes)), rng.integers(0, shape)
        height, width = rng.integers(2, 14, size=2)
        target[y : y + height, x : x + width] = true_id
        dy, dx, h, w = *rng.integers(-1, 2, size=2), *rng.integers(0, 2, size=2)
        preds[max(y + dy, 0) : y + dy + height + h, max(x + dx, 0) : x + dx + width + w] = pred_id
        other = int(rng.choice(classes)) if rng.random() < 0.15 else category
        crowd = {"iscrowd": 1} if category >= 3 and rng.random() < 0.25 else {}
        infos[0].append({"id": pred_id, "category_id": other, "isthing": other >= 3})
        infos[1].append({"id": true_id, "category_id": category, "isthing": category >= 3, **crowd})
    for seg in (preds, target):  # holes of void
        y, x = rng.integers(0, shape)
        seg[y : y + 7, x : x + 7] = 0
    return tuple(
        {"panoptic_seg": seg, "segments_info": [i for i in info if (seg == i["id"]).any()]}
        for seg, info in zip((preds, target), infos, strict=True)
    )


def one_pass(images):
    total = PanopticQuality(K)
    for preds, target in images:
        total.update(preds, target)
    return total.compute()


SETS = [[random_image(100 * s + i) for i in range(size)] for s, size in enumerate((1, 1, 1, 1, 1, 1, 2, 3, 6, 6))]


@functools.cache
def expected():
    return [literal(images) for images in SETS]


def compare(ours):
    for images, rows in zip(SETS, expected(), strict=True):
        got = ours(images)
        per_class, means = table(rows)
        counts = got["per_class"]
        for i, name in enumerate(("true_positive", "false_positive", "false_negative")):
            assert counts[name].tolist() == [row[i + 1] for row in rows]
        ours_per_class = torch.stack([counts[name] for name in ("pq", "sq", "rq")], dim=1)
        np.testing.assert_allclose(ours_per_class, per_class, rtol=1e-13, atol=0)
        for name, part in (("all", got), ("things", got["things"]), ("stuff", got["stuff"])):
            np.testing.assert_allclose([part[n] for n in NUMBERS], means[name], rtol=1e-13, atol=0)


def test_equals_the_literal_paper():
    compare(one_pass)


def test_random_maps_have_everything():
    results = [table(rows) for rows in expected()]
    assert any(math.isnan(pq) for per_class, _ in results for pq, _, _ in per_class)  # absent classes
    assert any(means["stuff"][3] == 0 or means["things"][3] == 0 for _, means in results)
    assert (np.sum(expected(), axis=(0, 1)) > 10).all()  # TP, FP and FN
    for rule in ("void", "crowd"):  # each decides something
        assert any(rows != literal(without(images, rule)) for images, rows in zip(SETS, expected(), strict=True))


def without(images, rule):
    """The same images with void as one more thing, or with crowds as common things."""
    changed = []
    for preds, target in images:
        infos = [{k: v for k, v in i.items() if k != "iscrowd" or rule == "void"} for i in target["segments_info"]]
        target = {**target, "segments_info": infos}
        changed.append((preds, fill(target) if rule == "void" else target))
    return changed


def changed(drop=(), **values):
    """Our function on the same images, with every segment's entry changed."""

    def entry(info):
        return {**{k: v for k, v in info.items() if k not in drop}, **values}

    def perturbed(images):
        sides = [[{**side, "segments_info": [entry(i) for i in side["segments_info"]]} for side in p] for p in images]
        return one_pass(sides)

    return perturbed


def void_as_a_class(images):
    """Void counted as pixels of a segment that nobody matches: unions grow."""
    seen = []
    for preds, target in images:
        pixels, infos = target["panoptic_seg"], list(target["segments_info"])
        if (pixels == 0).any():
            crowd = {"id": 2**24, "category_id": 5, "isthing": True, "iscrowd": 1}
            pixels, infos = np.where(pixels == 0, 2**24, pixels), [*infos, crowd]
        seen.append((preds, {"panoptic_seg": pixels, "segments_info": infos}))
    return one_pass(seen)


def scaled(images):
    result = one_pass(images)
    return {**result, "pq": result["pq"] * (1 + 1e-12)}


PERTURBED = {
    "no crowds": changed(drop=("iscrowd",)),
    "stuff split into things": changed(isthing=True),
    "void as a class": void_as_a_class,
    "scaled": scaled,
    "roles exchanged": lambda images: one_pass([(target, preds) for preds, target in images]),
    "mean of images": lambda images: one_pass(images[:-1]),
}


@pytest.mark.parametrize("name", PERTURBED)
def test_comparison_refuses_a_perturbed_function(name):
    with pytest.raises(AssertionError):
        compare(PERTURBED[name])


def image(row, *infos):
    """One row of pixels; infos are (id, class, crowd), all things."""
    listed = [{"id": i, "category_id": c, "isthing": True, "iscrowd": int(crowd)} for i, c, crowd in infos]
    return {"panoptic_seg": np.array([row]), "segments_info": listed}


def counts_of(preds, target, category=0, num_classes=2):
    per_class = panoptic_quality(preds, target, num_classes)["per_class"]
    return tuple(int(per_class[n][category]) for n in ("true_positive", "false_positive", "false_negative"))


def test_iou_of_one_half_is_no_match():
    half, more = image([1, 1, 0, 0], (1, 0, 0)), image([1, 1, 1, 0], (1, 0, 0))
    truth = image([1, 1, 1, 1], (1, 0, 0))
    assert counts_of(half, truth) == (0, 1, 1)
    assert counts_of(more, truth) == (1, 0, 0)


def test_void_leaves_the_union_and_excuses():
    truth = image([1, 1, 0, 0, 0, 0], (1, 0, 0))
    # 2 of 2 true pixels, and 4 void ones: IoU 2/2, not 2/6
    result = panoptic_quality(image([1] * 6, (1, 0, 0)), truth, 1)
    assert result["pq"] == 1
    # exactly half void is a false positive, more than half is none
    beside = image([0, 2, 2, 0, 0, 0], (2, 1, 0))
    assert counts_of(beside, truth, category=1) == (0, 1, 0)
    assert counts_of(image([0, 2, 2, 2, 0, 0], (2, 1, 0)), truth, category=1) == (0, 0, 0)


def test_crowd_excuses_its_own_class_only():
    truth = image([1, 1, 1, 1], (1, 0, 1))
    assert counts_of(image([3, 3, 3, 3], (3, 0, 0)), truth) == (0, 0, 0)  # no match, no FP, no FN
    assert counts_of(image([3, 3, 3, 3], (3, 1, 0)), truth, category=1) == (0, 1, 0)
    result = panoptic_quality(image([3, 3, 3, 3], (3, 0, 0)), truth, 2)
    assert math.isnan(result["pq"]) and result["num_classes"] == 0


def test_void_and_crowd_excuse_together():
    truth = image([1, 0, 2, 2], (1, 0, 1), (2, 1, 0))
    assert counts_of(image([3, 3, 3, 0], (3, 0, 0)), truth) == (0, 0, 0)  # 1 crowd + 1 void of 3
    assert counts_of(image([3, 0, 3, 0], (3, 0, 0)), truth) == (0, 1, 0)  # 1 of 2


def test_two_crowds_of_a_class_excuse_together():
    truth = image([1, 2, 3, 3], (1, 0, 1), (2, 0, 1), (3, 1, 0))
    assert counts_of(image([4, 4, 4, 0], (4, 0, 0)), truth) == (0, 0, 0)


def excused_by_panopticapi(preds, target, segment):
    """The rule of `pq_compute_single_core` for false positives, literally: one crowd of each class is remembered."""
    crowds = {info["category_id"]: info["id"] for info in target["segments_info"] if info["iscrowd"]}
    (info,) = (info for info in preds["segments_info"] if info["id"] == segment)
    inside = preds["panoptic_seg"] == segment
    excused = (target["panoptic_seg"][inside] == 0).sum()
    if info["category_id"] in crowds:
        excused += (target["panoptic_seg"][inside] == crowds[info["category_id"]]).sum()
    return bool(excused / inside.sum() > 0.5)


def test_panopticapi_keeps_the_last_of_two_crowds():
    one = image([1, 1, 1, 3], (1, 0, 1), (3, 1, 0))
    two = image([1, 1, 2, 3], (1, 0, 1), (2, 0, 1), (3, 1, 0))
    preds = image([4, 4, 4, 4], (4, 0, 0))
    assert excused_by_panopticapi(preds, one, 4) and counts_of(preds, one) == (0, 0, 0)
    assert not excused_by_panopticapi(preds, two, 4) and counts_of(preds, two) == (0, 0, 0)


def test_stuff_counts_as_one_segment():
    def road(row, ids):
        infos = [{"id": i, "category_id": 0, "isthing": False} for i in ids]
        return {"panoptic_seg": np.array([row]), "segments_info": infos}

    assert counts_of(road([1, 1, 2, 2], (1, 2)), road([7, 7, 7, 7], (7,))) == (1, 0, 0)


def test_same_place_other_class_is_two_mistakes():
    preds, truth = image([1, 1], (1, 0, 0)), image([1, 1], (1, 1, 0))
    assert counts_of(preds, truth, 0) == (0, 1, 0)
    assert counts_of(preds, truth, 1) == (0, 0, 1)
    result = panoptic_quality(preds, truth, 2)
    assert (result["pq"], result["sq"], result["rq"]) == (0, 0, 0)


def test_nothing_there():
    nothing, one = image([0, 0]), image([0, 1], (1, 0, 0))
    result = panoptic_quality(nothing, nothing, 2)
    assert math.isnan(result["pq"]) and result["num_classes"] == 0
    assert panoptic_quality(nothing, one, 2)["pq"] == 0
    assert counts_of(nothing, one) == (0, 0, 1)
    assert counts_of(one, image([2, 2], (2, 1, 0))) == (0, 1, 0)
    assert counts_of(one, nothing) == (0, 0, 0)  # a truth that is all void says nothing
    empty = {"panoptic_seg": np.zeros((0, 4), dtype=np.int32), "segments_info": []}
    assert panoptic_quality(empty, empty, 1)["num_classes"] == 0


def test_tensors_and_arrays_of_any_integer_type():
    preds, truth = random_image(1)
    expected = panoptic_quality(preds, truth, K)["pq"]
    for kind in (torch.from_numpy, lambda a: a.astype(np.int64), lambda a: a.astype(np.uint32)[:, ::-1]):
        changed = [{**side, "panoptic_seg": kind(side["panoptic_seg"])} for side in (preds, truth)]
        assert panoptic_quality(*changed, K)["pq"] == pytest.approx(expected, abs=1e-14)


def test_a_refused_image_counts_nothing():
    total = PanopticQuality(2)
    total.update(image([1, 1], (1, 0, 0)), image([1, 1], (1, 0, 0)))
    before = total.compute()["per_class"]["true_positive"]
    stuff = {"panoptic_seg": np.array([[1, 1]]), "segments_info": [{"id": 1, "category_id": 0, "isthing": False}]}
    with pytest.raises(ValueError, match="isthing of class 0"):
        total.update(stuff, stuff)
    with pytest.raises(ValueError, match="has the id 3"):
        total.update(image([1, 3], (1, 0, 0)), image([1, 1], (1, 0, 0)))
    assert total.compute()["per_class"]["true_positive"].tolist() == before.tolist() == [1, 0]
    total.reset()
    total.update(stuff, stuff)  # after a reset the class may be stuff
    assert total.compute()["stuff"]["pq"] == 1


@given(st.integers(0, 10_000), st.integers(1, 3))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_merge_equals_one_pass_and_ids_are_only_names(seed, split):
    images, random = [random_image(seed + i, shape=(9, 11)) for i in range(4)], Random(seed)
    whole = one_pass(images)
    parts = [PanopticQuality(K), PanopticQuality(K)]
    for i, (preds, target) in enumerate(images):
        parts[i >= split].update(renamed(preds, random), renamed(target, random))
    parts[0].merge(parts[1])
    merged = parts[0].compute()
    for name in ("true_positive", "false_positive", "false_negative"):
        assert torch.equal(merged["per_class"][name], whole["per_class"][name])
    for part in ("things", "stuff"):
        np.testing.assert_allclose(list(merged[part].values()), list(whole[part].values()), rtol=1e-12)
    per_class = whole["per_class"]
    present = ~per_class["pq"].isnan()
    for name in ("pq", "sq", "rq"):
        assert ((per_class[name][present] >= 0) & (per_class[name][present] <= 1)).all()
    torch.testing.assert_close(per_class["pq"], per_class["sq"] * per_class["rq"], equal_nan=True)
    found = per_class["true_positive"] > 0
    assert (per_class["sq"][found] > 0.5).all()


def renamed(side, random):
    """New ids in another order, some of them large; void stays 0."""
    old = [info["id"] for info in side["segments_info"]]
    new = random.sample([*range(1, 40), 2**24 + 5, 2**31, 2**40], len(old))
    pixels = np.zeros(side["panoptic_seg"].shape, dtype=np.int64)
    for a, b in zip(old, new, strict=True):
        pixels[side["panoptic_seg"] == a] = b
    infos = [{**info, "id": b} for info, b in zip(side["segments_info"], new, strict=True)]
    random.shuffle(infos)
    return {"panoptic_seg": pixels, "segments_info": infos}


@given(st.integers(0, 10_000))
@settings(max_examples=30, deadline=None, derandomize=True)
def test_a_perfect_prediction_is_1_and_roles_exchange_fp_and_fn(seed):
    preds, target = random_image(seed, shape=(9, 11))
    infos = [{k: v for k, v in i.items() if k != "iscrowd"} for i in target["segments_info"]]
    target = {**target, "segments_info": infos}
    same = panoptic_quality(target, target, K)
    assert same["pq"] == (1 if infos else pytest.approx(math.nan, nan_ok=True))
    # without void and crowd both sides play the same part
    filled = [fill(side) for side in (preds, target)]
    one, two = panoptic_quality(*filled, K)["per_class"], panoptic_quality(*filled[::-1], K)["per_class"]
    assert torch.equal(one["false_positive"], two["false_negative"])
    torch.testing.assert_close(one["pq"], two["pq"], equal_nan=True)


def fill(side):
    """Void becomes a thing of its own."""
    pixels = np.where(side["panoptic_seg"] == 0, 2**25, side["panoptic_seg"])
    extra = [{"id": 2**25, "category_id": 5, "isthing": True}] if (pixels == 2**25).any() else []
    return {"panoptic_seg": pixels, "segments_info": [*side["segments_info"], *extra]}
