"""What is special about lab 10: its references agree with the library's methods, and its statements hold."""

from __future__ import annotations

import pytest
import torch

from segedu.instance.affinities import affinity_targets
from segedu.instance.discriminative import pull_push
from segedu.instance.spatial_embedding import gaussian, greedy_cluster, offset_targets
from segedu.losses.lovasz import lovasz_extension, lovasz_hinge_loss
from segedu.teaching.checks.judge import draw
from segedu.teaching.exercises import lab10_embeddings as lab

BY_NAME = {exercise.name: exercise for exercise in lab.exercises}


def reference(name):
    return BY_NAME[name].reference


def all_cases(name, seeds=4):
    return [case["args"] for seed in range(seeds) for _, _, case in draw(BY_NAME[name], seed)]


def test_points():
    assert {e.name: e.points for e in lab.exercises} == {
        "offset_target": 3, "gaussian_mask": 4, "greedy_cluster": 4, "pull_push": 4, "affinities": 3, "lovasz_grad": 2,
    }  # fmt: skip


def test_offset_target_is_the_librarys():
    for label_map, unit in all_cases("offset_target"):
        torch.testing.assert_close(reference("offset_target")(label_map, unit).float(), offset_targets(label_map, unit))


def test_pixel_plus_offset_is_one_place_an_object():
    for label_map, unit in all_cases("offset_target"):
        grid = torch.stack(torch.meshgrid(*map(torch.arange, label_map.shape), indexing="ij"))
        ends = grid + reference("offset_target")(label_map, unit) * unit
        for number in label_map[label_map > 0].unique():
            places = ends[:, label_map == number]
            assert places.std(dim=1, correction=0).max() < 1e-12


def test_gaussian_mask_is_the_librarys_gaussian_above_one_half():
    for embeddings, centres, log_sigmas in all_cases("gaussian_mask"):
        masks = reference("gaussian_mask")(embeddings, centres, log_sigmas)
        assert masks.shape == (len(centres), *embeddings.shape[1:])
        for mask, centre, log_sigma in zip(masks, centres, log_sigmas, strict=True):
            assert torch.equal(mask, gaussian(embeddings, centre, log_sigma.exp()) > 0.5)


def test_no_gaussian_is_so_near_one_half_that_rounding_decides():
    for embeddings, centres, log_sigmas in all_cases("gaussian_mask", seeds=20):
        for centre, log_sigma in zip(centres, log_sigmas, strict=True):
            assert (gaussian(embeddings, centre, log_sigma.exp()) - 0.5).abs().min() > 1e-9


def test_greedy_cluster_is_the_librarys():
    for embeddings, sigma, seed, seed_threshold, min_pixels in all_cases("greedy_cluster", seeds=8):
        options = {"seed_threshold": seed_threshold, "min_pixels": min_pixels}
        theirs = greedy_cluster(embeddings, sigma, seed, **options)
        assert torch.equal(reference("greedy_cluster")(embeddings, sigma, seed, seed_threshold, min_pixels), theirs)


def test_greedy_cluster_meets_equal_best_seeds_in_every_draw():
    tied = [seed for _, _, seed, _, _ in all_cases("greedy_cluster") if (seed == seed.max()).sum() > 1]
    assert len(tied) == 4


def test_pull_push_is_the_librarys():
    for embeddings, label_map, pull_margin, push_margin in all_cases("pull_push"):
        ours = reference("pull_push")(embeddings, label_map, pull_margin, push_margin)
        theirs = pull_push(embeddings, label_map, pull_margin, push_margin)[:2]
        assert [float(n) for n in ours] == pytest.approx([float(n) for n in theirs], abs=1e-6)


def test_vectors_lie_on_both_sides_of_the_margins_in_every_draw():
    for draw_number in range(4):
        (_, _, case), *_ = draw(BY_NAME["pull_push"], draw_number)
        embeddings, label_map, pull_margin, push_margin = case["args"]
        groups = [embeddings[:, label_map == n] for n in label_map.unique() if n]
        means = torch.stack([g.mean(1) for g in groups])
        far = torch.cat([(g - g.mean(1, keepdim=True)).norm(dim=0) > pull_margin for g in groups])
        apart = torch.pdist(means) > 2 * push_margin
        assert far.any() and not far.all() and apart.any() and not apart.all()


def test_affinities_are_the_librarys():
    for label_map, offsets in all_cases("affinities"):
        theirs = affinity_targets(label_map, offsets)["affinities"]
        assert torch.equal(reference("affinities")(label_map, offsets), theirs.long())
        assert label_map.numel() <= 100  # the picture of a case shows numbers up to here


def test_lovasz_grad_is_the_gradient_of_the_librarys_loss():
    for errors, truth in all_cases("lovasz_grad"):
        weights, counted = reference("lovasz_grad")(errors, truth), torch.ones_like(truth).bool()
        leaf = errors.clone().requires_grad_()
        loss = lovasz_extension(leaf, truth, counted)
        torch.testing.assert_close(weights, torch.autograd.grad(loss, leaf)[0])
        assert float((errors * weights).sum()) == pytest.approx(loss.item())
        assert float(weights.sum()) == pytest.approx(1) and len(errors.unique()) == len(errors)


def test_errors_of_0_and_1_cost_1_minus_iou():
    """What the statement says of the loss; the errors are nearly 0 or 1, as no two may be equal."""
    truth = torch.tensor([1.0, 1, 1, 0, 0, 0], dtype=torch.float64)
    errors = torch.tensor([1.0, 0, 0, 1, 1, 0], dtype=torch.float64)
    weights = reference("lovasz_grad")(errors + torch.arange(6) * 1e-9, truth)
    assert float((errors * weights).sum()) == pytest.approx(1 - 2 / 5)
    scores = torch.where(truth > 0, 1 - errors, errors - 1) * 1.0
    assert lovasz_hinge_loss(scores[None], truth[None].long()).item() == pytest.approx(1 - 2 / 5)


def test_a_message_for_each_of_the_misconceptions_of_the_syllabus():
    """Where one of its items can be read in two ways, both are here."""
    names = {wrong.name for exercise in lab.exercises for wrong in exercise.wrong}
    assert {"from the centre", "in pixels", "background points too", "middle of the box"} <= names
    assert {"exp missing", "no 2", "threshold on d", "threshold on the exponent"} <= names
    assert {"first object's sigma for all", "one sigma for both axes"} <= names
    assert {"never marked as used", "seed threshold ignored", "by area", "min_pixels ignored"} <= names
    assert {"no hinge in the pull", "no hinge in the push", "pushed from itself", "push not divided"} <= names
    assert {"divided by C^2", "one object fails", "no object fails"} <= names
    assert {"offset the other way", "wraps around", "background is one object", "8 neighbours"} <= names
    assert {"not sorted", "cumulative the wrong way", "first step free", "nothing without an object"} <= names


def test_every_draw_tells_how_far_the_gaussian_of_a_start_reaches():
    """One sigma, the 2 lost, sigma not squared, axes swapped, one sigma for both, or around the mean of the members."""
    cut = reference("greedy_cluster")
    for number in range(12):
        embeddings, sigma, seed, *limits = draw(BY_NAME["greedy_cluster"], number)[3][2]["args"]
        found = cut(embeddings, sigma, seed, *limits)
        recentred = embeddings.clone()
        for label in (1, 2):
            start = torch.where(found == label, seed, 0).argmax().item()
            recentred.flatten(1)[:, start] = embeddings[:, found == label].mean(1)
        narrow, root = sigma / (2 * torch.tensor(2.0).log()).sqrt(), sigma / 2**0.5
        for wrong in (narrow, root, sigma.sqrt(), sigma.flip(0), sigma[:1].expand_as(sigma)):
            assert not torch.equal(cut(embeddings, wrong, seed, *limits), found)
        assert not torch.equal(cut(recentred, sigma, seed, *limits), found)
