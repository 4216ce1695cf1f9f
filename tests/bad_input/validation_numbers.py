"""Bad input to `segedu.validation.numbers`."""

import math

from bad_input.rows import NAN, defined, refused

from segedu.validation.numbers import (
    check_choice,
    check_integer,
    check_integers,
    check_length,
    check_multiple,
    check_number,
    check_size,
)

ROWS = [
    refused(TypeError, "stride is 1.0, expected an integer of at least 1", check_integer, "stride", 1.0),
    refused(TypeError, "stride is True", check_integer, "stride", True),
    refused(ValueError, "stride is 9, expected an integer from 1 to 8", check_integer, "stride", 9, 1, 8),
    defined(0, check_integer, "padding", 0, 0),
    refused(TypeError, "depths[1] is '2'", check_integers, depths=[1, "2"]),
    refused(ValueError, "width is 0, expected an integer of at least 1", check_integers, depth=1, width=0),
    refused(TypeError, "smooth is '1', expected a finite number of at least 0", check_number, "smooth", "1"),
    refused(TypeError, "smooth is True", check_number, "smooth", True),
    refused(ValueError, "smooth is nan", check_number, "smooth", NAN),
    refused(ValueError, "smooth is inf", check_number, "smooth", math.inf),
    refused(
        ValueError, "alpha is 1.5, expected a number of at least 0 and at most 1", check_number, "alpha", 1.5, 0, 1
    ),
    refused(ValueError, "x is 2, expected a number of at most 1", check_number, "x", 2, -math.inf, 1),
    refused(ValueError, "sigma is 0, expected a finite number above 0", check_number, "sigma", 0, exclusive=True),
    defined(-3.0, check_number, "x", -3, -math.inf),
    refused(TypeError, "size is 4, expected (H, W), integers of at least 1", check_size, "size", 4),
    refused(TypeError, "size is (4, 4, 4), expected (H, W)", check_size, "size", (4, 4, 4)),
    refused(TypeError, "size is (4, 4.0), expected (H, W)", check_size, "size", (4, 4.0)),
    refused(
        ValueError, "size is (4, 4, 1), expected (D, H, W), integers of at least 2", check_size, "size", (4, 4, 1), 2, 3
    ),
    refused(ValueError, "names has 2 entries, expected 3", check_length, "names", "ab", 3),
    refused(ValueError, "order is 3, expected 1", check_choice, "order", 3, [1]),
    refused(
        ValueError, "dim is 8, expected a positive multiple of heads, which is 3", check_multiple, "dim", 8, 3, "heads"
    ),
    refused(ValueError, "dim is 0, expected a positive multiple of 4", check_multiple, "dim", 0, 4),
    defined(None, check_multiple, "dim", 8, 4),
]
