"""decode_ssd: from what SSD's two heads say of one feature map to boxes and scores."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Exercise, Wrong
from segedu.teaching.exercises.lab12_one_stage.ssd_maps import cases

Size, Pair, Found = tuple[int, int], tuple[float, float], tuple[Tensor, Tensor]


def decode_ssd(deltas: Tensor, logits: Tensor, anchors: Tensor, image_size: Size, variances: Pair) -> Found:
    """Give each default box of a feature map its box in the image, and its scores.

    A head is a convolution: A default boxes at each place of an H x W map share its channels. The first 4 channels of
    `deltas` belong to the first default box of a place, the next 4 to the second one; of `logits` it is K channels
    each. The list of default boxes goes row by row, in a row place by place, at a place one after the other.

    Box: let (xa, ya) be the centre of a default box, wa and ha its sides, and v, u the two variances. Then the deltas
    (dx, dy, dw, dh) mean

        x = xa + v dx wa     y = ya + v dy ha     w = wa exp(u dw)     h = ha exp(u dh)

    where (x, y) is the centre of the box. What reaches over the image is cut off.

    Scores: a softmax over the K classes. Class 0 is background; its column is left out, after the softmax.

    Args:
        deltas: (A * 4, H, W) floats.
        logits: (A * K, H, W) floats; K is at least 2.
        anchors: (H * W * A, 4) floats (x1, y1, x2, y2) in pixels, the default boxes.
        image_size: (height, width) of the image in pixels.
        variances: (v, u); SSD's are (0.1, 0.2).

    Returns:
        (H * W * A, 4) floats (x1, y1, x2, y2) in pixels, within the image; and (H * W * A, K - 1) floats.

    Example: one place, one default box of 20 x 20. It moves by 0.1 * 1 * 20 = 2 pixels to the right.

        >>> deltas, logits = torch.tensor([1.0, 0, 0, 0]).reshape(4, 1, 1), torch.zeros(2, 1, 1)
        >>> decode_ssd(deltas, logits, torch.tensor([[10.0, 10, 30, 30]]), (64, 64), (0.1, 0.2))
        (tensor([[12., 10., 32., 30.]]), tensor([[0.5000]]))
    """
    count = len(anchors) // deltas[0].numel()
    boxes = _decoded(_listed(deltas, count), anchors, variances)
    return _cut(boxes, image_size), _listed(logits, count).softmax(dim=1)[:, 1:]


def _listed(channels: Tensor, count: int) -> Tensor:
    """(A * n, H, W) -> (H * W * A, n)."""
    return channels.unflatten(0, (count, -1)).permute(2, 3, 0, 1).flatten(0, 2)


def _decoded(moves: Tensor, anchors: Tensor, variances: Pair) -> Tensor:
    """(P, 4), of moves (P, 4) and their default boxes."""
    centre, sides = (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2]
    return _corners(centre + variances[0] * moves[:, :2] * sides, sides * (variances[1] * moves[:, 2:]).exp())


def _corners(centre: Tensor, sides: Tensor) -> Tensor:
    return torch.cat([centre - sides / 2, centre + sides / 2], dim=1)


def _centre_and_sides(boxes: Tensor) -> Tensor:
    return torch.cat([(boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]], dim=1)


def _cut(boxes: Tensor, image_size: Size) -> Tensor:
    return torch.minimum(boxes.clamp(min=0), boxes.new_tensor(image_size[::-1]).repeat(2))


def _with(moves: Callable[..., Tensor]) -> Callable[..., Found]:
    """Boxes by `moves(list of deltas, anchors, variances)`, the rest as it should be."""

    def answer(deltas: Tensor, logits: Tensor, anchors: Tensor, image_size: Size, variances: Pair) -> Found:
        boxes = moves(_listed(deltas, len(anchors) // deltas[0].numel()), anchors, variances)
        return _cut(boxes, image_size), decode_ssd(deltas, logits, anchors, image_size, variances)[1]

    return answer


def _by(centre: Callable[..., Tensor], growth: Callable[..., Tensor]) -> Callable[..., Found]:
    """Way of the centre and factors of the sides, each by `(deltas of it, variances, sides of the anchor)`."""

    def moves(listed: Tensor, anchors: Tensor, variances: Pair) -> Tensor:
        middle, sides = (anchors[:, :2] + anchors[:, 2:]) / 2, anchors[:, 2:] - anchors[:, :2]
        factors = growth(listed[:, 2:], variances)
        return _corners(middle + centre(listed[:, :2], variances, sides, factors), sides * factors)

    return _with(moves)


def _way(d: Tensor, v: Pair, sides: Tensor, factors: Tensor) -> Tensor:
    return v[0] * d * sides


def _growth(d: Tensor, v: Pair) -> Tensor:
    return (v[1] * d).exp()


no_variances = _by(lambda d, v, s, f: d * s, lambda d, v: d.exp())
divided = _by(lambda d, v, s, f: d / v[0] * s, lambda d, v: (d / v[1]).exp())
variances_swapped = _by(lambda d, v, s, f: v[1] * d * s, lambda d, v: (v[0] * d).exp())
first_variance = _by(_way, lambda d, v: (v[0] * d).exp())
variance_of_the_centre_only = _by(_way, lambda d, v: d.exp())
the_usual_variances = _by(lambda d, v, s, f: 0.1 * d * s, lambda d, v: (0.2 * d).exp())
variance_outside = _by(_way, lambda d, v: v[1] * d.exp())
no_exp = _by(_way, lambda d, v: 1 + v[1] * d)
in_pixels = _by(lambda d, v, s, f: v[0] * d, _growth)
by_the_new_sides = _by(lambda d, v, s, f: v[0] * d * s * f, _growth)
from_the_corner = _by(lambda d, v, s, f: v[0] * d * s + (f - 1) * s / 2, _growth)
sides_swapped = _by(lambda d, v, s, f: v[0] * d * s.flip(1), _growth)
y_before_x = _with(lambda listed, a, v: _decoded(listed[:, [1, 0, 3, 2]], a, v))
read_as_centre_and_sides = _with(lambda listed, a, v: _decoded(listed, _corners(a[:, :2], a[:, 2:]), v))
default_boxes_cut_first = _with(lambda listed, a, v: _decoded(listed, a.clamp(min=0), v))


def _arranged(order: Callable[[Tensor, int], Tensor]) -> Callable[..., Found]:
    """`order` makes the lists of deltas and logits."""

    def answer(deltas: Tensor, logits: Tensor, anchors: Tensor, image_size: Size, variances: Pair) -> Found:
        count = len(anchors) // deltas[0].numel()
        boxes = _decoded(order(deltas, count), anchors, variances)
        return _cut(boxes, image_size), order(logits, count).softmax(dim=1)[:, 1:]

    return answer


not_permuted = _arranged(lambda x, A: x.reshape(-1, len(x) // A))
default_box_by_default_box = _arranged(lambda x, A: x.unflatten(0, (A, -1)).permute(0, 2, 3, 1).flatten(0, 2))
column_by_column = _arranged(lambda x, A: x.unflatten(0, (A, -1)).permute(3, 2, 0, 1).flatten(0, 2))
number_by_number = _arranged(lambda x, A: x.unflatten(0, (-1, A)).permute(2, 3, 1, 0).flatten(0, 2))


def _shown(boxes: Callable[[Tensor, Size], Tensor]) -> Callable[..., Found]:
    """`boxes(decoded, image_size)` is what is returned of the boxes."""

    def answer(deltas: Tensor, logits: Tensor, anchors: Tensor, image_size: Size, variances: Pair) -> Found:
        count = len(anchors) // deltas[0].numel()
        decoded = _decoded(_listed(deltas, count), anchors, variances)
        return boxes(decoded, image_size), _listed(logits, count).softmax(dim=1)[:, 1:]

    return answer


not_cut = _shown(lambda boxes, size: boxes)
cut_at_one = _shown(lambda boxes, size: boxes.clamp(0, 1))
cut_below_only = _shown(lambda boxes, size: boxes.clamp(min=0))
cut_the_other_way = _shown(lambda boxes, size: _cut(boxes, size[::-1]))
parts_of_the_image = _shown(lambda boxes, size: _cut(boxes, size) / torch.tensor(size[::-1]).repeat(2))
as_centre_and_sides = _shown(lambda boxes, size: _centre_and_sides(_cut(boxes, size)))
corner_for_centre = _shown(
    lambda b, size: _cut(torch.cat([(b[:, :2] + b[:, 2:]) / 2, b[:, 2:] * 1.5 - b[:, :2] / 2], dim=1), size)
)
sides_not_halved = _shown(lambda b, size: _cut(_corners((b[:, :2] + b[:, 2:]) / 2, 2 * (b[:, 2:] - b[:, :2])), size))


def _scored(scores: Callable[[Tensor], Tensor]) -> Callable[..., Found]:
    """`scores` of the list of logits (P, K)."""

    def answer(deltas: Tensor, logits: Tensor, anchors: Tensor, image_size: Size, variances: Pair) -> Found:
        boxes, _ = decode_ssd(deltas, logits, anchors, image_size, variances)
        return boxes, scores(_listed(logits, len(anchors) // deltas[0].numel()))

    return answer


softmax_over_boxes = _scored(lambda x: x.softmax(dim=0)[:, 1:])
sigmoids = _scored(lambda x: x.sigmoid()[:, 1:])
no_softmax = _scored(lambda x: x[:, 1:])
with_background = _scored(lambda x: x.softmax(dim=1))
without_background_before = _scored(lambda x: x[:, 1:].softmax(dim=1))
last_left_out = _scored(lambda x: x.softmax(dim=1)[:, :-1])


def softmax_over_channels(deltas: Tensor, logits: Tensor, anchors: Tensor, image_size: Size, variances: Pair) -> Found:
    """The softmax of the map, whose channels are those of all default boxes of a place."""
    boxes, _ = decode_ssd(deltas, logits, anchors, image_size, variances)
    return boxes, _listed(logits.softmax(dim=0), len(anchors) // deltas[0].numel())[:, 1:]


best_score = _scored(lambda x: x.softmax(dim=1)[:, 1:].amax(dim=1))

VARIANCE = "The first one belongs to the centre, the second one to the sides."
ORDER = "(A * n, H, W) -> (A, n, H, W) -> (H, W, A, n) -> (H * W * A, n): split, permute, flatten."
CUT = "x between 0 and the width, y between 0 and the height. image_size is (height, width)."
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
        Wrong("no variances", no_variances, "You leave out the variances.", VARIANCE),
        Wrong(
            "divided by variances",
            divided,
            "You divide by the variances: to decode is to multiply by them.",
            "Encoding divides by them, so that what the network has to say is near 1.",
        ),
        Wrong(
            "variances swapped",
            variances_swapped,
            "You take the second variance for the centre and the first one for the sides.",
            VARIANCE,
        ),
        Wrong(
            "one variance for all",
            first_variance,
            "You take the first variance for the sides too: they have the second one.",
            VARIANCE,
        ),
        Wrong(
            "variance of the centre only",
            variance_of_the_centre_only,
            "You leave the variance out of the sides.",
            VARIANCE,
        ),
        Wrong(
            "always 0.1 and 0.2",
            the_usual_variances,
            "Your variances are always 0.1 and 0.2: take those that are given.",
            "`v, u = variances`.",
        ),
        Wrong(
            "variance outside of exp",
            variance_outside,
            "You multiply the exponential by the variance: it stands inside, exp(u dw).",
            "A delta of 0 must leave the sides as they are.",
        ),
        Wrong(
            "no exp",
            no_exp,
            "You leave out the exponential: w = wa exp(u dw).",
            "The deltas of the sides are logarithms.",
        ),
        Wrong(
            "in pixels",
            in_pixels,
            "You move the centre by pixels: its way is counted in sides of the default box.",
            "x = xa + v dx wa.",
        ),
        Wrong(
            "by the new sides",
            by_the_new_sides,
            "You count the way of the centre in sides of the new box: those of the default box count.",
            "x = xa + v dx wa, whatever w is.",
        ),
        Wrong(
            "from the corner",
            from_the_corner,
            "You move the upper left corner of the default box: dx and dy move its centre.",
            "First the new centre, then half a side each way.",
        ),
        Wrong(
            "sides swapped",
            sides_swapped,
            "You count the way in x in heights, and that in y in widths.",
            "wa = x2 - x1 goes with x.",
        ),
        Wrong(
            "y before x",
            y_before_x,
            "You read the deltas as (dy, dx, dh, dw): they are (dx, dy, dw, dh).",
            "The first of four channels goes with x.",
        ),
        Wrong(
            "read as centre and sides",
            read_as_centre_and_sides,
            "You read default boxes as (x, y, w, h): they are (x1, y1, x2, y2).",
            "xa = (x1 + x2) / 2, wa = x2 - x1. The authors' priors are stored as centre and sides.",
        ),
        Wrong(
            "default boxes cut first",
            default_boxes_cut_first,
            "You cut the default boxes at the image: only what is decoded is cut.",
            "A default box that is cut has other sides and another centre.",
        ),
        Wrong(
            "not permuted",
            not_permuted,
            "You reshape the maps as they are: channels come first there, and must come last in the list.",
            ORDER,
        ),
        Wrong(
            "default box by default box",
            default_box_by_default_box,
            "Your list goes default box by default box: it goes place by place.",
            ORDER,
        ),
        Wrong("column by column", column_by_column, "Your list goes column by column: it goes row by row.", ORDER),
        Wrong(
            "number by number",
            number_by_number,
            "You take every A-th channel for one default box: its channels lie side by side.",
            "The first 4 channels of deltas are dx, dy, dw, dh of the first default box.",
        ),
        Wrong("not cut", not_cut, "You leave what reaches over the image.", CUT),
        Wrong("cut at 1", cut_at_one, "You cut at 1: the boxes are in pixels.", CUT),
        Wrong("cut at 0 only", cut_below_only, "You cut at the left and the upper border only.", CUT),
        Wrong("height for width", cut_the_other_way, "You cut x at the height and y at the width.", CUT),
        Wrong(
            "parts of the image",
            parts_of_the_image,
            "You return parts of the image: pixels are asked for.",
            "The default boxes are in pixels. So are the boxes.",
        ),
        Wrong(
            "as centre and sides",
            as_centre_and_sides,
            "You return (x, y, w, h): (x1, y1, x2, y2) is asked for.",
            CORNER,
        ),
        Wrong("centre as corner", corner_for_centre, "Your boxes begin at their centre.", CORNER),
        Wrong(
            "sides not halved",
            sides_not_halved,
            "Your boxes are twice too wide and too high: from the centre it is half a side each way.",
            CORNER,
        ),
        Wrong(
            "softmax over boxes",
            softmax_over_boxes,
            "Your softmax goes over the default boxes: it goes over the classes.",
            "The classes of one default box compete. dim=1 in the list (P, K).",
        ),
        Wrong(
            "softmax over all channels",
            softmax_over_channels,
            "Your softmax goes over all channels of a place: each default box has a softmax of its own.",
            "Bring the map into the list first; then dim=1 has the K classes of one default box.",
        ),
        Wrong(
            "sigmoids",
            sigmoids,
            "You take a sigmoid: SSD takes a softmax over the classes.",
            "RetinaNet has sigmoids, and no column for background.",
        ),
        Wrong("no softmax", no_softmax, "You return logits: the scores are their softmax.", "logits.softmax(dim=...)"),
        Wrong(
            "with background", with_background, "You return the column of background: it is left out.", "K - 1 columns."
        ),
        Wrong(
            "background left out before",
            without_background_before,
            "You leave out background before the softmax: then every default box is an object.",
            "First the softmax over all K, then the columns from 1 on.",
        ),
        Wrong(
            "last class left out",
            last_left_out,
            "You leave out the last column: background is column 0.",
            "scores[:, 1:]",
        ),
        Wrong(
            "the best score only",
            best_score,
            "You return one score for each box: one for each class is asked for.",
            "A box may be found as two classes.",
        ),
    ],
)
