"""Bad input to `segedu.validation.tensors`."""

import torch
from bad_input.rows import NAN, defined, refused

from segedu.validation.tensors import (
    check_decoder_outputs,
    check_dtype,
    check_finite,
    check_floats,
    check_integer_tensor,
    check_keys,
    check_list,
    check_no_nan,
    check_numeric,
    check_shape,
    check_tensor,
    check_tensor_dict,
)

MAPS = {"logits": torch.zeros(2, 3), "aux_outputs": [], "sizes": [(4, 4)] * 2}


def layers(**changed):
    return check_decoder_outputs(MAPS | changed, logits="B Q")


ROWS = [
    refused(TypeError, "x has type list, expected a tensor of shape (B, 4)", check_tensor, "x", [1], "B 4"),
    refused(
        ValueError, "x has shape (2, 3), expected (B, 4), no axis empty", check_tensor, "x", torch.zeros(2, 3), "B 4"
    ),
    refused(ValueError, "x has shape (0, 4), expected (B, 4)", check_tensor, "x", torch.zeros(0, 4), "B 4"),
    refused(ValueError, "x has shape (2,), expected (4,)", check_shape, "x", (2,), "4"),
    refused(ValueError, "x has shape (2, 2), expected (B, 1 or 3)", check_shape, "x", (2, 2), "B 1|3"),
    refused(ValueError, "x has shape (3,), expected (B,) with B = 2", check_shape, "x", (3,), "B", {"B": 2}),
    refused(ValueError, "x has shape (0, 3), expected (N, 4)", check_shape, "x", (0, 3), "N? 4"),
    defined({"N": 0}, check_shape, "x", (0, 4), "N? 4"),
    refused(
        TypeError, "x has dtype torch.int64, expected a floating-point dtype", check_floats, "x", torch.tensor([1])
    ),
    refused(TypeError, "x has dtype torch.bool, expected integers", check_integer_tensor, "x", torch.zeros(2).bool()),
    refused(TypeError, "x has dtype torch.float32, expected torch.bool", check_dtype, "x", torch.zeros(2), torch.bool),
    refused(ValueError, "x has the value nan, expected finite values", check_finite, "x", torch.zeros(2) * NAN),
    refused(ValueError, "out['a'] contains NaN", check_no_nan, "out", {"a": torch.zeros(2) * NAN}, ["a"]),
    refused(TypeError, "out has type list, expected a dict with the keys a, b", check_keys, "out", [], ["a", "b"]),
    refused(ValueError, "out has the keys ['a'], expected a, b", check_keys, "out", {"a": 1}, ["a", "b"]),
    refused(TypeError, "targets has type dict, expected a list", check_list, "targets", {}, 1),
    refused(ValueError, "targets has 0 entries, expected 1, one for each image", check_list, "targets", [], 1),
    refused(
        ValueError,
        "out['b'] has shape (3,)",
        check_tensor_dict,
        "out",
        {"a": torch.zeros(2), "b": torch.zeros(3)},
        a="B",
        b="B",
    ),
    refused(TypeError, "outputs has type list", check_decoder_outputs, [], logits="B Q"),
    refused(TypeError, "outputs['aux_outputs'] has type dict", layers, aux_outputs={}),
    refused(ValueError, "outputs['aux_outputs'][0] has the keys []", layers, aux_outputs=[{}]),
    refused(ValueError, "outputs['sizes'] has 1 entries, expected 2", layers, sizes=[(4, 4)]),
    refused(TypeError, "x has dtype torch.bool, expected integers or floats", check_numeric, "x", torch.ones(2).bool()),
    refused(TypeError, "x has type list, expected a tensor of integers or floats", check_numeric, "x", [1]),
]
