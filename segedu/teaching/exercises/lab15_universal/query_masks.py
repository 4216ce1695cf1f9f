"""query_masks: from the vectors of queries and pixels to classes and masks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong

Size, Pair = tuple[int, int], tuple[Tensor, Tensor]


def query_masks(class_logits: Tensor, mask_embed: Tensor, mask_features: Tensor, image_size: Size) -> Pair:
    """Give each query its classes and its mask, as MaskFormer does.

    Classes: a softmax over the K + 1 columns; the last one is "no object" and is left out afterwards.

    Mask: every query has a vector, and every place of the features has one. Their dot product is the logit of that
    place. The logits are resized to the image, bilinearly with align_corners=False as F.interpolate does, and the mask
    is their sigmoid.

    Args:
        class_logits: (Q, K + 1) floats.
        mask_embed: (Q, D) floats, a vector for each query.
        mask_features: (D, h, w) floats, a vector for each place.
        image_size: (H, W) of the image in pixels; perhaps no multiple of (h, w).

    Returns:
        (Q, K) probabilities of the classes; and (Q, H, W) floats from 0 to 1, before any threshold.

    Example: one query, one class; two places that become four pixels.

        >>> embed, features = torch.tensor([[1.0, 2.0]]), torch.tensor([[[0.0, 4.0]], [[0.0, -4.0]]])
        >>> query_masks(torch.zeros(1, 2), embed, features, (1, 4))
        (tensor([[0.5000]]), tensor([[[0.5000, 0.2689, 0.0474, 0.0180]]]))
    """
    return _classes(class_logits), _resized(_product(mask_embed, mask_features), image_size).sigmoid()


def _classes(class_logits: Tensor) -> Tensor:
    return class_logits.softmax(dim=1)[:, :-1]


def _product(mask_embed: Tensor, mask_features: Tensor) -> Tensor:
    """(Q, h, w)."""
    return torch.einsum("qd,dhw->qhw", mask_embed, mask_features)


def _resized(maps: Tensor, size: Size, **options: object) -> Tensor:
    options = {"mode": "bilinear", "align_corners": False} | options
    return F.interpolate(maps[None], size, **options)[0]


def cases(rng: np.random.Generator) -> dict[str, tuple[int, list[Case]]]:
    """Four times as large, as many queries as channels; odd sizes, the size of the features, one place, one query.

    Args:
        rng: of logits, vectors and features.

    Returns:
        The cases by group.
    """

    def case(name: str, queries: int, classes: int, shape: tuple[int, int, int], image_size: Size) -> Case:
        def draw(*sides: int) -> np.ndarray:
            return rng.integers(5, 25, sides) / 16 * rng.choice([-1, 1], sides)

        # sixteenths in single precision, as networks have it: their products and sums are exact in any order
        arrays = draw(queries, classes + 1), draw(queries, shape[0]), draw(*shape)
        return {"name": name, "args": [*[torch.from_numpy(a).float() for a in arrays], image_size]}

    return {
        "core": (
            2,
            [
                case("four times as large", 3, 2, (5, 3, 4), (12, 16)),
                case("as many queries as channels", 4, 3, (4, 2, 3), (8, 12)),
            ],
        ),
        "edge": (
            1,
            [
                case("an image of odd sizes", 2, 3, (3, 3, 4), (10, 15)),
                case("an image of the features' size", 3, 2, (2, 3, 5), (3, 5)),
                case("one place", 2, 1, (3, 1, 1), (2, 3)),
                case("one query, one channel", 1, 2, (1, 4, 3), (9, 5)),
            ],
        ),
    }


def _read(
    classes: Callable[[Tensor], Tensor] = _classes,
    product: Callable[[Tensor, Tensor], Tensor] = _product,
    mask: Callable[[Tensor, Size], Tensor] = lambda x, size: _resized(x, size).sigmoid(),
) -> Callable[..., Pair]:
    """The right answer, each step replaced by another: classes, logits of the places, masks of them."""

    def answer(class_logits: Tensor, mask_embed: Tensor, mask_features: Tensor, image_size: Size) -> Pair:
        return classes(class_logits), mask(product(mask_embed, mask_features), image_size)

    return answer


def _reshaped(mask_embed: Tensor, mask_features: Tensor) -> Tensor:
    """(D, h, w) read as (h w, D), which mixes places and channels."""
    return (mask_embed @ mask_features.reshape(-1, len(mask_features)).T).reshape(-1, *mask_features.shape[1:])


def _four_times(logits: Tensor, size: Size) -> Tensor:
    return _resized(logits, None, scale_factor=4.0).sigmoid()


no_object_kept = _read(classes=lambda x: x.softmax(dim=1))
first_left_out = _read(classes=lambda x: x.softmax(dim=1)[:, 1:])
left_out_before = _read(classes=lambda x: x[:, :-1].softmax(dim=1))
classes_by_sigmoid = _read(classes=lambda x: x.sigmoid()[:, :-1])
over_queries = _read(classes=lambda x: x.softmax(dim=0)[:, :-1])
logits_of_classes = _read(classes=lambda x: x[:, :-1])
best_class = _read(classes=lambda x: _classes(x).argmax(dim=1))
transposed = _read(product=lambda e, f: torch.einsum("dq,dhw->qhw", e, f))
reshaped = _read(product=_reshaped)
by_root = _read(product=lambda e, f: _product(e, f) / len(f) ** 0.5)
mean_of_channels = _read(product=lambda e, f: _product(e, f) / len(f))
cosine = _read(product=lambda e, f: _product(F.normalize(e, dim=1), F.normalize(f, dim=0)))
embed_by_sigmoid = _read(product=lambda e, f: _product(e.sigmoid(), f))
width_first = _read(product=lambda e, f: _product(e, f).transpose(1, 2))
not_resized = _read(mask=lambda x, size: x.sigmoid())
over_pixels = _read(mask=lambda x, size: _resized(x, size).flatten(1).softmax(dim=1).reshape(-1, *size))
masks_compete = _read(mask=lambda x, size: _resized(x, size).softmax(dim=0))
no_sigmoid = _read(mask=_resized)
sigmoid_first = _read(mask=lambda x, size: _resized(x.sigmoid(), size))
threshold = _read(mask=lambda x, size: _resized(x, size) > 0)
nearest = _read(mask=lambda x, size: _resized(x, size, mode="nearest", align_corners=None).sigmoid())
corners = _read(mask=lambda x, size: _resized(x, size, align_corners=True).sigmoid())
bicubic = _read(mask=lambda x, size: _resized(x, size, mode="bicubic").sigmoid())
height_for_width = _read(mask=lambda x, size: _resized(x, size[::-1]).sigmoid())
always_four = _read(mask=_four_times)
queries_last = _read(mask=lambda x, size: _resized(x, size).sigmoid().movedim(0, -1))

NO_OBJECT = "First the softmax over all K + 1 columns, then the columns without the last one."
PRODUCT = 'torch.einsum("qd,dhw->qhw", mask_embed, mask_features): the sum goes over D.'
RESIZED = 'F.interpolate(logits[None], image_size, mode="bilinear", align_corners=False)[0], then the sigmoid.'

exercise = Exercise(
    name="query_masks",
    points=3,
    cases=cases,
    reference=query_masks,
    tolerance=1e-6,
    kind="matrix",
    hides=["segedu.panoptic.inference", "segedu.panoptic.maskformer", "segedu.panoptic.mask2former.mask2former"],
    wrong=[
        Wrong(
            "class incl. no-object", no_object_kept, 'You keep the column of "no object": it is left out.', NO_OBJECT
        ),
        Wrong("first left out", first_left_out, 'You leave out the first column: "no object" is the last.', NO_OBJECT),
        Wrong(
            "left out before",
            left_out_before,
            'You leave out the column of "no object" before the softmax: then every query finds an object.',
            NO_OBJECT,
        ),
        Wrong(
            "sigmoid of classes", classes_by_sigmoid, "You take a sigmoid of the classes: take a softmax.", NO_OBJECT
        ),
        Wrong(
            "softmax over queries",
            over_queries,
            "Your softmax goes over the queries: it goes over the columns of each query.",
            NO_OBJECT,
        ),
        Wrong(
            "logits of classes", logits_of_classes, "You return the logits of the classes: take a softmax.", NO_OBJECT
        ),
        Wrong(
            "best class only",
            best_class,
            "You return the best class of each query: the probabilities of all K are asked for.",
            NO_OBJECT,
        ),
        Wrong(
            "transposed",
            transposed,
            "You multiply by mask_embed transposed: its rows are queries, and the sum goes over its columns.",
            PRODUCT,
        ),
        Wrong(
            "features reshaped",
            reshaped,
            "You reshape (D, h, w) to (h * w, D), which mixes places and channels: move the axis instead.",
            PRODUCT,
        ),
        Wrong(
            "divided by root",
            by_root,
            "You divide by the root of D: that is attention. Here it is the product.",
            PRODUCT,
        ),
        Wrong("mean of channels", mean_of_channels, "You take the mean over the channels: take the sum.", PRODUCT),
        Wrong("cosine", cosine, "You bring the vectors to length 1: the dot product is taken as it is.", PRODUCT),
        Wrong(
            "sigmoid of the vectors",
            embed_by_sigmoid,
            "You take the sigmoid of the queries' vectors: take it of the logits of the masks.",
            RESIZED,
        ),
        Wrong("width first", width_first, "You swap the rows and the columns of the masks.", PRODUCT),
        Wrong(
            "no upsample",
            not_resized,
            "Your masks have the size of the features: resize them to the image.",
            RESIZED,
        ),
        Wrong(
            "softmax over pixels",
            over_pixels,
            "Your softmax goes over the pixels: each pixel has a sigmoid of its own.",
            "A mask may hold many pixels, or none.",
        ),
        Wrong(
            "softmax over the queries' masks",
            masks_compete,
            "Your queries compete for each pixel: each mask has a sigmoid of its own.",
            "Masks may overlap, and a pixel may be in none.",
        ),
        Wrong("no sigmoid", no_sigmoid, "You return the logits of the masks: take their sigmoid.", RESIZED),
        Wrong(
            "sigmoid first",
            sigmoid_first,
            "You take the sigmoid before you resize: resize the logits, which cross 0 where the mask ends.",
            RESIZED,
        ),
        Wrong("threshold", threshold, "You return True and False: the values from 0 to 1 are asked for.", RESIZED),
        Wrong("nearest", nearest, "You take the nearest place of the features: resize bilinearly.", RESIZED),
        Wrong("corners", corners, "You resize with align_corners=True: it is False.", RESIZED),
        Wrong("bicubic", bicubic, "You resize with bicubic weights: resize bilinearly.", RESIZED),
        Wrong("height for width", height_for_width, "Your masks are (W, H): image_size is (H, W).", RESIZED),
        Wrong(
            "always four times",
            always_four,
            "You always enlarge by 4: resize to image_size, whatever it is.",
            "Images are not always multiples of 4, and features are not always at stride 4.",
        ),
        Wrong("queries last", queries_last, "Your masks are (H, W, Q): they are (Q, H, W).", PRODUCT),
    ],
)
