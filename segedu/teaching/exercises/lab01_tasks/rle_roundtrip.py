"""rle_roundtrip: a mask as COCO's run lengths, and run lengths as a mask."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segedu.ops.masks import rle_decode, rle_encode
from segedu.teaching.checks.exercise import Case, Exercise, Wrong

Pair = tuple[list[int], Tensor]


def rle_roundtrip(mask: Tensor, counts: list[int], size: tuple[int, int]) -> Pair:
    """Encode `mask`; decode `counts`, which belong to another mask.

    Args:
        mask: (H, W) bool.
        counts: run lengths of a mask of `size`, columns first.
        size: (H', W') of that mask.

    Returns:
        The counts of `mask`, and the mask of `counts`, (H', W') bool.
    """
    return _encode(mask), _decode(counts, size)


def _encode(mask: Tensor) -> list[int]:
    return rle_encode(mask)["counts"]


def _decode(counts: list[int], size: tuple[int, int]) -> Tensor:
    return rle_decode({"size": list(size), "counts": counts})


def _mask(rng: np.random.Generator, size: tuple[int, int], first: bool, last: bool) -> Tensor:
    """A drawn mask with given corners and runs longer than one, so that no order of the pixels gives the same runs."""
    mask = torch.from_numpy(rng.random(size) < 0.5)
    mask[0, 0], mask[-1, -1] = first, last
    mask[1, 0], mask[0, 1] = not first, first
    return mask


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Masks that begin and end with 0 or 1; the decoded one always differs in size; empty, full.

    Args:
        rng: of the masks.

    Returns:
        The cases by group.
    """

    def case(name: str, mask: Tensor, other: Tensor) -> Case:
        return {"name": name, "args": [mask, _encode(other), tuple(other.shape)]}

    empty, full = torch.zeros(3, 5, dtype=torch.bool), torch.ones(4, 2, dtype=torch.bool)
    return {
        "core": (
            3,
            [
                case("masks that begin with 0", _mask(rng, (4, 6), False, True), _mask(rng, (5, 3), False, True)),
                case("masks that end with 0", _mask(rng, (7, 3), False, False), _mask(rng, (2, 5), False, False)),
                case("masks that begin with 1", _mask(rng, (3, 4), True, False), _mask(rng, (4, 7), True, True)),
            ],
        ),
        "edge": (
            1,
            [
                case("an empty mask", empty, _mask(rng, (3, 4), True, True)),
                case("a full mask", full, _mask(rng, (4, 3), False, True)),
                case("counts of an empty mask", _mask(rng, (2, 3), True, True), empty),
                case("counts of a full mask", _mask(rng, (3, 2), False, False), full),
            ],
        ),
    }


def row_major(mask: Tensor, counts: list[int], size: tuple[int, int]) -> Pair:
    """Row by row, both ways."""
    return _encode(mask.T), _decode(counts, size[::-1]).T


def row_major_encode(mask: Tensor, counts: list[int], size: tuple[int, int]) -> Pair:
    """Row by row when it encodes."""
    return _encode(mask.T), _decode(counts, size)


def row_major_decode(mask: Tensor, counts: list[int], size: tuple[int, int]) -> Pair:
    """Row by row when it decodes."""
    return _encode(mask), _decode(counts, size[::-1]).T


def ones_first(mask: Tensor, counts: list[int], size: tuple[int, int]) -> Pair:
    """The first run is of ones, both ways."""
    return _encode(~mask), ~_decode(counts, size)


def no_leading_zero(mask: Tensor, counts: list[int], size: tuple[int, int]) -> Pair:
    """Leaves out the empty run of zeros when it encodes."""
    found = _encode(mask)
    return found[1:] if found[0] == 0 else found, _decode(counts, size)


def last_run_dropped(mask: Tensor, counts: list[int], size: tuple[int, int]) -> Pair:
    """A run is written when the next one begins."""
    return _encode(mask)[:-1], _decode(counts, size)


def trailing_zeros_dropped(mask: Tensor, counts: list[int], size: tuple[int, int]) -> Pair:
    """A last run of zeros is left out."""
    found = _encode(mask)
    return found[:-1] if len(found) % 2 else found, _decode(counts, size)


def starts_and_lengths(mask: Tensor, counts: list[int], size: tuple[int, int]) -> Pair:
    """Start and length of each run of ones, numbered from 1, as on Kaggle."""
    found = _encode(mask)
    starts = np.cumsum([0, *found])
    pairs = [[int(starts[i]) + 1, found[i]] for i in range(1, len(found), 2)]
    return [number for pair in pairs for number in pair], _decode(counts, size)


def echo(mask: Tensor, counts: list[int], size: tuple[int, int]) -> Pair:
    """Returns its own mask as the decoded one."""
    return _encode(mask), mask.clone()


def integers(mask: Tensor, counts: list[int], size: tuple[int, int]) -> Pair:
    """A mask of 0 and 1."""
    return _encode(mask), _decode(counts, size).to(torch.uint8)


COLUMN_HINT = "COCO goes down the first column, then down the second. In numpy: the transposed mask, or order='F'."

exercise = Exercise(
    name="rle_roundtrip",
    points=4,
    cases=cases,
    reference=rle_roundtrip,
    kind="mask",
    hides=["segedu.ops.masks"],
    wrong=[
        Wrong("row-major", row_major, "You go row by row: COCO's runs go down the columns.", COLUMN_HINT),
        Wrong(
            "row-major when encoding",
            row_major_encode,
            "You encode row by row, but decode column by column.",
            COLUMN_HINT,
        ),
        Wrong(
            "row-major when decoding",
            row_major_decode,
            "You encode column by column, but decode row by row.",
            COLUMN_HINT,
        ),
        Wrong(
            "ones first",
            ones_first,
            "Your first run is of ones: it must be of zeros, even if its length is 0.",
            "A mask that begins with a one has the counts [0, ...].",
        ),
        Wrong(
            "no leading zero",
            no_leading_zero,
            "You leave out the first run where it is empty: then zeros and ones change places for the reader.",
            "A mask that begins with a one has the counts [0, ...].",
        ),
        Wrong(
            "last run dropped",
            last_run_dropped,
            "You lose the last run: the counts must add up to H * W.",
            "Does your loop write a run only when the next one begins?",
        ),
        Wrong(
            "last zeros dropped",
            trailing_zeros_dropped,
            "You leave out a last run of zeros: the counts must add up to H * W.",
            "Add the counts of an empty mask.",
        ),
        Wrong(
            "start and length",
            starts_and_lengths,
            "You write start and length of each run of ones, as Kaggle does: COCO writes lengths only, zeros too.",
            "Zeros and ones take turns, so their lengths alone are enough.",
        ),
        Wrong(
            "decodes its own mask",
            echo,
            "You return the mask that you encoded: decode `counts`, which came from elsewhere.",
            "The second result has the shape `size`.",
        ),
        Wrong(
            "whole numbers",
            integers,
            "Your decoded mask holds whole numbers: a mask is bool.",
            "Convert it at the end.",
        ),
    ],
)
