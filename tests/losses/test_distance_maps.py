"""Distances to boundaries where there is one, and where there is none."""

import torch

from segedu.losses.distance_maps import distance_inside, signed_distance
from segedu.losses.overlap import class_masks


def test_distance_is_euclidean():
    mask = torch.ones(1, 1, 5, 5).bool()
    mask[0, 0, 0, 0] = False
    assert distance_inside(mask)[0, 0, 3, 4] == 5
    assert distance_inside(mask)[0, 0, 0, 0] == 0


def test_images_and_classes_do_not_see_each_other():
    masks = torch.zeros(2, 2, 1, 4).bool()
    masks[0, 0, 0, :3] = masks[1, 1, 0, 1:] = True
    distance = distance_inside(masks)
    assert distance[0, 0].tolist() == [[3, 2, 1, 0]] and distance[1, 1].tolist() == [[0, 1, 2, 3]]
    assert not distance[0, 1].any() and not distance[1, 0].any()


def test_ignored_pixels_are_no_boundary():
    target = torch.tensor([[[0, 0, 255, 255, 1]]])
    inside, outside = class_masks(target, 2, target != 255)
    assert distance_inside(inside, outside)[0, 0].tolist() == [[4, 3, 0, 0, 0]]
    assert signed_distance(inside, outside)[0, 1].tolist() == [[4, 3, 0, 0, -2]]
    assert signed_distance(inside, outside)[0, 0].tolist() == [[-3, -2, 0, 0, 3]]


def test_no_boundary_no_distance():
    for target in (torch.zeros(1, 3, 3).long(), torch.full((1, 3, 3), 255)):
        inside, outside = class_masks(target, 2, target != 255)
        assert not signed_distance(inside, outside).any() and not distance_inside(inside, outside).any()
