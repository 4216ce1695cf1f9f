"""query_masks: class probabilities and a mask for each query."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.teaching.checks.exercise import Case, Exercise, Wrong
from segedu.teaching.checks.variants import Variants, case
from segedu.teaching.exercises.lab15_universal.class_columns import SOFTMAX, class_wrong_answers

Size, Pair = tuple[int, int], tuple[Tensor, Tensor]


def query_masks(class_logits: Tensor, mask_embed: Tensor, mask_features: Tensor, image_size: Size) -> Pair:
    """Compute the class probabilities and the mask of each query, as MaskFormer does.

    Classes: a softmax over the K + 1 columns. The last column is "no object" and is removed after the softmax.

    Mask: each query has an embedding, and each location of the feature map has one. Their dot product is the mask logit
    at this location. The logits are resized to the image, bilinearly with align_corners=False, as by F.interpolate.
    The mask is the sigmoid of the resized logits.

    Args:
        class_logits: (Q, K + 1) floats.
        mask_embed: (Q, D) floats, the embedding of each query.
        mask_features: (D, h, w) floats, the embedding of each location.
        image_size: (H, W) of the image in pixels, not always a multiple of (h, w).

    Returns:
        (Q, K) class probabilities, and (Q, H, W) mask probabilities from 0 to 1, without a threshold.

    Example: one query, one class, and two locations that are resized to four pixels.

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
    """Images four times as large as the features, of odd sizes and of the same size; one location, query or channel."""

    def drawn(name: str, queries: int, classes: int, shape: tuple[int, int, int], image_size: Size) -> Case:
        # sixteenths in single precision, the precision of networks: their products and sums are exact in any order
        sizes = (queries, classes + 1), (queries, shape[0]), shape
        arrays = [rng.integers(5, 25, size) / 16 * rng.choice([-1, 1], size) for size in sizes]
        return case(name, *[torch.from_numpy(a).float() for a in arrays], image_size)

    core = [
        drawn("four times as large", 3, 2, (5, 3, 4), (12, 16)),
        drawn("as many queries as channels", 4, 3, (4, 2, 3), (8, 12)),
    ]
    edge = [
        drawn("an image of odd sizes", 2, 3, (3, 3, 4), (10, 15)),
        drawn("an image as large as the feature map", 3, 2, (2, 3, 5), (3, 5)),
        drawn("one location", 2, 1, (3, 1, 1), (2, 3)),
        drawn("one query, one channel", 1, 2, (1, 4, 3), (9, 5)),
    ]
    return {"core": (2, core), "edge": (1, edge)}


right = Variants(query_masks)


def _steps(
    classes: Callable[[Tensor], Tensor] = _classes,
    product: Callable[[Tensor, Tensor], Tensor] = _product,
    mask: Callable[[Tensor, Size], Tensor] = lambda x, size: _resized(x, size).sigmoid(),
) -> Callable[..., Pair]:
    """Other steps: class probabilities, mask logits (Q, h, w), and `mask(mask logits, image size)`."""
    return right.instead(
        lambda a: (classes(a.class_logits), mask(product(a.mask_embed, a.mask_features), a.image_size))
    )


def _reshaped(mask_embed: Tensor, mask_features: Tensor) -> Tensor:
    """(D, h, w) reshaped to (h w, D), which mixes locations and channels."""
    return (mask_embed @ mask_features.reshape(-1, len(mask_features)).T).reshape(-1, *mask_features.shape[1:])


all_columns = _steps(classes=lambda x: x.softmax(dim=1))
best = _steps(classes=lambda x: _classes(x).argmax(dim=1))
transposed = right.given(mask_embed=lambda a: a.mask_embed.T)
scaled = _steps(product=lambda e, f: _product(e, f) / len(f) ** 0.5)
mean = _steps(product=lambda e, f: _product(e, f) / len(f))
width_first = _steps(product=lambda e, f: _product(e, f).mT)
small = _steps(mask=lambda x, size: x.sigmoid())
sigmoid_first = _steps(mask=lambda x, size: _resized(x.sigmoid(), size))
binary = _steps(mask=lambda x, size: _resized(x, size) > 0)
nearest = _steps(mask=lambda x, size: _resized(x, size, mode="nearest", align_corners=None).sigmoid())
corners = _steps(mask=lambda x, size: _resized(x, size, align_corners=True).sigmoid())
bicubic = _steps(mask=lambda x, size: _resized(x, size, mode="bicubic").sigmoid())
height_for_width = right.given(image_size=lambda a: a.image_size[::-1])
queries_last = right.then(lambda out, a: (out[0], out[1].movedim(0, -1)))

PRODUCT = 'torch.einsum("qd,dhw->qhw", mask_embed, mask_features) sums over D.'
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
            "class incl. no-object",
            all_columns,
            'You return the column of "no object" too. Remove it after the softmax.',
            SOFTMAX,
        ),
        *class_wrong_answers(_steps),
        Wrong(
            "best class only",
            best,
            "You return only the best class of each query. Return the probabilities of all K classes.",
            SOFTMAX,
        ),
        Wrong(
            "transposed",
            transposed,
            "You multiply by the transpose of mask_embed. Each row of mask_embed is the embedding of one query.",
            PRODUCT,
        ),
        Wrong(
            "features reshaped",
            _steps(product=_reshaped),
            "You reshape (D, h, w) to (h * w, D), which mixes locations and channels. Permute the axes instead.",
            PRODUCT,
        ),
        Wrong(
            "divided by root",
            scaled,
            "You divide the dot products by the square root of D, as attention does. Use them without this division.",
            PRODUCT,
        ),
        Wrong("mean of channels", mean, "You compute the mean over the channels. A dot product is their sum.", PRODUCT),
        Wrong(
            "cosine",
            right.given(
                mask_embed=lambda a: F.normalize(a.mask_embed, dim=1),
                mask_features=lambda a: F.normalize(a.mask_features, dim=0),
            ),
            "You normalise the embeddings to length 1. Compute the dot products of the embeddings as they are.",
            PRODUCT,
        ),
        Wrong(
            "sigmoid of the vectors",
            right.given(mask_embed=lambda a: a.mask_embed.sigmoid()),
            "You apply the sigmoid to the embeddings of the queries. Apply it only to the resized mask logits.",
            RESIZED,
        ),
        Wrong(
            "width first",
            width_first,
            "You swap the rows and the columns of the masks. Their shape should be (Q, H, W).",
            PRODUCT,
        ),
        Wrong(
            "no upsample",
            small,
            "Your masks are as large as the feature map. Resize the mask logits to image_size.",
            RESIZED,
        ),
        Wrong(
            "softmax over pixels",
            _steps(mask=lambda x, size: _resized(x, size).flatten(1).softmax(dim=1).reshape(-1, *size)),
            "You apply a softmax over the pixels of each mask. Apply a sigmoid to each pixel.",
            "A mask can contain many pixels, or none.",
        ),
        Wrong(
            "softmax over the queries' masks",
            _steps(mask=lambda x, size: _resized(x, size).softmax(dim=0)),
            "You apply a softmax over the queries, so they compete for each pixel. Apply a sigmoid to each mask.",
            "Masks may overlap, and a pixel may belong to no mask.",
        ),
        Wrong("no sigmoid", _steps(mask=_resized), "You return the mask logits. Return their sigmoids.", RESIZED),
        Wrong(
            "sigmoid first",
            sigmoid_first,
            "You apply the sigmoid before you resize the masks. Resize the logits, then apply the sigmoid.",
            RESIZED,
        ),
        Wrong("threshold", binary, "You return binary masks. Return the probabilities, without a threshold.", RESIZED),
        Wrong("nearest", nearest, "You resize with the nearest neighbour. Resize bilinearly.", RESIZED),
        Wrong("corners", corners, "You resize with align_corners=True. Use align_corners=False.", RESIZED),
        Wrong("bicubic", bicubic, "You resize with bicubic interpolation. Resize bilinearly.", RESIZED),
        Wrong("height for width", height_for_width, "You resize the masks to (W, H). image_size is (H, W).", RESIZED),
        Wrong(
            "always four times",
            _steps(mask=lambda x, size: _resized(x, None, scale_factor=4.0).sigmoid()),
            "You always upsample by a factor of 4. Resize to image_size.",
            "The sides of an image are not always multiples of 4, and features do not always have stride 4.",
        ),
        Wrong(
            "queries last", queries_last, "Your masks have shape (H, W, Q). They should have shape (Q, H, W).", PRODUCT
        ),
    ],
)
