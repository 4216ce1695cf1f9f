"""encode_decode: from boxes to the deltas relative to their anchors, and back."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import torch
from torch import Tensor

from segedu.ops.boxes import xyxy_to_cxcywh
from segedu.teaching.checks.exercise import Exercise, Wrong
from segedu.teaching.checks.variants import Variants
from segedu.teaching.exercises.lab11_detection.pairs import cases

Pair = tuple[Tensor, Tensor]


def encode_decode(boxes: Tensor, anchors: Tensor, deltas: Tensor) -> Pair:
    """Encode each box relative to its anchor, and decode deltas that a network predicted for the same anchors.

    Let x, y be the centre of a box and w, h its sides, and xa, ya, wa, ha those of its anchor. The deltas are

        tx = (x - xa) / wa    ty = (y - ya) / ha    tw = log(w / wa)    th = log(h / ha)

    where log is the natural logarithm. Decoding is the inverse: it computes the box that has the given deltas.

    Args:
        boxes: (N, 4) floats (x1, y1, x2, y2).
        anchors: (N, 4) floats (x1, y1, x2, y2). Anchor n belongs to row n of the boxes and to row n of the deltas.
        deltas: (N, 4) floats (tx, ty, tw, th) to decode. They are not the deltas of the boxes.

    Returns:
        The deltas (tx, ty, tw, th) of the boxes, (N, 4), and the boxes (x1, y1, x2, y2) of the deltas, (N, 4).

    Example: the box is as large as its anchor and lies 1 pixel, a quarter of the anchor's width, to the right of it.
    Deltas of 0 decode to the anchor.

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


right = Variants(encode_decode)


def _encoding(change: Callable[[Tensor, SimpleNamespace], Tensor]) -> Callable[..., Pair]:
    """`change(deltas of the boxes, arguments)` in place of the right deltas; decoding is right."""
    return right.then(lambda out, a: (change(out[0], a), out[1]))


def _decoding(change: Callable[[Tensor, SimpleNamespace], Tensor]) -> Callable[..., Pair]:
    """`change(boxes of the deltas, arguments)` in place of the right boxes; encoding is right."""
    return right.then(lambda out, a: (out[0], change(out[1], a)))


def _offset(a: SimpleNamespace) -> Tensor:
    """(N, 2): from the centre of each anchor to the centre of its box, in pixels."""
    return _centre_and_sides(a.boxes)[0] - _centre_and_sides(a.anchors)[0]


def _sides(boxes: Tensor) -> Tensor:
    return _centre_and_sides(boxes)[1]


def _corners(centre: Tensor, sides: Tensor) -> Tensor:
    return torch.cat([centre - sides / 2, centre + sides / 2], dim=1)  # unlike segedu.ops.boxes, for any sides


def _read_as_cxcywh(boxes: Tensor) -> Tensor:
    return _corners(boxes[:, :2], boxes[:, 2:])


def _scaled(a: SimpleNamespace, factors: Tensor) -> Tensor:
    """The anchors with their centres moved as they should be, and their sides multiplied by `factors` (N, 2)."""
    anchor, sides = _centre_and_sides(a.anchors)
    return _corners(anchor + a.deltas[:, :2] * sides, sides * factors)


def _moved(a: SimpleNamespace, shift: Tensor) -> Tensor:
    """The anchors with their centres moved by `shift` (N, 2) pixels, and with the right sides."""
    anchor, sides = _centre_and_sides(a.anchors)
    return _corners(anchor + shift, sides * a.deltas[:, 2:].exp())


def _ratios(deltas: Tensor) -> Tensor:
    """Ratios of the sides, w / wa and h / ha, in place of their logarithms."""
    return torch.cat([deltas[:, :2], deltas[:, 2:].exp()], dim=1)


def _corner_by_corner(a: SimpleNamespace) -> Pair:
    sides = _sides(a.anchors).repeat(1, 2)
    return (a.boxes - a.anchors) / sides, a.anchors + a.deltas * sides


def _shifted(boxes: Tensor, share: float) -> Tensor:
    """Boxes shifted by a share of their own sides."""
    return boxes + share * _sides(boxes).repeat(1, 2)


def _at_the_origin(boxes: Tensor) -> Tensor:
    """Boxes whose upper left corner is (0, 0), so that half a side is the centre."""
    return boxes - boxes[:, :2].repeat(1, 2)


ONE = torch.tensor([0.0, 0.0, 1.0, 1.0])
AXES = [0, 2, 1, 3]
INVERSE = (
    "Solve tw = log(w / wa) for w and tx = (x - xa) / wa for x. Decoding your own deltas should return your own boxes."
)
UNIT = "A network that sees only the anchor's part of the image can predict an offset in units of that part."
CENTRE = "x = (x1 + x2) / 2 and w = x2 - x1. Back: x1 = x - w / 2 and x2 = x + w / 2."

exercise = Exercise(
    name="encode_decode",
    points=4,
    cases=cases,
    reference=encode_decode,
    tolerance=1e-4,
    hides=["segedu.ops.anchors"],
    wrong=[
        Wrong(
            "no log",
            _encoding(lambda deltas, a: _ratios(deltas)),
            "You return w / wa and h / ha. The deltas tw and th are their logarithms.",
            "If box and anchor are equally wide, tw is 0, not 1.",
        ),
        Wrong(
            "no exp",
            _decoding(lambda boxes, a: _scaled(a, a.deltas[:, 2:])),
            "You decode the sides without the exponential. The deltas are logarithms, and decoding must undo them.",
            INVERSE,
        ),
        Wrong(
            "neither log nor exp",
            right.then(lambda out, a: (_ratios(out[0]), _scaled(a, a.deltas[:, 2:]))),
            "Your tw and th are ratios of the sides, in both directions. Encode with a logarithm, decode with exp.",
            "Without them, a network that predicts -0.1 produces a box of negative width.",
        ),
        Wrong(
            "growth",
            right.then(lambda out, a: (_ratios(out[0]) - torch.tensor([0, 0, 1, 1]), _scaled(a, 1 + a.deltas[:, 2:]))),
            "You use the relative growth (w - wa) / wa as tw. It should be log(w / wa).",
            "Half as wide and twice as wide are equally far from the anchor: log(1/2) = -log(2).",
        ),
        Wrong(
            "log upside down",
            _encoding(lambda deltas, a: deltas * torch.tensor([1, 1, -1, -1])),
            "Your tw and th have the wrong sign. Divide the side of the box by that of the anchor before you "
            "take the logarithm.",
            "A box that is larger than its anchor has tw above 0.",
        ),
        Wrong(
            "log10",
            _encoding(lambda deltas, a: deltas / torch.tensor([1, 1, np.log(10), np.log(10)])),
            "You use the logarithm to base 10. The deltas are natural logarithms.",
            "torch.log or np.log",
        ),
        Wrong(
            "divided by the box",
            _encoding(lambda deltas, a: torch.cat([_offset(a) / _sides(a.boxes), deltas[:, 2:]], dim=1)),
            "You divide the offset between the centres by the sides of the box. Divide it by those of the anchor.",
            "Decoding needs the same sides. Which of them are known then?",
        ),
        Wrong(
            "in pixels",
            _encoding(lambda deltas, a: torch.cat([_offset(a), deltas[:, 2:]], dim=1)),
            "You leave the offset between the centres in pixels. Divide it by the sides of the anchor.",
            UNIT,
        ),
        Wrong(
            "sides swapped",
            _encoding(lambda deltas, a: torch.cat([_offset(a) / _sides(a.anchors).flip(1), deltas[:, 2:]], dim=1)),
            "You divide the offset in x by the anchor's height and the offset in y by its width. It should be "
            "the other way round.",
            "wa = x2 - x1 belongs to x.",
        ),
        Wrong(
            "from the box to the anchor",
            _encoding(lambda deltas, a: deltas * torch.tensor([-1, -1, 1, 1])),
            "Your tx and ty have the wrong sign. They should point from the anchor to the box.",
            "A box to the right of its anchor has tx above 0.",
        ),
        Wrong(
            "anchor by box",
            _encoding(lambda deltas, a: _encode(a.anchors, a.boxes)),
            "You encode the anchors relative to the boxes. Encode the boxes relative to the anchors.",
            "The anchors are known in advance, so everything is measured relative to them.",
        ),
        Wrong(
            "corner by corner",
            right.instead(_corner_by_corner),
            "You encode and decode the two corners. The deltas describe the centre and the sides.",
            CENTRE,
        ),
        Wrong(
            "upper left corner",
            Variants(
                right.given(boxes=lambda a: _shifted(a.boxes, -0.5), anchors=lambda a: _shifted(a.anchors, -0.5))
            ).then(lambda out, a: (out[0], _shifted(out[1], 0.5))),
            "You use the upper left corner of a box as its centre. The centre is the mean of two opposite corners.",
            CENTRE,
        ),
        Wrong(
            "half the side for the centre",
            right.given(boxes=lambda a: _at_the_origin(a.boxes), anchors=lambda a: _at_the_origin(a.anchors)),
            "You use half a side, (x2 - x1) / 2, as the centre. It depends on the width of a box, not on its position.",
            CENTRE,
        ),
        Wrong(
            "read as centre and sides",
            right.given(boxes=lambda a: _read_as_cxcywh(a.boxes), anchors=lambda a: _read_as_cxcywh(a.anchors)),
            "You read boxes and anchors as (x, y, w, h). They are (x1, y1, x2, y2).",
            CENTRE,
        ),
        Wrong(
            "inclusive pixels",
            Variants(right.given(boxes=lambda a: a.boxes + ONE, anchors=lambda a: a.anchors + ONE)).then(
                lambda out, a: (out[0], out[1] - ONE)
            ),
            "You compute a side as x2 - x1 + 1, which counts the pixels at both ends. The width is x2 - x1.",
            "Coordinates are continuous: a box from 0 to 2 is 2 wide.",
        ),
        Wrong(
            "moved by pixels",
            _decoding(lambda boxes, a: _moved(a, a.deltas[:, :2])),
            "You move the centre by tx pixels. Encoding divides the offset by the anchor's sides, so decoding "
            "multiplies by them.",
            INVERSE,
        ),
        Wrong(
            "moved by the new sides",
            _decoding(lambda boxes, a: _moved(a, a.deltas[:, :2] * (_sides(a.anchors) * a.deltas[:, 2:].exp()))),
            "You multiply tx and ty by the sides of the decoded box. Multiply them by the sides of the anchor.",
            INVERSE,
        ),
        Wrong(
            "sides not halved",
            _decoding(lambda boxes, a: _corners(_centre_and_sides(boxes)[0], 2 * _sides(boxes))),
            "Your decoded boxes are twice as wide and twice as high as they should be. Each edge is half a side "
            "from the centre.",
            CENTRE,
        ),
        Wrong(
            "centre as corner",
            _decoding(lambda boxes, a: _shifted(boxes, 0.5)),
            "You use the decoded centre as the upper left corner of the box. x1 is half a width to the left of "
            "the centre.",
            CENTRE,
        ),
        Wrong(
            "decoded as centre and sides",
            _decoding(lambda boxes, a: xyxy_to_cxcywh(boxes)),
            "You return the decoded boxes as (x, y, w, h). Boxes are (x1, y1, x2, y2).",
            CENTRE,
        ),
        Wrong(
            "decodes its own deltas",
            right.given(deltas=lambda a: _encode(a.boxes, a.anchors)),
            "You decode the deltas that you have just encoded. Decode the argument `deltas`.",
            "Your second result equals `boxes`.",
        ),
        Wrong(
            "boxes moved",
            _decoding(lambda boxes, a: _decode(a.boxes, a.deltas)),
            "You apply the deltas to the boxes. Apply them to the anchors.",
            "At test time there are no boxes: only anchors and deltas are known.",
        ),
        Wrong(
            "axis by axis",
            Variants(right.given(deltas=lambda a: a.deltas[:, AXES])).then(lambda out, a: (out[0][:, AXES], out[1])),
            "Your deltas are in the order (tx, tw, ty, th). They should be in the order (tx, ty, tw, th).",
            "The two deltas of the centre come first.",
        ),
        Wrong(
            "decoded first",
            right.then(lambda out, a: out[::-1]),
            "You return the decoded boxes first. Return the encoded deltas first, then the decoded boxes.",
            "return encoded, decoded",
        ),
    ],
)
