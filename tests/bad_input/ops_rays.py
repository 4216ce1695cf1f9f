"""Bad and empty input to `segedu.ops.rays`."""

import torch
from bad_input.ops_label_maps import NO_MAPS
from bad_input.rows import MAP, defined, refused, zeros

from segedu.ops.rays import ray_lengths

RIGHT = torch.tensor([[0.0, 1.0]])

ROWS = [
    *(refused(error, words, ray_lengths, bad, RIGHT) for error, words, bad in NO_MAPS),
    refused(TypeError, "directions has dtype torch.int64", ray_lengths, MAP, RIGHT.long()),
    refused(TypeError, "directions has type list", ray_lengths, MAP, [[0.0, 1.0]]),
    refused(ValueError, "directions has shape (1, 3)", ray_lengths, MAP, torch.ones(1, 3)),
    refused(ValueError, "directions has shape (0, 2)", ray_lengths, MAP, RIGHT[:0]),
    refused(ValueError, "directions has lengths from 2 to 2", ray_lengths, MAP, 2 * RIGHT),
    refused(ValueError, "grid is (0, 1)", ray_lengths, MAP, RIGHT, (0, 1)),
    refused(ValueError, "grid is (1, 1, 1)", ray_lengths, MAP, RIGHT, (1, 1, 1)),
    defined([[[0, 0, 0], [0, 0, 0]]], ray_lengths, MAP, RIGHT),
    defined([[[3, 2, 1], [3, 2, 1]]], ray_lengths, MAP + 9, RIGHT),
    defined([[[3, 1], [3, 1]]], ray_lengths, MAP + 9, RIGHT, (1, 2)),
    defined([[[1]]], ray_lengths, zeros(1, 1) + 5, RIGHT),
]
