"""encode_decode: from boxes to what a network says of its anchors, and back."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from segedu.teaching.checks.exercise import Exercise, Wrong
from segedu.teaching.exercises.lab11_detection.pairs import cases

Pair = tuple[Tensor, Tensor]


def encode_decode(boxes: Tensor, anchors: Tensor, deltas: Tensor) -> Pair:
    """Encode each box by its anchor, and decode deltas that a network gave for the same anchors.

    With x, y the centre of a box and w, h its sides, and xa, ya, wa, ha those of its anchor, the deltas are

        tx = (x - xa) / wa    ty = (y - ya) / ha    tw = log(w / wa)    th = log(h / ha)

    where log is the natural logarithm. To decode is the inverse: which box has these deltas?

    Args:
        boxes: (N, 4) floats (x1, y1, x2, y2).
        anchors: (N, 4) floats (x1, y1, x2, y2): anchor n belongs to row n of the boxes, and of the deltas.
        deltas: (N, 4) floats (tx, ty, tw, th), from elsewhere: they are not those of the boxes.

    Returns:
        (N, 4) deltas (tx, ty, tw, th) of the boxes, and (N, 4) boxes (x1, y1, x2, y2) of the deltas.

    Example: the box lies 1 to the right, a quarter of the anchor's width, and is as large. Deltas of 0 change nothing.

        >>> anchors = torch.tensor([[0.0, 0.0, 4.0, 2.0]])
        >>> encode_decode(torch.tensor([[1.0, 0.0, 5.0, 2.0]]), anchors, torch.zeros(1, 4))
        (tensor([[0.2500, 0.0000, 0.0000, 0.0000]]), tensor([[0., 0., 4., 2.]]))
    """
    return _encode(boxes, anchors), _decode(anchors, deltas)


def _centre_and_sides(boxes: Tensor) -> Pair:
    return (boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]


def _encode(boxes: Tensor, anchors: Tensor) -> Tensor:
    (centre, sides), (anchor, anchor_sides) = _centre_and_sides(boxes), _centre_and_sides(anchors)
    return torch.cat([(centre - anchor) / anchor_sides, (sides / anchor_sides).log()], dim=1)


def _decode(anchors: Tensor, deltas: Tensor) -> Tensor:
    anchor, anchor_sides = _centre_and_sides(anchors)
    centre = anchor + deltas[:, :2] * anchor_sides
    half = anchor_sides * deltas[:, 2:].exp() / 2
    return torch.cat([centre - half, centre + half], dim=1)


def no_log(boxes: Tensor, anchors: Tensor, deltas: Tensor) -> Pair:
    """w / wa."""
    encoded = _encode(boxes, anchors)
    return torch.cat([encoded[:, :2], encoded[:, 2:].exp()], dim=1), _decode(anchors, deltas)


def no_exp(boxes: Tensor, anchors: Tensor, deltas: Tensor) -> Pair:
    """wa * tw."""
    anchor, sides = _centre_and_sides(anchors)
    return _encode(boxes, anchors), _corners(anchor + deltas[:, :2] * sides, sides * deltas[:, 2:])


def no_log_no_exp(boxes: Tensor, anchors: Tensor, deltas: Tensor) -> Pair:
    """Both, so that they are inverse again."""
    return no_log(boxes, anchors, deltas)[0], no_exp(boxes, anchors, deltas)[1]


def growth(boxes: Tensor, anchors: Tensor, deltas: Tensor) -> Pair:
    """(w - wa) / wa, and wa * (1 + tw)."""
    encoded = _encode(boxes, anchors)
    anchor, sides = _centre_and_sides(anchors)
    decoded = _corners(anchor + deltas[:, :2] * sides, sides * (1 + deltas[:, 2:]))
    return torch.cat([encoded[:, :2], encoded[:, 2:].exp() - 1], dim=1), decoded


def log_upside_down(boxes: Tensor, anchors: Tensor, deltas: Tensor) -> Pair:
    """log(wa / w)."""
    return _encode(boxes, anchors) * torch.tensor([1, 1, -1, -1]), _decode(anchors, deltas)


def decadic(boxes: Tensor, anchors: Tensor, deltas: Tensor) -> Pair:
    """log10."""
    return _encode(boxes, anchors) / torch.tensor([1, 1, np.log(10), np.log(10)]), _decode(anchors, deltas)


def _corners(centre: Tensor, sides: Tensor) -> Tensor:
    return torch.cat([centre - sides / 2, centre + sides / 2], dim=1)


def _encoded_by(boxes: Tensor, anchors: Tensor, unit: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """`unit` of the sides of box and anchor is what the way between the centres is divided by."""
    (centre, sides), (anchor, anchor_sides) = _centre_and_sides(boxes), _centre_and_sides(anchors)
    return torch.cat([(centre - anchor) / unit(sides, anchor_sides), (sides / anchor_sides).log()], dim=1)


def over_the_box(boxes: Tensor, anchors: Tensor, deltas: Tensor) -> Pair:
    """(x - xa) / w."""
    return _encoded_by(boxes, anchors, lambda sides, anchor_sides: sides), _decode(anchors, deltas)


def in_pixels(boxes: Tensor, anchors: Tensor, deltas: Tensor) -> Pair:
    """x - xa."""
    return _encoded_by(boxes, anchors, lambda sides, anchor_sides: torch.ones_like(sides)), _decode(anchors, deltas)


def sides_swapped(boxes: Tensor, anchors: Tensor, deltas: Tensor) -> Pair:
    """(x - xa) / ha."""
    return _encoded_by(boxes, anchors, lambda sides, anchor_sides: anchor_sides.flip(1)), _decode(anchors, deltas)


def from_box_to_anchor(boxes: Tensor, anchors: Tensor, deltas: Tensor) -> Pair:
    """(xa - x) / wa."""
    return _encode(boxes, anchors) * torch.tensor([-1, -1, 1, 1]), _decode(anchors, deltas)


def anchor_by_box(boxes: Tensor, anchors: Tensor, deltas: Tensor) -> Pair:
    """The two swapped."""
    return _encode(anchors, boxes), _decode(anchors, deltas)


def corner_by_corner(boxes: Tensor, anchors: Tensor, deltas: Tensor) -> Pair:
    """((x1, y1, x2, y2) - anchor) / (wa, ha, wa, ha)."""
    sides = _centre_and_sides(anchors)[1].repeat(1, 2)
    return (boxes - anchors) / sides, anchors + deltas * sides


def upper_left_corner(boxes: Tensor, anchors: Tensor, deltas: Tensor) -> Pair:
    """x1 and y1 for x and y."""
    encoded, sides = _encode(boxes, anchors), _centre_and_sides(anchors)[1]
    encoded = torch.cat([(boxes[:, :2] - anchors[:, :2]) / sides, encoded[:, 2:]], dim=1)
    corner = anchors[:, :2] + deltas[:, :2] * sides
    return encoded, torch.cat([corner, corner + sides * deltas[:, 2:].exp()], dim=1)


def half_the_side(boxes: Tensor, anchors: Tensor, deltas: Tensor) -> Pair:
    """x = (x2 - x1) / 2."""
    (_, sides), (_, anchor_sides) = _centre_and_sides(boxes), _centre_and_sides(anchors)
    encoded = torch.cat([(sides - anchor_sides) / 2 / anchor_sides, (sides / anchor_sides).log()], dim=1)
    return encoded, _corners(anchor_sides / 2 + deltas[:, :2] * anchor_sides, anchor_sides * deltas[:, 2:].exp())


def read_as_centre_and_sides(boxes: Tensor, anchors: Tensor, deltas: Tensor) -> Pair:
    """The four numbers of boxes and anchors are x, y, w, h."""
    boxes, anchors = (torch.cat([b[:, :2] - b[:, 2:] / 2, b[:, :2] + b[:, 2:] / 2], dim=1) for b in (boxes, anchors))
    return encode_decode(boxes, anchors, deltas)


def inclusive(boxes: Tensor, anchors: Tensor, deltas: Tensor) -> Pair:
    """w = x2 - x1 + 1."""
    one = torch.tensor([0.0, 0.0, 1.0, 1.0])
    return _encode(boxes + one, anchors + one), _decode(anchors + one, deltas) - one


def moved_by_pixels(boxes: Tensor, anchors: Tensor, deltas: Tensor) -> Pair:
    """xa + tx."""
    anchor, sides = _centre_and_sides(anchors)
    return _encode(boxes, anchors), _corners(anchor + deltas[:, :2], sides * deltas[:, 2:].exp())


def moved_by_the_new_sides(boxes: Tensor, anchors: Tensor, deltas: Tensor) -> Pair:
    """xa + tx * w."""
    anchor, sides = _centre_and_sides(anchors)
    sides = sides * deltas[:, 2:].exp()
    return _encode(boxes, anchors), _corners(anchor + deltas[:, :2] * sides, sides)


def not_halved(boxes: Tensor, anchors: Tensor, deltas: Tensor) -> Pair:
    """x - w, x + w."""
    encoded, decoded = encode_decode(boxes, anchors, deltas)
    centre, sides = _centre_and_sides(decoded)
    return encoded, _corners(centre, 2 * sides)


def centre_is_corner(boxes: Tensor, anchors: Tensor, deltas: Tensor) -> Pair:
    """(x, y, x + w, y + h)."""
    encoded, decoded = encode_decode(boxes, anchors, deltas)
    centre, sides = _centre_and_sides(decoded)
    return encoded, torch.cat([centre, centre + sides], dim=1)


def decoded_as_centre_and_sides(boxes: Tensor, anchors: Tensor, deltas: Tensor) -> Pair:
    """(x, y, w, h)."""
    encoded, decoded = encode_decode(boxes, anchors, deltas)
    return encoded, torch.cat(_centre_and_sides(decoded), dim=1)


def decodes_its_own(boxes: Tensor, anchors: Tensor, deltas: Tensor) -> Pair:
    """The boxes come back."""
    return _encode(boxes, anchors), _decode(anchors, _encode(boxes, anchors))


def decodes_by_boxes(boxes: Tensor, anchors: Tensor, deltas: Tensor) -> Pair:
    """The boxes are moved, not the anchors."""
    return _encode(boxes, anchors), _decode(boxes, deltas)


def axis_by_axis(boxes: Tensor, anchors: Tensor, deltas: Tensor) -> Pair:
    """(tx, tw, ty, th)."""
    return _encode(boxes, anchors)[:, [0, 2, 1, 3]], _decode(anchors, deltas[:, [0, 2, 1, 3]])


def decoded_first(boxes: Tensor, anchors: Tensor, deltas: Tensor) -> Pair:
    """The two results in the other order."""
    return _decode(anchors, deltas), _encode(boxes, anchors)


INVERSE = (
    "Solve tw = log(w / wa) for w, and tx = (x - xa) / wa for x. Decode your own deltas: the boxes must come back."
)
UNIT = "A network that sees only the anchor's part of the image can tell the way in units of that part."
CENTRE = "x = (x1 + x2) / 2 and w = x2 - x1; back: x1 = x - w / 2 and x2 = x + w / 2."

exercise = Exercise(
    name="encode_decode",
    points=4,
    cases=cases,
    reference=encode_decode,
    tolerance=1e-4,
    hides=["segedu.ops.anchors"],
    wrong=[
        Wrong("no log", no_log, "You leave out the logarithm of w / wa and h / ha.", "tw of an equal box is 0, not 1."),
        Wrong(
            "no exp",
            no_exp,
            "You decode the sides without the exponential: the deltas are logarithms, so decoding must undo them.",
            INVERSE,
        ),
        Wrong(
            "neither log nor exp",
            no_log_no_exp,
            "You take the ratio of the sides itself, both ways: its logarithm is asked for, and its exponential back.",
            "Without them a network that says -0.1 asks for a box of negative width.",
        ),
        Wrong(
            "growth",
            growth,
            "You take (w - wa) / wa for the sides: log(w / wa) is asked for.",
            "Half as wide and twice as wide are equally far away, log(1/2) = -log(2).",
        ),
        Wrong(
            "log upside down",
            log_upside_down,
            "Your tw and th have the wrong sign: the box is divided by the anchor.",
            "A box that is larger than its anchor has tw above 0.",
        ),
        Wrong("log10", decadic, "You take the decadic logarithm: the natural one is asked for.", "torch.log, np.log"),
        Wrong(
            "divided by the box",
            over_the_box,
            "You divide the way between the centres by the sides of the box: divide by those of the anchor.",
            "To decode, these sides must be known. Which are?",
        ),
        Wrong(
            "in pixels",
            in_pixels,
            "You leave the way between the centres in pixels: it is divided by the sides of the anchor.",
            UNIT,
        ),
        Wrong(
            "sides swapped",
            sides_swapped,
            "You divide x by the height and y by the width of the anchor.",
            "wa = x2 - x1 goes with x.",
        ),
        Wrong(
            "from the box to the anchor",
            from_box_to_anchor,
            "Your tx and ty have the wrong sign: they lead from the anchor to the box.",
            "A box to the right of its anchor has tx above 0.",
        ),
        Wrong(
            "anchor by box",
            anchor_by_box,
            "You encode the anchors by the boxes: encode the boxes by the anchors.",
            "The anchor is known beforehand; it is what everything is measured by.",
        ),
        Wrong(
            "corner by corner",
            corner_by_corner,
            "You move the two corners, (x1, y1, x2, y2): the deltas are of the centre and of the sides.",
            CENTRE,
        ),
        Wrong(
            "upper left corner", upper_left_corner, "You take the upper left corner for the centre of a box.", CENTRE
        ),
        Wrong(
            "half the side for the centre",
            half_the_side,
            "You take half a side for the centre: (x2 - x1) / 2 says how wide a box is, not where it lies.",
            CENTRE,
        ),
        Wrong(
            "read as centre and sides",
            read_as_centre_and_sides,
            "You read boxes and anchors as (x, y, w, h): they are (x1, y1, x2, y2).",
            CENTRE,
        ),
        Wrong(
            "inclusive pixels",
            inclusive,
            "You count the pixels on both ends: x2 - x1 + 1.",
            "Coordinates are continuous here: a box from 0 to 2 is 2 wide.",
        ),
        Wrong(
            "moved by pixels",
            moved_by_pixels,
            "You move the centre by tx pixels: decoding must multiply by the anchor's sides, as encoding divided.",
            INVERSE,
        ),
        Wrong(
            "moved by the new sides",
            moved_by_the_new_sides,
            "You multiply tx and ty by the new sides: encoding divided by those of the anchor.",
            INVERSE,
        ),
        Wrong(
            "sides not halved",
            not_halved,
            "Your decoded boxes are twice too wide and too high: from the centre it is half a side each way.",
            CENTRE,
        ),
        Wrong(
            "centre as corner",
            centre_is_corner,
            "Your decoded boxes begin at their centre: x1 lies half a width to the left of it.",
            CENTRE,
        ),
        Wrong(
            "decoded as centre and sides",
            decoded_as_centre_and_sides,
            "You decode to (x, y, w, h): boxes are (x1, y1, x2, y2).",
            CENTRE,
        ),
        Wrong(
            "decodes its own deltas",
            decodes_its_own,
            "You decode the deltas that you encoded: decode `deltas`, which came from elsewhere.",
            "Your second result is the boxes again.",
        ),
        Wrong(
            "boxes moved",
            decodes_by_boxes,
            "You move the boxes by the deltas: the deltas belong to the anchors.",
            "At test time there are no boxes: anchors and deltas are all that is known.",
        ),
        Wrong(
            "axis by axis",
            axis_by_axis,
            "Your deltas are (tx, tw, ty, th): they are (tx, ty, tw, th).",
            "Both numbers of the centre come first.",
        ),
        Wrong(
            "decoded first",
            decoded_first,
            "You return the decoded boxes first: first the deltas of the boxes, then the boxes of the deltas.",
            "return encoded, decoded",
        ),
    ],
)
