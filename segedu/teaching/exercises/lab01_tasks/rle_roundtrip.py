"""rle_roundtrip: encode a mask as COCO run lengths, and decode run lengths to a mask."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from segedu.ops.masks import rle_decode, rle_encode
from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case

Pair = tuple[list[int], Tensor]


def rle_roundtrip(mask: Tensor, counts: list[int], size: tuple[int, int]) -> Pair:
    """Encode `mask`; decode `counts`, which belong to another mask.

    Args:
        mask: (H, W) bool.
        counts: run lengths of a mask of `size`, in column-major order.
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
    """A random mask with these first and last pixels, whose runs differ between row-major and column-major order."""
    mask = torch.from_numpy(rng.random(size) < 0.5)
    mask[0, 0], mask[-1, -1] = first, last
    mask[1, 0], mask[0, 1] = not first, first
    return mask


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Masks that begin and end with 0 or 1; empty and full ones. The decoded mask always has another size."""

    def both(name: str, mask: Tensor, other: Tensor) -> Case:
        return case(name, mask, _encode(other), tuple(other.shape))

    empty, full = torch.zeros(3, 5, dtype=torch.bool), torch.ones(4, 2, dtype=torch.bool)
    core = [
        both("masks that begin with 0", _mask(rng, (4, 6), False, True), _mask(rng, (5, 3), False, True)),
        both("masks that end with 0", _mask(rng, (7, 3), False, False), _mask(rng, (2, 5), False, False)),
        both("masks that begin with 1", _mask(rng, (3, 4), True, False), _mask(rng, (4, 7), True, True)),
    ]
    edge = [
        both("an empty mask", empty, _mask(rng, (3, 4), True, True)),
        both("a full mask", full, _mask(rng, (4, 3), False, True)),
        both("counts of an empty mask", _mask(rng, (2, 3), True, True), empty),
        both("counts of a full mask", _mask(rng, (3, 2), False, False), full),
    ]
    return {"core": (3, core), "edge": (1, edge)}


def starts_and_lengths(mask: Tensor, counts: list[int], size: tuple[int, int]) -> Pair:
    """Write start (from 1) and length of each run of ones, as on Kaggle."""
    runs = _encode(mask)
    starts = np.cumsum([1, *runs])
    ones = range(1, len(runs), 2)
    return [value for i in ones for value in (int(starts[i]), runs[i])], _decode(counts, size)


def _values(counts: list[int], size: tuple[int, int]) -> Tensor:
    """The decoded values in the order of the counts."""
    return _decode(counts, size).T.flatten()


def _changes_too_early(counts: list[int]) -> list[int]:
    first = 0 if counts[0] else 1
    if len(counts) <= first + 1:
        return counts
    return [*counts[:first], counts[first] - 1, *counts[first + 1 : -1], counts[-1] + 1]


def _by_column(mask: Tensor) -> list[int]:
    return [count for column in mask.T for count in _encode(column[:, None])]


def _between_positions(counts: list[int], size: tuple[int, int]) -> Tensor:
    values = torch.zeros(size[0] * size[1], dtype=torch.bool)
    for start, end in zip(counts[::2], counts[1::2], strict=False):
        values[start:end] = True
    return values.reshape(size[::-1]).T


COLUMN_HINT = "COCO reads down the first column, then the second. In NumPy: the transposed mask, or order='F'."
ZEROS_FIRST_HINT = "A mask that begins with a one has the counts [0, ...]."
right = Variants(rle_roundtrip)

wrong = [
    Wrong(
        "row-major",
        right.instead(lambda a: (_encode(a.mask.T), _decode(a.counts, a.size[::-1]).T)),
        "You encode and decode row by row. COCO reads the mask column by column.",
        COLUMN_HINT,
    ),
    Wrong(
        "row-major when encoding",
        right.given(mask=lambda a: a.mask.T),
        "You decode column by column, as you should, but you encode row by row.",
        COLUMN_HINT,
    ),
    Wrong(
        "row-major when decoding",
        right.then(lambda out, a: (out[0], _decode(a.counts, a.size[::-1]).T)),
        "You encode column by column, as you should, but you decode row by row.",
        COLUMN_HINT,
    ),
    Wrong(
        "ones first",
        right.instead(lambda a: (_encode(~a.mask), ~_decode(a.counts, a.size))),
        "Your first run counts ones. It must count zeros, even if there are none.",
        ZEROS_FIRST_HINT,
    ),
    Wrong(
        "no leading zero",
        right.then(lambda out, a: (out[0][1:] if out[0][0] == 0 else out[0], out[1])),
        "You drop the first run of zeros when its length is 0. Keep the 0, or a reader swaps zeros and ones.",
        ZEROS_FIRST_HINT,
    ),
    Wrong(
        "last run dropped",
        right.then(lambda out, a: (out[0][:-1], out[1])),
        "You leave out the last run. The counts must add up to H * W.",
        "Does your loop write a run only when the next one begins?",
    ),
    Wrong(
        "last zeros dropped",
        right.then(lambda out, a: (out[0][:-1] if len(out[0]) % 2 else out[0], out[1])),
        "You leave out the last run when it counts zeros. The counts must add up to H * W.",
        "What is the sum of your counts of an empty mask?",
    ),
    Wrong(
        "start and length",
        starts_and_lengths,
        "You write the start and length of each run of ones, as Kaggle does. COCO writes only lengths, those of "
        "zeros and of ones in turn.",
        "Runs of zeros and ones alternate, so their lengths alone are enough.",
    ),
    Wrong(
        "decodes its own mask",
        right.then(lambda out, a: (out[0], a.mask.clone())),
        "You return the mask that you encoded. Decode the argument `counts` instead.",
        "The second result has the shape `size`.",
    ),
    Wrong(
        "whole numbers",
        right.then(lambda out, a: (out[0], out[1].to(torch.uint8))),
        "Your decoded mask holds integers. A mask is bool.",
        "Convert it at the end.",
    ),
    Wrong(
        "0 always first",
        right.then(lambda out, a: ([0, *out[0]] if out[0][0] else out[0], out[1])),
        "You always write a 0 first. It belongs there only if the mask begins with a one.",
        "The first count is the number of zeros at the beginning, which may be 0.",
    ),
    Wrong(
        "decodes ones first",
        right.then(lambda out, a: (out[0], ~out[1])),
        "Your decoding begins with ones. The first count is a run of zeros.",
        ZEROS_FIRST_HINT,
    ),
    Wrong(
        "decoded mask transposed",
        right.then(lambda out, a: (out[0], out[1].T)),
        "Your decoded mask is transposed. It should have the shape `size`.",
        COLUMN_HINT,
    ),
    Wrong(
        "decoded rows, then transposed",
        right.then(lambda out, a: (out[0], _values(a.counts, a.size).reshape(a.size).T)),
        "You reshape the decoded values to `size` and transpose them, so the shape is (W, H). Reshape to (W, H), then "
        "transpose.",
        COLUMN_HINT,
    ),
    Wrong(
        "runs of ones only",
        right.then(lambda out, a: (out[0][1::2], out[1])),
        "You write the runs of ones only. COCO writes the runs of zeros, too.",
        "The counts must add up to H * W.",
    ),
    Wrong(
        "0 at the end",
        right.then(lambda out, a: ([*out[0], 0] if len(out[0]) % 2 else out[0], out[1])),
        "You append a 0 if the mask ends with zeros. The last count is that of the last run.",
        "The number of counts may be odd.",
    ),
    Wrong(
        "changes one too early",
        right.then(lambda out, a: (_changes_too_early(out[0]), out[1])),
        "Your first run is too short by one, and your last run too long by one. A change between pixel i and i + 1 "
        "ends a run of i + 1 pixels.",
        "Add 1 to the indices that `flatnonzero` returns for the differences of neighbours.",
    ),
    Wrong(
        "empty list for an empty mask",
        right.then(lambda out, a: (out[0] if a.mask.any() else [], out[1])),
        "You return no counts for an empty mask. It is one run of zeros, [H * W].",
        "The counts must add up to H * W.",
    ),
    Wrong(
        "full mask as one run",
        right.then(lambda out, a: (out[0][1:] if a.mask.all() else out[0], out[1])),
        "You write a full mask as one run, which is the code of an empty mask. Its counts are [0, H * W].",
        ZEROS_FIRST_HINT,
    ),
    Wrong(
        "counts as positions",
        right.then(lambda out, a: (out[0], _between_positions(a.counts, a.size))),
        "You read the counts as positions where runs of ones begin and end. They are lengths of runs.",
        "The position at which a run begins is the sum of the counts before it.",
    ),
    Wrong(
        "positions of the changes",
        right.then(lambda out, a: (np.cumsum(out[0]).tolist(), out[1])),
        "You write the positions at which runs end. Write the lengths of the runs.",
        "The counts must add up to H * W.",
    ),
    Wrong(
        "counts of 0 skipped",
        right.then(lambda out, a: (out[0], ~out[1] if a.counts[0] == 0 else out[1])),
        "You skip a count of 0 without changing from zeros to ones, so your decoded mask is inverted.",
        ZEROS_FIRST_HINT,
    ),
    Wrong(
        "each column alone",
        right.then(lambda out, a: (_by_column(a.mask), out[1])),
        "You encode each column alone. A run continues in the next column.",
        "Flatten the mask first, then look for runs.",
    ),
]

exercise = Exercise(
    name="rle_roundtrip",
    points=4,
    cases=cases,
    reference=rle_roundtrip,
    wrong=wrong,
    kind="mask",
    hides=["segedu.ops.masks"],
)
