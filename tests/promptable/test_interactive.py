"""How SAM learns: its loss by hand, the prompts that are drawn, and that a tiny one learns a scene."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from promptable.small_sam import generator, small
from torch import Tensor

from segedu.datasets.shapes import draw_shapes
from segedu.promptable.sam.image_encoder import ImageEncoder
from segedu.promptable.sam.interactive import (
    add_points,
    best_logits,
    click_schedule,
    first_prompt,
    interactive_loss,
    mask_iou,
    noisy_boxes,
    sam_loss,
    sample_correction_points,
    sample_points,
)
from segedu.promptable.sam.mask_decoder import MaskDecoder, TwoWayTransformer
from segedu.promptable.sam.prompt_encoder import PromptEncoder
from segedu.promptable.sam.sam import SAM


def outputs_of(logits: Tensor, scores: Tensor, size: tuple[int, int]) -> dict[str, Any]:
    return {"mask_logits": logits, "iou_scores": scores, "size": size, "image_size": 4 * logits.shape[-1]}


def two_masks() -> tuple[dict[str, Any], Tensor]:
    """2 x 2 places; the truth is the left half. Of the two masks one says the left half, and one the right."""
    left = torch.tensor([[4.0, -4.0], [4.0, -4.0]])
    truth = torch.tensor([[[1, 1, 0, 0]] * 4]).bool()
    return outputs_of(torch.stack([-left, left])[None], torch.tensor([[0.25, 0.5]]), (4, 4)), truth


# --- the loss ---------------------------------------------------------------------------------------------------


def test_only_the_best_mask_counts_but_all_scores() -> None:
    outputs, truth = two_masks()
    outputs["mask_logits"].requires_grad_()
    losses = sam_loss(outputs, truth)
    p = torch.tensor(4.0).sigmoid()
    focal = 20 * ((1 - p) ** 2 * -p.log()) * (0.25 + 0.75) / 2
    dice = 1 - (2 * 2 * p + 1) / (2 * p + 2 * (1 - p) + 2 + 1)
    assert losses["focal"].item() == pytest.approx(focal.item(), rel=1e-4)
    assert losses["dice"].item() == pytest.approx(dice.item(), rel=1e-4)
    assert losses["iou"].item() == pytest.approx((0.25**2 + 0.5**2) / 2)  # IoU are 0 and 1
    assert losses["loss"].item() == pytest.approx(sum(losses[name].item() for name in ("focal", "dice", "iou")))
    losses["loss"].backward()
    gradient = outputs["mask_logits"].grad[0]
    assert not gradient[0].any() and gradient[1].all()


def test_the_best_is_chosen_for_each_object_and_by_the_loss() -> None:
    outputs, truth = two_masks()
    both = {**outputs, "mask_logits": outputs["mask_logits"].repeat(2, 1, 1, 1), "iou_scores": torch.zeros(2, 2)}
    losses = sam_loss(both, torch.cat([truth, ~truth]))
    assert losses["dice"].item() == pytest.approx(sam_loss(outputs, truth)["dice"].item())
    high = {**outputs, "iou_scores": torch.tensor([[0.9, 0.1]])}  # its own word does not choose
    assert sam_loss(high, truth)["dice"].item() == pytest.approx(sam_loss(outputs, truth)["dice"].item())


def test_scores_are_asked_for_the_iou_of_masks_above_the_threshold() -> None:
    outputs, truth = two_masks()
    losses = sam_loss({**outputs, "mask_threshold": -5.0}, truth)  # both masks are everything: half of it is right
    assert losses["iou"].item() == pytest.approx((0.25**2 + 0.0**2) / 2)


def test_weights_and_the_axis_of_objects() -> None:
    outputs, truth = two_masks()
    plain = sam_loss(outputs, truth, focal_weight=1.0, iou_weight=0.0)
    assert plain["iou"] == 0 and 20 * plain["focal"].item() == pytest.approx(sam_loss(outputs, truth)["focal"].item())
    many = {**outputs, "mask_logits": outputs["mask_logits"][:, None], "iou_scores": outputs["iou_scores"][:, None]}
    assert sam_loss(many, truth[:, None])["loss"].item() == pytest.approx(sam_loss(outputs, truth)["loss"].item())


def test_truth_lies_where_the_image_lies_in_its_square() -> None:
    """An image of 2 x 4 pixels: the lower half of the square is no image, and belongs to no mask."""
    truth = torch.ones(1, 2, 4, dtype=torch.bool)
    logits = torch.tensor([[9.0, 9.0], [-9.0, -9.0]])[None, None]
    assert sam_loss(outputs_of(logits, torch.ones(1, 1), (2, 4)), truth)["loss"] < 1e-3
    assert sam_loss(outputs_of(logits.mT, torch.ones(1, 1), (4, 2)), truth.mT)["loss"] < 1e-3


def test_nothing_there_and_half_precision() -> None:
    nothing = torch.zeros(1, 8, 8, dtype=torch.bool)
    empty = outputs_of(-20 * torch.ones(1, 3, 4, 4), torch.ones(1, 3), (8, 8))
    assert sam_loss(empty, nothing)["loss"] < 1e-3  # none is predicted: an IoU of 1
    halved = {**empty, "mask_logits": empty["mask_logits"].half(), "iou_scores": empty["iou_scores"].half()}
    assert sam_loss(halved, nothing)["loss"].dtype == torch.float32
    assert mask_iou(nothing, nothing).tolist() == [1.0]


@pytest.mark.parametrize(
    ("change", "targets", "error", "words"),
    [
        ({}, torch.zeros(1, 5, 4, dtype=torch.bool), ValueError, "targets has shape (1, 5, 4), expected (..., 4, 4)"),
        ({}, torch.zeros(2, 4, 4, dtype=torch.bool), ValueError, "targets has shape (2, 4, 4)"),
        ({}, torch.zeros(1, 4, 4), TypeError, "targets has dtype torch.float32"),
        ({"iou_scores": torch.zeros(1, 3)}, torch.zeros(1, 4, 4, dtype=torch.bool), ValueError, "outputs['iou_scores"),
    ],
)
def test_bad_outputs_and_targets(change: dict, targets: Tensor, error: type[Exception], words: str) -> None:
    with pytest.raises(error) as caught:
        sam_loss({**two_masks()[0], **change}, targets)
    assert str(caught.value).startswith(words)


def test_bad_weights_and_masks() -> None:
    with pytest.raises(ValueError, match="dice_weight is -1"):
        sam_loss(*two_masks(), dice_weight=-1.0)
    net, images = small(), torch.rand(1, 3, 40, 40)
    with pytest.raises(ValueError, match="masks contains an empty mask"):
        interactive_loss(net, images, torch.zeros(1, 2, 40, 40, dtype=torch.bool))
    with pytest.raises(ValueError, match="masks has shape"):
        interactive_loss(net, images, torch.ones(2, 2, 40, 40, dtype=torch.bool))


# --- prompts ----------------------------------------------------------------------------------------------------


def squares() -> Tensor:
    masks = torch.zeros(1, 2, 30, 40, dtype=torch.bool)
    masks[0, 0, 5:15, 10:30] = True
    masks[0, 1, 20, 3] = True  # one pixel
    return masks


def test_points_lie_in_their_regions() -> None:
    drawn = torch.stack([sample_points(squares(), generator(i)) for i in range(300)])[:, 0]
    x, y = drawn[:, 0].unbind(1)
    assert x.min() == 10 and x.max() == 29 and y.min() == 5 and y.max() == 14
    assert abs(x.mean() - 19.5) < 1.5 and abs(y.mean() - 9.5) < 0.8  # all as likely
    assert torch.equal(drawn[:, 1], torch.tensor([3.0, 20.0]).expand(300, 2))


def test_boxes_are_a_little_wrong() -> None:
    exact = torch.tensor([[10.0, 5, 30, 15], [3, 20, 4, 21]])
    away = torch.stack([noisy_boxes(squares(), generator(i))[0] for i in range(400)]) - exact
    most = 20 * 40 / 1024
    assert away.abs().max() <= most + 1e-5 and (away[:, 0].abs() > most - 1e-4).float().mean() > 0.3
    assert away[:, 1].std() == pytest.approx(0.1, abs=0.02)  # a tenth of one pixel


def test_a_first_prompt_is_a_point_or_a_box() -> None:
    kinds = [tuple(first_prompt(squares(), generator(i))) for i in range(60)]
    assert 15 < kinds.count(("boxes",)) < 45 and set(kinds) == {("boxes",), ("point_coords", "point_labels")}
    points = next(p for i in range(60) if "point_coords" in (p := first_prompt(squares(), generator(i))))
    assert points["point_coords"].shape == (1, 2, 1, 2) and points["point_labels"].tolist() == [[[1], [1]]]


def test_corrections_come_from_where_the_mask_is_wrong() -> None:
    masks = torch.zeros(1, 3, 8, 8, dtype=torch.bool)
    masks[..., :4] = True
    preds = masks.clone()
    preds[0, 0, 2, 1] = False  # missed here
    preds[0, 1, 6, 7] = True  # too much here
    points, labels = sample_correction_points(preds, masks, generator())
    assert points[0, :2].tolist() == [[1, 2], [7, 6]] and labels[0].tolist() == [1, 0, 1]
    assert points[0, 2, 0] < 4  # nothing is wrong: a pixel of the object


def test_prompts_grow_and_iterations_are_eleven() -> None:
    prompts = {"boxes": torch.zeros(1, 2, 4)}
    for count in (1, 2, 3):
        prompts = add_points(prompts, torch.full((1, 2, 2), float(count)), torch.ones(1, 2))
        assert prompts["point_coords"].shape == (1, 2, count, 2) and prompts["point_labels"].shape == (1, 2, count)
    assert prompts["point_coords"][0, 0, :, 0].tolist() == [1, 2, 3] and "boxes" in prompts
    steps = [click_schedule(8, generator(i)) for i in range(100)]
    assert all(len(step) == 10 and sum(step) == 8 and not step[-1] for step in steps)
    assert {step.index(False) for step in steps} == set(range(9))  # anywhere
    assert click_schedule(0) == [False, False]


def test_the_answer_that_goes_on_thinks_best_of_itself() -> None:
    logits = torch.randn(2, 3, 4, 5, 5, generator=generator(), requires_grad=True)
    scores = torch.rand(2, 3, 4, generator=generator())
    best = best_logits({"mask_logits": logits, "iou_scores": scores})
    assert torch.equal(best[1, 2], logits[1, 2, scores[1, 2].argmax()]) and not best.requires_grad


# --- training ---------------------------------------------------------------------------------------------------


def test_a_seed_draws_the_same_and_a_step_reaches_all_weights() -> None:
    net, images, masks = small().train(), torch.rand(2, 3, 30, 40, generator=generator()), squares().repeat(2, 1, 1, 1)
    first, again = (interactive_loss(net, images, masks, generator=generator(4)) for _ in range(2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    for seed in range(8):  # a point first, or a box
        interactive_loss(net, images, masks, num_points=1, generator=generator(seed))["loss"].backward()
    reached = {name: weights.grad is not None and bool(weights.grad.any()) for name, weights in net.named_parameters()}
    of_three = [reached.pop(name) for name in list(reached) if "hypernetworks_mlps" in name and "mlps.0" not in name]
    assert all(reached.values()) and any(of_three), reached  # a mask that is never the best does not learn


@pytest.mark.learns
def test_learns_a_scene() -> None:
    torch.manual_seed(0)
    encoder = ImageEncoder(32, 4, 32, 2, 2, 32, 4, (1,))
    decoder = MaskDecoder(TwoWayTransformer(32, 2, 2, 32), iou_hidden=16)
    net = SAM(encoder, PromptEncoder(32, 8, 32, 8), decoder)
    scene = draw_shapes((5, 0), (32, 32), count=2)
    images, masks, boxes = (scene[key][None] for key in ("image", "masks", "boxes"))
    optimizer = torch.optim.AdamW(net.parameters(), lr=3e-3)
    for step in range(120):
        optimizer.zero_grad()
        interactive_loss(net, images, masks, num_points=0, generator=generator(step))["loss"].backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
    with torch.no_grad():
        outputs = net.eval()(images, boxes=boxes, multimask_output=False)
    found = mask_iou(outputs["mask_logits"][:, :, 0] > 0, masks)
    assert found.mean() > 0.7 and (outputs["iou_scores"][..., 0] - found).abs().mean() < 0.2, found
