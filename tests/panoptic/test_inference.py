"""The three read-outs against transformers where it does the same, against loops and by hand where it does not."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.metrics.panoptic import panoptic_quality
from segedu.panoptic.inference import instance_inference, panoptic_inference, semantic_inference

CLASSES, QUERIES, THINGS = 5, 9, {0, 2, 3}
CLOSE = {"rtol": 1e-9, "atol": 1e-9}


def drawn(sizes: list[tuple[int, int]], image_size: tuple[int, int], seed: int = 0, smooth: int = 7) -> dict:
    """Outputs whose masks are blobs: noise from a coarse grid."""
    generator = torch.Generator().manual_seed(seed)
    batch, (h, w) = len(sizes), (-(-side // 4) for side in image_size)
    noise = torch.randn(batch, QUERIES, smooth, smooth, generator=generator, dtype=torch.float64)
    masks = 6 * F.interpolate(noise, size=(h, w), mode="bicubic")
    logits = 5 * torch.randn(batch, QUERIES, CLASSES + 1, generator=generator, dtype=torch.float64)
    return {"class_logits": logits, "mask_logits": masks, "sizes": sizes, "image_size": image_size}


BATCH = drawn([(64, 96), (37, 51), (64, 1)], (64, 96))
ODD = drawn([(53, 71)], (53, 71))


def one(p: list[list[float]], masks: list) -> dict:
    """An image as small as its masks, probabilities in place of logits."""
    masks = torch.tensor([masks], dtype=torch.float64)
    size = tuple(masks.shape[-2:])
    logits = torch.tensor([p], dtype=torch.float64).log()
    return {"class_logits": logits, "mask_logits": masks.logit(eps=1e-12), "sizes": [size], "image_size": size}


def oracle(name: str, outputs: dict, **options):
    process = pytest.importorskip("transformers").models.mask2former.image_processing_mask2former
    given = SimpleNamespace(
        class_queries_logits=outputs["class_logits"], masks_queries_logits=outputs["mask_logits"].clone()
    )
    return getattr(process.Mask2FormerImageProcessor, f"post_process_{name}_segmentation")(None, given, **options)


def at_384(seed: int) -> dict:
    """transformers first brings all masks to 384 x 384: there, nothing is enlarged by either."""
    outputs = drawn([(384, 384)], (384, 384), seed)
    masks = F.interpolate(outputs["mask_logits"], size=(384, 384), mode="bilinear")
    return {**outputs, "mask_logits": masks}


def test_semantic_by_hand() -> None:
    outputs = one([[0.5, 0.2, 0.3], [0.1, 0.6, 0.3]], [[[1.0, 0.5]], [[0.0, 0.5]]])
    scores = semantic_inference(outputs)
    expected = torch.tensor([[[[0.5, 0.3]], [[0.2, 0.4]]]], dtype=torch.float64)
    torch.testing.assert_close(scores, expected, **CLOSE)


@pytest.mark.parametrize("outputs", [BATCH, ODD], ids=["batch", "odd"])
def test_semantic_equals_a_loop(outputs: dict) -> None:
    scores = semantic_inference(outputs)
    masks = F.interpolate(outputs["mask_logits"], size=outputs["image_size"], mode="bilinear").sigmoid()
    p = outputs["class_logits"].softmax(-1)
    expected = sum(p[:, q, :-1, None, None] * masks[:, q, None] for q in range(QUERIES))
    assert scores.shape == (len(p), CLASSES, *outputs["image_size"])
    torch.testing.assert_close(scores, expected, **CLOSE)


def test_semantic_equals_transformers() -> None:
    outputs = at_384(1)
    (wanted,) = oracle("semantic", outputs, return_segmentation_scores=True)
    torch.testing.assert_close(semantic_inference(outputs)[0], wanted["segmentation_scores"], **CLOSE)
    assert torch.equal(semantic_inference(outputs)[0].argmax(0), wanted["segmentation"])


def test_instances_by_hand() -> None:
    """Query 0 is a 0 or a 1, of the same mask; query 1's mask is empty, query 2 is of stuff."""
    p = [[0.6, 0.3, 0.05, 0.05], [0.9, 0.04, 0.03, 0.03], [0.01, 0.01, 0.9, 0.08]]
    masks = [[[0.9, 0.7, 0.5, 0.1]], [[0.4, 0.4, 0.5, 0.4]], [[0.9, 0.9, 0.9, 0.9]]]
    (found,) = instance_inference(one(p, masks), {0, 1}, topk_candidates=5, score_threshold=0.2)
    assert found["labels"].tolist() == [0, 1]
    torch.testing.assert_close(found["scores"], torch.tensor([0.6 * 0.8, 0.3 * 0.8], dtype=torch.float64), **CLOSE)
    assert found["masks"].tolist() == [[[True, True, False, False]]] * 2
    assert found["boxes"].tolist() == [[0, 0, 2, 1]] * 2
    (fewer,) = instance_inference(one(p, masks), {0, 1}, topk_candidates=3)  # 0.9 of nothing, 0.9 of stuff, 0.6
    assert fewer["labels"].tolist() == [0]


@pytest.mark.parametrize("seed", [1, 2])
def test_instances_equal_transformers(seed: int) -> None:
    outputs = at_384(seed)
    (wanted,) = oracle("instance", outputs, threshold=0.4, return_binary_maps=True)
    (found,) = instance_inference(outputs, range(CLASSES), topk_candidates=QUERIES, score_threshold=0.4)
    assert 2 < len(found["scores"]) < QUERIES
    order = sorted(range(len(wanted["segments_info"])), key=lambda i: -wanted["segments_info"][i]["score"])
    # transformers divides by the area and 1e-6, and rounds to six places
    scores = torch.tensor([wanted["segments_info"][i]["score"] for i in order], dtype=torch.float64)
    torch.testing.assert_close(found["scores"], scores, rtol=0, atol=2e-6)
    assert found["labels"].tolist() == [wanted["segments_info"][i]["label_id"] for i in order]
    assert torch.equal(found["masks"], wanted["segmentation"][order].bool())


@pytest.mark.parametrize("outputs", [BATCH, ODD], ids=["batch", "odd"])
def test_instances_lie_in_their_image(outputs: dict) -> None:
    found = instance_inference(outputs, THINGS)
    for instances, size in zip(found, outputs["sizes"], strict=True):
        assert instances["masks"].shape[1:] == size and set(instances["labels"].tolist()) <= THINGS
        assert (instances["scores"].diff() <= 0).all() and instances["scores"].max() <= 1
        assert (instances["boxes"] <= torch.tensor([size[1], size[0]] * 2)).all()
        assert len({len(instances[key]) for key in ("boxes", "labels", "scores", "masks")}) == 1


def looped(outputs: dict, b: int, score_threshold: float, overlap_threshold: float) -> tuple[Tensor, list[dict]]:
    """The paper's section 3.4, one query after the other, in plain Python."""
    h, w = outputs["sizes"][b]
    masks = F.interpolate(outputs["mask_logits"], size=outputs["image_size"], mode="bilinear")[b, :, :h, :w].sigmoid()
    scores, labels = outputs["class_logits"][b].softmax(-1).max(-1)
    able = [q for q in range(QUERIES) if labels[q] != CLASSES and scores[q] > score_threshold]
    seg, info, stuff = torch.zeros(h, w, dtype=torch.int32), [], {}
    if not able:
        return seg, info
    winner = torch.stack([scores[q] * masks[q] for q in able]).argmax(0)
    for i, q in enumerate(able):
        label, inside = int(labels[q]), masks[q] >= 0.5
        mine = (winner == i) & inside
        if not mine.any() or (winner == i).sum() / inside.sum() < overlap_threshold:
            continue
        if label in stuff:
            seg[mine] = stuff[label]
            continue
        info.append({"id": len(info) + 1, "category_id": label, "isthing": label in THINGS})
        seg[mine] = len(info)
        if label not in THINGS:
            stuff[label] = len(info)
    return seg, info


@pytest.mark.parametrize(("score_threshold", "overlap_threshold"), [(0.8, 0.8), (0.5, 0.3), (0.0, 0.0), (1.0, 0.8)])
@pytest.mark.parametrize("outputs", [BATCH, ODD], ids=["batch", "odd"])
def test_panoptic_equals_a_loop(outputs: dict, score_threshold: float, overlap_threshold: float) -> None:
    found = panoptic_inference(outputs, THINGS, score_threshold=score_threshold, overlap_threshold=overlap_threshold)
    for b, (seg, info) in enumerate(found):
        wanted, segments = looped(outputs, b, score_threshold, overlap_threshold)
        assert seg.dtype == torch.int32 and torch.equal(seg, wanted)
        assert [{key: s[key] for key in ("id", "category_id", "isthing")} for s in info] == segments
        assert all(score_threshold < s["score"] <= 1 for s in info)
        assert set(seg.unique().tolist()) - {0} == {s["id"] for s in info}
        if info:
            side = {"panoptic_seg": seg, "segments_info": info}
            assert panoptic_quality(side, side, CLASSES)["pq"] == 1
    if score_threshold == 0.5:
        assert len(found[0][1]) > 2
    if score_threshold == 1:
        assert not any(info for _, info in found)


def test_panoptic_equals_transformers_where_masks_are_certain() -> None:
    """Bars that cover all pixels, one of them cut into by a surer one; no class twice.

    transformers also says something where no mask is, and gives joined segments twice.
    """
    masks = torch.full((1, 5, 384, 384), -50.0, dtype=torch.float64)
    for q, (start, end) in enumerate([(0, 100), (100, 200), (200, 300), (290, 384), (150, 170)]):
        masks[0, q, :, start:end] = 50.0
    logits = torch.full((1, 5, CLASSES + 1), -9.0, dtype=torch.float64)
    for q, (label, height) in enumerate([(2, 4.0), (0, 5.0), (1, 5.0), (4, 6.0), (CLASSES, 9.0)]):
        logits[0, q, label] = height
    outputs = {"class_logits": logits, "mask_logits": masks, "sizes": [(384, 384)], "image_size": (384, 384)}
    (wanted,) = oracle("panoptic", outputs, threshold=0.8, label_ids_to_fuse={1, 4})
    ((seg, info),) = panoptic_inference(outputs, THINGS)
    assert len(info) == 4 and torch.equal(seg, wanted["segmentation"])
    for got, segment in zip(info, wanted["segments_info"], strict=True):
        names = segment["id"], segment["label_id"], not segment["was_fused"]
        assert (got["id"], got["category_id"], got["isthing"]) == names
        assert got["score"] == pytest.approx(segment["score"], abs=1e-6)


def test_pieces_of_stuff_are_joined_and_things_are_not() -> None:
    p, half = [[0.9, 0.02, 0.08], [0.02, 0.95, 0.03], [0.97, 0.01, 0.02], [0.01, 0.96, 0.03]], 0.49
    masks = [[[1.0, 0, 0, 0, half]], [[0, 1.0, 0, 0, half]], [[0, 0, 1.0, 0, half]], [[0, 0, 0, 1.0, half]]]
    ((seg, info),) = panoptic_inference(one(p, masks), {1})
    assert seg.tolist() == [[1, 2, 1, 3, 0]]  # the last pixel is nobody's
    assert [(s["category_id"], s["isthing"]) for s in info] == [(0, False), (1, True), (1, True)]
    assert [round(s["score"], 9) for s in info] == [0.97, 0.95, 0.96]
    ((seg, info),) = panoptic_inference(one(p, masks), [])
    assert seg.tolist() == [[1, 2, 1, 2, 0]] and not any(s["isthing"] for s in info)


def test_half_precision_and_one_pixel() -> None:
    outputs = drawn([(1, 1), (4, 3)], (4, 4), smooth=1)
    half = {**outputs, "class_logits": outputs["class_logits"].half(), "mask_logits": outputs["mask_logits"].half()}
    assert semantic_inference(half).dtype == torch.float32
    assert [seg.shape for seg, _ in panoptic_inference(half, THINGS)] == [(1, 1), (4, 3)]
    assert instance_inference(half, THINGS)[0]["scores"].dtype == torch.float32
    nothing = {**outputs, "class_logits": torch.zeros(2, QUERIES, CLASSES + 1)}
    nothing["class_logits"][..., -1] = 99
    for seg, info in panoptic_inference(nothing, THINGS):
        assert not seg.any() and info == []
    (found, _) = instance_inference(nothing, set())
    assert found["boxes"].shape == (0, 4) and found["masks"].shape == (0, 1, 1)


NAN = torch.full_like(ODD["class_logits"], torch.nan)


@pytest.mark.parametrize("read_out", [semantic_inference, instance_inference, panoptic_inference])
@pytest.mark.parametrize(
    ("error", "says", "change"),
    [
        (TypeError, "outputs has type list", []),
        (ValueError, "outputs has the keys", {"class_logits": ODD["class_logits"]}),
        (ValueError, r"\['class_logits'\] contains NaN", {**ODD, "class_logits": NAN}),
        (TypeError, "dtype torch.int64", {**ODD, "mask_logits": ODD["mask_logits"].long()}),
        (ValueError, "mask_logits", {**ODD, "mask_logits": ODD["mask_logits"][:, 1:]}),
        (ValueError, r"\['sizes'\] has 2 entries, expected 1, one for each image", {**ODD, "sizes": [(1, 1)] * 2}),
        (ValueError, r"\['sizes'\]\[0\] is \(54, 71\)", {**ODD, "sizes": [(54, 71)]}),
        (
            ValueError,
            r"number of classes in outputs\['class_logits'\] is 0",
            {**ODD, "class_logits": ODD["class_logits"][..., :1]},
        ),
    ],
)
def test_bad_outputs(read_out, error, says, change) -> None:
    with pytest.raises(error, match=says):
        read_out(change) if read_out is semantic_inference else read_out(change, THINGS)


@pytest.mark.parametrize("read_out", [instance_inference, panoptic_inference])
@pytest.mark.parametrize(
    ("error", "says", "things", "options"),
    [
        (TypeError, "things has type int", 3, {}),
        (TypeError, "things has a category that is 1.0", {1.0}, {}),
        (ValueError, "things has a category that is 5, expected an integer from 0 to 4", {5}, {}),
        (TypeError, "score_threshold", THINGS, {"score_threshold": "high"}),
        (ValueError, "score_threshold", THINGS, {"score_threshold": -1.0}),
    ],
)
def test_bad_things_and_thresholds(read_out, error, says, things, options) -> None:
    with pytest.raises(error, match=says):
        read_out(ODD, things, **options)
