"""What is special about lab 9: its references agree with the library's methods, and its statements hold."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from segedu.instance import signed_distance, stardist
from segedu.instance.cellpose import flows as cellpose_flows
from segedu.ops.flows import spread_heat
from segedu.ops.label_maps import relabel_by_occurrence
from segedu.ops.polygons import polygon_areas, polygon_intersections
from segedu.teaching.checks.judge import draw
from segedu.teaching.exercises import lab09_distances as lab
from segedu.teaching.exercises.lab09_distances.clipping import shared_areas
from segedu.teaching.exercises.lab09_distances.diffusion_flow import _gradient, _heat, _source

BY_NAME = {exercise.name: exercise for exercise in lab.exercises}


def reference(name):
    return BY_NAME[name].reference


def all_cases(name, seeds=4):
    return [case["args"] for seed in range(seeds) for _, _, case in draw(BY_NAME[name], seed)]


def named(name, case_name, seeds=4):
    return [
        case["args"] for seed in range(seeds) for *_, case in draw(BY_NAME[name], seed) if case["name"] == case_name
    ]


def test_points():
    assert {e.name: e.points for e in lab.exercises} == {
        "signed_distance": 3, "watershed_decode": 3, "star_distances": 4, "polygon_nms": 4, "diffusion_flow": 3,
        "follow_flows": 3,
    }  # fmt: skip


def test_signed_distance_is_the_librarys():
    for (label_map,) in all_cases("signed_distance"):
        ours, theirs = reference("signed_distance")(label_map), signed_distance.signed_distance(label_map)
        torch.testing.assert_close(ours.float(), theirs)
        assert label_map.numel() <= 100  # the picture of a case shows numbers up to here


def test_watershed_decode_is_the_librarys_without_levelled_hills():
    for distance, min_distance in all_cases("watershed_decode", seeds=8):
        theirs = signed_distance.watershed_decode(distance, min_distance=min_distance, depth=0.0)
        assert torch.equal(reference("watershed_decode")(distance, min_distance), theirs)


def test_only_heights_that_are_meant_to_be_equal_are():
    for distance, _ in all_cases("watershed_decode", seeds=20):
        heights, counts = distance[distance > 0].unique(return_counts=True)
        assert set(heights[counts > 1].tolist()) <= {4.0, 4.5, 5.0}  # plateaus, and tops far from each other
        assert len(heights) < 2 or heights.diff().min() > 1e-7


def test_a_true_map_gives_its_cells_back():
    """The first two exercises are the way there and back; the higher top is the first."""
    label_map = torch.zeros(13, 17, dtype=torch.int64)
    label_map[1:8, 1:8], label_map[2:11, 8:17] = 2, 1
    decoded = reference("watershed_decode")(reference("signed_distance")(label_map), 3.0)
    assert ((decoded == label_map) | (label_map == 0)).double().mean() > 0.97
    assert torch.equal(decoded > 0, label_map > 0)


def test_star_distances_are_the_librarys():
    for label_map, n_rays in all_cases("star_distances"):
        theirs = stardist.star_distances(label_map, n_rays)
        torch.testing.assert_close(reference("star_distances")(label_map, n_rays).float(), theirs)


def test_no_step_of_a_ray_ends_half_way_between_two_pixels():
    counts = {(n_rays, sum(label_map.shape)) for label_map, n_rays in all_cases("star_distances")}
    for n_rays, longest in counts:
        angles = torch.arange(n_rays, dtype=torch.float64) * (2 * torch.pi / n_rays)
        steps = torch.outer(torch.cat([angles.sin(), angles.cos()]), torch.arange(1, longest + 1))
        assert ((steps % 1) - 0.5).abs().min() > 5e-3


def test_polygon_nms_is_the_librarys():
    """On star polygons: the library takes distances along rays, and computes what they share."""
    rng = np.random.default_rng(5)
    for _ in range(5):
        distances = torch.from_numpy(rng.uniform(3, 6, (40, 8)))
        points, scores = torch.from_numpy(rng.uniform(0, 30, (40, 2))), torch.from_numpy(rng.random(40).round(1))
        shared = polygon_intersections(distances, points, distances, points)
        for threshold in (0.1, 0.4, 0.7):
            theirs = stardist.polygon_nms(distances, points, scores, threshold)
            ours = reference("polygon_nms")(torch.zeros(40, 8, 2), scores, shared, threshold)
            assert torch.equal(ours, theirs) and 1 < len(ours) < 40


def test_shared_areas_are_the_librarys():
    """Circles with corners on rays are convex star polygons."""
    points = torch.tensor([[5.0, 5.0], [6.0, 8.5], [20.0, 5.0], [5.5, 4.5]])
    distances = torch.tensor([4.0, 5.0, 3.0, 1.0], dtype=torch.float64)[:, None].expand(-1, 8).contiguous()
    angles = torch.arange(8) * (torch.pi / 4)
    corners = points[:, None] + distances[..., None] * torch.stack([angles.sin(), angles.cos()], dim=1)
    shared = shared_areas(corners.numpy())
    np.testing.assert_allclose(shared, polygon_intersections(distances, points, distances, points), atol=1e-6)
    np.testing.assert_allclose(shared_areas(corners.numpy()[:, ::-1]), shared, atol=1e-6)


def test_areas_are_on_the_diagonal_and_no_overlap_is_near_the_limit():
    for polygons, _, shared, threshold in all_cases("polygon_nms", seeds=20):
        areas = polygon_areas(polygons)
        torch.testing.assert_close(shared.diagonal(), areas, atol=1e-8, rtol=0)
        smaller = torch.minimum(areas[:, None], areas[None])
        overlaps = torch.where(smaller > 0, shared / smaller, 0.0)
        near = (overlaps - threshold).abs() < 1e-4
        exact = polygons.shape[1] == 4  # rectangles with corners on whole numbers
        assert exact or not near.any()


def test_limits_are_met_exactly_in_every_draw():
    for _, scores, shared, threshold in named("polygon_nms", "an overlap exactly at the limit"):
        areas = shared.diagonal()
        met = shared / torch.minimum(areas[:, None], areas[None]) == threshold
        assert met.any() and (shared / torch.minimum(areas[:, None], areas[None]) > threshold).sum() > len(scores)


def test_diffusion_flow_is_the_librarys_where_it_takes_as_many_steps():
    """The library's steps depend on the cell's box, and rounding decides its direction where there is no slope."""
    for label_map, _ in all_cases("diffusion_flow"):
        theirs = cellpose_flows.diffusion_flow(label_map)
        for number in label_map.unique()[label_map.unique() > 0]:
            inside = label_map == number
            rows, columns = inside.nonzero().T
            steps = 2 * int(rows.max() - rows.min() + columns.max() - columns.min() + 6)
            ours = reference("diffusion_flow")(label_map, steps)[:, inside]
            flows = ours.norm(dim=0) > 0
            torch.testing.assert_close(ours[:, flows].float(), theirs[:, inside][:, flows])


def test_heat_is_the_librarys():
    for label_map, steps in all_cases("diffusion_flow"):
        for number in label_map.unique()[label_map.unique() > 0]:
            inside = label_map == number
            source = _source(inside)
            torch.testing.assert_close(_heat(inside, source, steps), spread_heat(inside, source, steps))


def test_no_slope_is_so_short_that_rounding_decides():
    for label_map, steps in all_cases("diffusion_flow", seeds=20):
        for number in label_map.unique()[label_map.unique() > 0]:
            inside = label_map == number
            lengths = _gradient(_heat(inside, _source(inside), steps)).norm(dim=0)[inside]
            assert ((lengths < 1e-12) | (lengths > 1e-6)).all()


def test_no_source_hangs_on_rounding():
    """Equally near pixels lie mirrored to a mean that a computer holds exactly: a whole number or a half."""
    for label_map, _ in all_cases("diffusion_flow", seeds=20):
        for number in label_map.unique()[label_map.unique() > 0]:
            places = (label_map == number).nonzero()
            n = len(places)
            far = ((places * n - places.sum(dim=0)) ** 2).sum(dim=1)  # whole numbers: n^2 times the squared distance
            nearest = places[far == far.min()]
            differ = nearest.amin(dim=0) != nearest.amax(dim=0)
            exact = 2 * places.sum(dim=0) % n == 0
            assert (exact | ~differ).all()


def test_the_mean_of_a_crescent_lies_outside_of_it_in_every_draw():
    for label_map, _ in named("diffusion_flow", "a cell like a C"):
        outer = label_map.flatten().bincount()[1:].argmax() + 1
        y, x = (label_map == outer).nonzero().double().mean(dim=0).round().long()
        assert label_map[y, x] != outer


def test_follow_flows_is_the_librarys_drift():
    for flows, foreground, steps in all_cases("follow_flows"):
        ends, label_map = reference("follow_flows")(flows, foreground, steps)
        theirs = cellpose_flows.follow_flows(flows, foreground, steps)[:, foreground].T
        torch.testing.assert_close(ends.float(), theirs, atol=1e-4, rtol=0)
        assert torch.equal(label_map > 0, foreground)
        in_order = relabel_by_occurrence(label_map)
        assert torch.equal(in_order.long(), label_map)


def test_no_two_ends_are_nearly_1_apart():
    """1 exactly, or clearly more or less."""
    for flows, foreground, steps in all_cases("follow_flows", seeds=20):
        ends, _ = reference("follow_flows")(flows, foreground, steps)
        gap = (torch.pdist(ends) - 1).abs()
        assert not ((gap > 0) & (gap < 1e-4)).any()


def test_ends_just_1_apart_are_in_every_draw():
    for case_name in ("no step", "one step", "a chain of ends", "ends just 1 apart"):
        for args in named("follow_flows", case_name):
            assert (torch.pdist(reference("follow_flows")(*args)[0]) == 1).any()


def test_cells_that_touch_come_back():
    for args in named("follow_flows", "cells that touch"):
        assert reference("follow_flows")(*args)[1].max() == 4 and ndimage.label(args[1])[1] == 3
    for args in named("follow_flows", "two meeting points near each other"):
        assert reference("follow_flows")(*args)[1].max() == 3 and ndimage.label(args[1])[1] == 2


def test_the_flow_of_a_cell_leads_its_pixels_to_one_place():
    """The last two exercises are the way there and back."""
    label_map = torch.zeros(12, 17, dtype=torch.int64)
    label_map[1:8, 1:8], label_map[2:10, 8:15] = 1, 2
    flows = reference("diffusion_flow")(label_map, 60)
    assert torch.equal(reference("follow_flows")(flows, label_map > 0, 40)[1], label_map)


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_a_message_for_each_of_the_misconceptions_of_the_syllabus(name):
    """Where one of its items can be read in two ways, both are here."""
    wanted = {
        "signed_distance": {"unsigned", "cells that touch merged", "no half", "half the wrong way", "border of the image"},
        "watershed_decode": {"not upside down", "a seed for each pixel", "no mask", "min_distance ignored"},
        "star_distances": {
            "ray 0 points down", "turns to the top", "background too", "one pixel early", "last pixel inside",
            "neighbours crossed",
        },
        "polygon_nms": {"in the order given", "largest first", "overlap of boxes", "at the limit too", "suppresses itself"},
        "diffusion_flow": {
            "mean outside of the cell", "leaks into neighbours", "heat in the background", "not of length 1", "x first",
        },
        "follow_flows": {
            "against the flow", "nearest pixel", "whole steps", "background follows", "at most 2 apart",
            "pieces of the foreground",
        },
    }[name]  # fmt: skip
    assert wanted <= {wrong.name for wrong in BY_NAME[name].wrong}
