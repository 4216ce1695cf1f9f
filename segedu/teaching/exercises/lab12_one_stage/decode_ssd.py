"""decode_ssd: from the predictions of SSD's two heads for one feature map to boxes and scores."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import torch
from torch import Tensor

from segedu.ops.boxes import xyxy_to_cxcywh
from segedu.teaching.checks.exercise import Exercise, Wrong
from segedu.teaching.checks.variants import Variants
from segedu.teaching.exercises.lab12_one_stage.ssd_maps import cases

Size, Pair, Predictions = tuple[int, int], tuple[float, float], tuple[Tensor, Tensor]


def decode_ssd(deltas: Tensor, logits: Tensor, anchors: Tensor, image_size: Size, variances: Pair) -> Predictions:
    """Compute the predicted box and the class scores of every default box of a feature map.

    The heads are convolutions. At each location of an H x W map there are A default boxes, which share the channels of
    a head: the first 4 channels of `deltas` belong to the first default box of a location, the next 4 channels to the
    second one, and so on. `logits` has K channels per default box. The list of default boxes is in row-major order of
    the locations; the default boxes of one location follow one another.

    Box: let (xa, ya) be the centre of a default box, wa and ha its sides, and v, u the two variances. Then the deltas
    (dx, dy, dw, dh) predict

        x = xa + v dx wa     y = ya + v dy ha     w = wa exp(u dw)     h = ha exp(u dh)

    where (x, y) is the centre of the box. Boxes are clipped to the image.

    Scores: a softmax over the K classes. Class 0 is background; its column is removed after the softmax.

    Args:
        deltas: (A * 4, H, W) floats.
        logits: (A * K, H, W) floats; K is at least 2.
        anchors: (H * W * A, 4) floats (x1, y1, x2, y2) in pixels, the default boxes.
        image_size: (height, width) of the image in pixels.
        variances: (v, u); those of SSD are (0.1, 0.2).

    Returns:
        (H * W * A, 4) floats (x1, y1, x2, y2) in pixels, within the image; and (H * W * A, K - 1) floats.

    Example: one location, one default box of 20 x 20. It moves by 0.1 * 1 * 20 = 2 pixels to the right.

        >>> deltas, logits = torch.tensor([1.0, 0, 0, 0]).reshape(4, 1, 1), torch.zeros(2, 1, 1)
        >>> decode_ssd(deltas, logits, torch.tensor([[10.0, 10, 30, 30]]), (64, 64), (0.1, 0.2))
        (tensor([[12., 10., 32., 30.]]), tensor([[0.5000]]))
    """
    count = len(anchors) // deltas[0].numel()
    boxes = _decoded(_listed(deltas, count), anchors, variances)
    return _clipped(boxes, image_size), _listed(logits, count).softmax(dim=1)[:, 1:]


def _listed(channels: Tensor, count: int) -> Tensor:
    """(A * n, H, W) -> (H * W * A, n)."""
    return channels.unflatten(0, (count, -1)).permute(2, 3, 0, 1).flatten(0, 2)


def _decoded(deltas: Tensor, anchors: Tensor, variances: Pair) -> Tensor:
    """(P, 4) boxes, of listed deltas (P, 4) and their default boxes."""
    centre, sides = (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2]
    return _corners(centre + variances[0] * deltas[:, :2] * sides, sides * (variances[1] * deltas[:, 2:]).exp())


def _corners(centre: Tensor, sides: Tensor) -> Tensor:
    return torch.cat([centre - sides / 2, centre + sides / 2], dim=1)


def _clipped(boxes: Tensor, image_size: Size) -> Tensor:
    return torch.minimum(boxes.clamp(min=0), boxes.new_tensor(image_size[::-1]).repeat(2))


right = Variants(decode_ssd)


def _count(a: SimpleNamespace) -> int:
    return len(a.anchors) // a.deltas[0].numel()


def _unclipped(boxes: Callable[[Tensor, SimpleNamespace], Tensor]) -> Callable[..., Predictions]:
    """`boxes(right boxes before clipping, arguments)`, and the right scores."""

    def predictions(out: Predictions, a: SimpleNamespace) -> Predictions:
        return boxes(_decoded(_listed(a.deltas, _count(a)), a.anchors, a.variances), a), out[1]

    return right.then(predictions)


def _decoding(
    shift: Callable = lambda d, v, sides, factors: v * d * sides, factors: Callable = lambda d, u: (u * d).exp()
) -> Callable[..., Predictions]:
    """Another shift of the centre, or other factors of the sides.

    `shift` gets the deltas of the centre, v, the sides of the default box and their factors; `factors` gets the deltas
    of the sides and u.
    """

    def boxes(_: Tensor, a: SimpleNamespace) -> Tensor:
        deltas, (centre, sides) = _listed(a.deltas, _count(a)), xyxy_to_cxcywh(a.anchors).split(2, dim=1)
        growth = factors(deltas[:, 2:], a.variances[1])
        centre = centre + shift(deltas[:, :2], a.variances[0], sides, growth)
        return _clipped(_corners(centre, sides * growth), a.image_size)

    return _unclipped(boxes)


def _listing(listed: Callable[[Tensor, int], Tensor]) -> Callable[..., Predictions]:
    """`listed(map, A)` in place of the right list of deltas and of logits."""

    def predictions(a: SimpleNamespace) -> Predictions:
        boxes = _decoded(listed(a.deltas, _count(a)), a.anchors, a.variances)
        return _clipped(boxes, a.image_size), listed(a.logits, _count(a)).softmax(dim=1)[:, 1:]

    return right.instead(predictions)


def _scoring(scores: Callable[[Tensor], Tensor]) -> Callable[..., Predictions]:
    """`scores(listed logits (P, K))` in place of the right scores."""
    return right.then(lambda out, a: (out[0], scores(_listed(a.logits, _count(a)))))


def _half_sides(boxes: Tensor) -> Tensor:
    return xyxy_to_cxcywh(boxes)[:, 2:].repeat(1, 2) / 2


OUTWARDS = torch.tensor([-1, -1, 1, 1])
VARIANCE = "The first variance belongs to the centre, the second one to the sides."
ORDER = "(A * n, H, W) -> (A, n, H, W) -> (H, W, A, n) -> (H * W * A, n): split, permute, flatten."
CLIP = "x between 0 and the width, y between 0 and the height. image_size is (height, width)."
CORNER = "x1 = x - w / 2 and x2 = x + w / 2."

exercise = Exercise(
    name="decode_ssd",
    points=3,
    cases=cases,
    reference=decode_ssd,
    tolerance=1e-4,
    kind="decoded",
    hides=["segedu.ops.anchors", "segedu.detection.ssd"],
    wrong=[
        Wrong(
            "no variances",
            right.given(variances=lambda a: (1, 1)),
            "You leave out the variances. Multiply dx and dy by the first variance, dw and dh by the second one.",
            VARIANCE,
        ),
        Wrong(
            "divided by variances",
            right.given(variances=lambda a: (1 / a.variances[0], 1 / a.variances[1])),
            "You divide by the variances. Decoding multiplies by them.",
            "Encoding divides by them, so that the values to predict are near 1.",
        ),
        Wrong(
            "variances swapped",
            right.given(variances=lambda a: a.variances[::-1]),
            "You use the second variance for the centre and the first one for the sides. It should be the other "
            "way round.",
            VARIANCE,
        ),
        Wrong(
            "one variance for all",
            right.given(variances=lambda a: (a.variances[0], a.variances[0])),
            "You use the first variance for the sides too. Use the second variance for them.",
            VARIANCE,
        ),
        Wrong(
            "variance of the centre only",
            right.given(variances=lambda a: (a.variances[0], 1)),
            "You leave out the variance of the sides. Multiply dw and dh by the second variance.",
            VARIANCE,
        ),
        Wrong(
            "always 0.1 and 0.2",
            right.given(variances=lambda a: (0.1, 0.2)),
            "Your variances are always 0.1 and 0.2. Use the argument `variances`.",
            "`v, u = variances`.",
        ),
        Wrong(
            "variance outside of exp",
            _decoding(factors=lambda d, u: u * d.exp()),
            "You multiply the exponential by the variance. Multiply dw and dh by it before you take the exponential.",
            "A delta of 0 must not change the sides.",
        ),
        Wrong(
            "no exp",
            _decoding(factors=lambda d, u: 1 + u * d),
            "You leave out the exponential. The deltas of the sides are logarithms, so decoding needs an exponential.",
            "The deltas of the sides are logarithms.",
        ),
        Wrong(
            "in pixels",
            _decoding(lambda d, v, sides, factors: v * d),
            "You move the centre by v dx pixels. The offset is relative to the sides of the default box, so "
            "multiply by them.",
            "x = xa + v dx wa.",
        ),
        Wrong(
            "by the new sides",
            _decoding(lambda d, v, sides, factors: v * d * sides * factors),
            "You multiply the offset of the centre by the sides of the predicted box. Multiply it by those of "
            "the default box.",
            "x = xa + v dx wa, whatever w is.",
        ),
        Wrong(
            "from the corner",
            _decoding(lambda d, v, sides, factors: v * d * sides + (factors - 1) * sides / 2),
            "You move the upper left corner of the default box. dx and dy move its centre.",
            "Compute the new centre first, then the edges, half a side away from it.",
        ),
        Wrong(
            "sides swapped",
            _decoding(lambda d, v, sides, factors: v * d * sides.flip(1)),
            "You multiply the offset in x by the height of the default box and the offset in y by its width. It "
            "should be the other way round.",
            "wa = x2 - x1 belongs to x.",
        ),
        Wrong(
            "y before x",
            right.given(deltas=lambda a: a.deltas.unflatten(0, (-1, 2)).flip(1).flatten(0, 1)),
            "You read the deltas as (dy, dx, dh, dw). They are (dx, dy, dw, dh).",
            "The first of four channels belongs to x.",
        ),
        Wrong(
            "read as centre and sides",
            right.given(anchors=lambda a: _corners(a.anchors[:, :2], a.anchors[:, 2:])),
            "You read default boxes as (x, y, w, h). They are (x1, y1, x2, y2).",
            "xa = (x1 + x2) / 2, wa = x2 - x1. The code of SSD's authors stores centres and sides.",
        ),
        Wrong(
            "default boxes cut first",
            right.given(anchors=lambda a: a.anchors.clamp(min=0)),
            "You clip the default boxes to the image. Clip only the predicted boxes.",
            "A clipped default box has other sides and another centre.",
        ),
        Wrong(
            "not permuted",
            _listing(lambda x, A: x.reshape(-1, len(x) // A)),
            "You reshape the maps directly, which mixes channels and locations. Move the channels to the last "
            "axis first.",
            ORDER,
        ),
        Wrong(
            "default box by default box",
            _listing(lambda x, A: x.unflatten(0, (A, -1)).permute(0, 2, 3, 1).flatten(0, 2)),
            "You list the first default box of all locations, then the second one. List all default boxes of a "
            "location together.",
            ORDER,
        ),
        Wrong(
            "column by column",
            _listing(lambda x, A: x.unflatten(0, (A, -1)).permute(3, 2, 0, 1).flatten(0, 2)),
            "You list the locations column by column. List them row by row.",
            ORDER,
        ),
        Wrong(
            "number by number",
            _listing(lambda x, A: x.unflatten(0, (-1, A)).permute(2, 3, 1, 0).flatten(0, 2)),
            "You take every A-th channel for one default box. The channels of a default box are adjacent.",
            "The first 4 channels of deltas are dx, dy, dw, dh of the first default box.",
        ),
        Wrong(
            "not cut",
            _unclipped(lambda boxes, a: boxes),
            "You do not clip the boxes to the image. No predicted box should extend beyond its border.",
            CLIP,
        ),
        Wrong(
            "cut at 1",
            _unclipped(lambda boxes, a: boxes.clamp(0, 1)),
            "You clip the boxes to the range from 0 to 1. They are in pixels, so clip them to the size of the image.",
            CLIP,
        ),
        Wrong(
            "cut at 0 only",
            _unclipped(lambda boxes, a: boxes.clamp(min=0)),
            "You clip the boxes at the left and upper border only. Clip them at the right and lower border too.",
            CLIP,
        ),
        Wrong(
            "height for width",
            right.given(image_size=lambda a: a.image_size[::-1]),
            "You clip x at the height of the image and y at its width. It should be the other way round.",
            CLIP,
        ),
        Wrong(
            "parts of the image",
            right.then(lambda out, a: (out[0] / torch.tensor(a.image_size[::-1] * 2), out[1])),
            "You return boxes relative to the image. Return them in pixels.",
            "The default boxes are in pixels too.",
        ),
        Wrong(
            "as centre and sides",
            right.then(lambda out, a: (xyxy_to_cxcywh(out[0]), out[1])),
            "You return boxes as (x, y, w, h). Return them as (x1, y1, x2, y2).",
            CORNER,
        ),
        Wrong(
            "centre as corner",
            _unclipped(lambda boxes, a: _clipped(boxes + _half_sides(boxes), a.image_size)),
            "You use the predicted centre as the upper left corner of the box. x1 is half a width to the left of "
            "the centre.",
            CORNER,
        ),
        Wrong(
            "sides not halved",
            _unclipped(lambda boxes, a: _clipped(boxes + OUTWARDS * _half_sides(boxes), a.image_size)),
            "Your boxes are twice as wide and twice as high as they should be. Each edge is half a side from the "
            "centre.",
            CORNER,
        ),
        Wrong(
            "softmax over boxes",
            _scoring(lambda x: x.softmax(dim=0)[:, 1:]),
            "Your softmax is over the default boxes. It should be over the classes.",
            "The classes of one default box compete: dim=1 of the list (P, K).",
        ),
        Wrong(
            "softmax over all channels",
            right.then(lambda out, a: (out[0], _listed(a.logits.softmax(dim=0), _count(a))[:, 1:])),
            "Your softmax is over all channels of a location. Each default box has a softmax of its own.",
            "Convert the map to the list first. Then dim=1 has the K classes of one default box.",
        ),
        Wrong(
            "sigmoids",
            _scoring(lambda x: x.sigmoid()[:, 1:]),
            "You apply a sigmoid. SSD applies a softmax over the classes.",
            "RetinaNet has sigmoids, and no column for background.",
        ),
        Wrong(
            "no softmax",
            _scoring(lambda x: x[:, 1:]),
            "You return the logits of the classes. Return their softmax.",
            "softmax(dim=...)",
        ),
        Wrong(
            "with background",
            _scoring(lambda x: x.softmax(dim=1)),
            "You return the scores of the background too. Remove the background column after the softmax.",
            "K - 1 columns.",
        ),
        Wrong(
            "background left out before",
            _scoring(lambda x: x[:, 1:].softmax(dim=1)),
            "You remove the background before the softmax, so the scores of each default box sum to 1. Remove it "
            "afterwards.",
            "First the softmax over all K classes, then the columns from 1 on.",
        ),
        Wrong(
            "last class left out",
            _scoring(lambda x: x.softmax(dim=1)[:, :-1]),
            "You remove the last column of the scores. Remove column 0, which is background.",
            "scores[:, 1:]",
        ),
        Wrong(
            "the best score only",
            _scoring(lambda x: x.softmax(dim=1)[:, 1:].amax(dim=1)),
            "You return one score per box. Return one per class.",
            "A box may be detected as two classes.",
        ),
    ],
)
