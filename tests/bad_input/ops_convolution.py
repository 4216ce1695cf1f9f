"""Bad and empty input to `segedu.ops.convolution` and `segedu.ops.pooling`."""

import numpy as np
import torch
from bad_input.rows import defined, refused

from segedu.ops.convolution import (
    conv2d_loops,
    conv_matrix,
    conv_output_size,
    receptive_field,
    transposed_conv2d_scatter,
    transposed_conv_output_size,
)
from segedu.ops.pooling import average_unpool, max_pool_with_indices, max_unpool, pool_output_size

IMAGES, WEIGHT, KERNEL = torch.zeros(1, 2, 4, 5), torch.zeros(3, 2, 2, 2), torch.ones(2, 2)
TURNED = WEIGHT.transpose(0, 1)
VALUES, INDICES = torch.ones(1, 1, 1, 2), torch.tensor([[[[1, 6]]]])
CONV = ("conv", 3, 1, 1, 1)

ROWS = [
    row
    for function in (conv_output_size, transposed_conv_output_size, pool_output_size)
    for row in (
        refused(TypeError, "size is 7.0", function, 7.0, 3),
        refused(TypeError, "size is tensor(7)", function, torch.tensor(7), 3),
        refused(TypeError, "kernel_size is (3, 3)", function, 7, (3, 3)),
        refused(TypeError, "stride is '2'", function, 7, 3, "2"),
        refused(TypeError, "padding is True", function, 7, 3, 1, True),
        refused(ValueError, "size is 0", function, 0, 1),
        refused(ValueError, "kernel_size is 0", function, 7, 0),
        refused(ValueError, "stride is 0", function, 7, 3, 0),
        refused(ValueError, "padding is -1", function, 7, 3, 1, -1),
        refused(ValueError, "dilation is 0", function, 7, 3, dilation=0),
    )
]
ROWS += [
    refused(ValueError, "kernel_size is 3 with dilation 4, which spans 9 pixels", conv_output_size, 8, 3, dilation=4),
    refused(ValueError, "kernel_size is 5", conv_output_size, 4, 5),
    defined(1, conv_output_size, 5, 5, 3),
    refused(TypeError, "output_padding is 1.0", transposed_conv_output_size, 4, 3, 2, 1, 1.0),
    refused(ValueError, "output_padding is -1", transposed_conv_output_size, 4, 3, 2, 1, -1),
    refused(ValueError, "output_padding is 2", transposed_conv_output_size, 4, 3, 2, 1, 2),
    refused(ValueError, "padding is 2", transposed_conv_output_size, 1, 3, 1, 2),
    defined(1, transposed_conv_output_size, 1, 3, 1, 1),
    refused(ValueError, "padding is 2", pool_output_size, 7, 2, 2, 2),
    refused(ValueError, "kernel_size is 3", pool_output_size, 2, 3),
    refused(TypeError, "ceil_mode has type int", pool_output_size, 7, 2, 2, 0, 1, 1),
    defined(1, pool_output_size, 1, 2, ceil_mode=True),
    refused(TypeError, "layers[0] is (3, 1)", receptive_field, [(3, 1)]),
    refused(TypeError, "layers[1] is 3", receptive_field, [CONV, 3]),
    refused(TypeError, "layers[0]: kernel_size is 3.0", receptive_field, [("conv", 3.0, 1, 1, 1)]),
    refused(ValueError, "layers[1]: stride is 0", receptive_field, [CONV, ("pool", 2, 0, 0, 1)]),
    defined((1, 1, 0), receptive_field, []),
]
for function, weight in ((conv2d_loops, WEIGHT), (transposed_conv2d_scatter, TURNED)):
    ROWS += [
        refused(TypeError, "images has type list", function, [[0.0]], weight),
        refused(TypeError, "images has dtype torch.int64", function, IMAGES.long(), weight),
        refused(TypeError, "weight has type ndarray", function, IMAGES, np.zeros((3, 2, 2, 2))),
        refused(TypeError, "weight has dtype torch.float64", function, IMAGES, weight.double()),
        refused(ValueError, "images has shape (2, 4, 5)", function, IMAGES[0], weight),
        refused(ValueError, "images has shape (0, 2, 4, 5)", function, IMAGES[:0], weight),
        refused(ValueError, "weight has shape (2, 2)", function, IMAGES, KERNEL),
        refused(ValueError, f"weight has shape {tuple(weight.mT.shape)}", function, IMAGES[:, :1], weight),
        refused(TypeError, "bias has type float", function, IMAGES, weight, 1.0),
        refused(TypeError, "bias has dtype torch.float64", function, IMAGES, weight, torch.zeros(3).double()),
        refused(ValueError, "bias has shape (2,)", function, IMAGES, weight, torch.zeros(2)),
        refused(ValueError, "stride is 0", function, IMAGES, weight, None, 0),
        refused(ValueError, "padding is -1", function, IMAGES, weight, None, 1, -1),
    ]
ROWS += [
    refused(ValueError, "kernel_size is 2 with dilation 5", conv2d_loops, IMAGES, WEIGHT, dilation=5),
    refused(ValueError, "output_padding is 1", transposed_conv2d_scatter, IMAGES, TURNED, None, 1, 0, 1),
    refused(TypeError, "kernel has type list", conv_matrix, [[1.0]], (2, 2)),
    refused(TypeError, "kernel has dtype torch.int64", conv_matrix, KERNEL.long(), (2, 2)),
    refused(ValueError, "kernel has shape (2,)", conv_matrix, KERNEL[0], (2, 2)),
    refused(TypeError, "size is 4", conv_matrix, KERNEL, 4),
    refused(TypeError, "size is (2, 2.0)", conv_matrix, KERNEL, (2, 2.0)),
    refused(ValueError, "size is (0, 2)", conv_matrix, KERNEL, (0, 2)),
    refused(ValueError, "kernel_size is 2", conv_matrix, KERNEL, (1, 2)),
    defined(torch.ones(1, 4), conv_matrix, KERNEL, (2, 2)),
]
for function, more, name in (
    (max_pool_with_indices, (2,), "images"),
    (average_unpool, (2,), "values"),
    (max_unpool, (INDICES, (2, 4)), "values"),
):
    ROWS += [
        refused(TypeError, f"{name} has type list", function, [[0.0]], *more),
        refused(TypeError, f"{name} has dtype torch.int64", function, IMAGES.long(), *more),
        refused(ValueError, f"{name} has shape (2, 4, 5)", function, IMAGES[0], *more),
        refused(ValueError, f"{name} has shape (0, 2, 4, 5)", function, IMAGES[:0], *more),
    ]
ROWS += [
    refused(TypeError, "kernel_size is 2.0", max_pool_with_indices, IMAGES, 2.0),
    refused(ValueError, "kernel_size is 5", max_pool_with_indices, IMAGES, 5),
    refused(TypeError, "kernel_size is (2, 2)", average_unpool, IMAGES, (2, 2)),
    refused(ValueError, "kernel_size is 0", average_unpool, IMAGES, 0),
    defined(torch.ones(1, 1, 1, 2), average_unpool, VALUES, 1),
    refused(TypeError, "indices has dtype torch.int32", max_unpool, VALUES, INDICES.int(), (2, 4)),
    refused(TypeError, "indices has type list", max_unpool, VALUES, [1, 6], (2, 4)),
    refused(ValueError, "indices has shape (1, 1, 1, 1)", max_unpool, VALUES, INDICES[..., :1], (2, 4)),
    refused(ValueError, "indices has the value 6", max_unpool, VALUES, INDICES, (2, 3)),
    refused(ValueError, "indices has the value -6", max_unpool, VALUES, -INDICES, (2, 4)),
    refused(TypeError, "output_size is 8", max_unpool, VALUES, INDICES, 8),
    refused(ValueError, "output_size is (0, 4)", max_unpool, VALUES, INDICES, (0, 4)),
    defined(torch.tensor([[[[0.0, 1], [1, 0]]]]), max_unpool, VALUES, torch.tensor([[[[1, 2]]]]), (2, 2)),
]
