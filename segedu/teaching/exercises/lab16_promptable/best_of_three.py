"""best_of_three: SAM's loss, in which only the best of several masks counts, and every predicted IoU is trained."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import torch
import torch.nn.functional as F
from torch import Tensor

from segedu.teaching.checks.exercise import Exercise, Wrong
from segedu.teaching.checks.probes import call_grad
from segedu.teaching.checks.variants import Variants
from segedu.teaching.exercises.lab16_promptable.mask_predictions import cases


def best_of_three(mask_logits: Tensor, iou_pred: Tensor, targets: Tensor) -> Tensor:
    """Compute SAM's loss. A click is ambiguous, so SAM predicts M masks, and only the best of them has to be right.

    Mask m of image b has the loss 20 focal + dice. Here p is the sigmoid of its logits, y is 1 inside the target and 0
    outside, and s is the sum over the pixels:

    - focal: the mean over the pixels of -1/4 (1 - p)^2 log p inside the target, -3/4 p^2 log(1 - p) outside;
    - dice: 1 - (2 s(p y) + 1) / (s(p) + s(y) + 1).

    For each image only the mask with the smallest loss counts. Compute the mean of these losses over the images.

    The network also predicts the IoU of each of its masks. Add the mean, over all masks of all images, of
    (predicted IoU - IoU)^2. The IoU compares the pixels whose logit is above 0 with the target. It is 1 if both are
    empty. No gradient flows through it.

    Args:
        mask_logits: (B, M, H, W) floats; SAM has M = 3. They may be so far from 0 that a sigmoid is exactly 0 or 1.
        iou_pred: (B, M) floats, the predicted IoUs.
        targets: (B, H, W) bool.

    Returns:
        A scalar tensor, with gradients with respect to mask_logits and iou_pred.

    Example: one mask of one pixel with p = 1/2. Focal is 1/16 log 2, dice is 1 - 2 / 2.5, and the predicted IoU, 0, is
    right.

        >>> best_of_three(torch.zeros(1, 1, 1, 1), torch.zeros(1, 1), torch.ones(1, 1, 1).bool())
        tensor(1.0664)
    """
    y = targets[:, None].to(mask_logits).expand_as(mask_logits)
    losses = 20 * _focal(mask_logits, y) + _dice(mask_logits, y)
    return losses.amin(dim=1).mean() + ((iou_pred - _iou(mask_logits, y)) ** 2).mean()


def _focal(x: Tensor, y: Tensor) -> Tensor:
    """(B, M)."""
    entropy = F.binary_cross_entropy_with_logits(x, y, reduction="none")
    wrong = (x.sigmoid() - y).abs()
    return ((0.75 - 0.5 * y) * wrong**2 * entropy).mean(dim=(2, 3))


def _dice(x: Tensor, y: Tensor, smooth: float = 1.0) -> Tensor:
    """(B, M)."""
    p = x.sigmoid()
    return 1 - (2 * (p * y).sum(dim=(2, 3)) + smooth) / (p.sum(dim=(2, 3)) + y.sum(dim=(2, 3)) + smooth)


def _iou(x: Tensor, y: Tensor) -> Tensor:
    """(B, M), without a gradient."""
    pred, target = x > 0, y > 0
    both, either = (pred & target).sum(dim=(2, 3)), (pred | target).sum(dim=(2, 3))
    return torch.where(either == 0, 1.0, both / either.clamp(min=1))


right = Variants(best_of_three)
Pixelwise = Callable[[Tensor, Tensor], Tensor]  # of logits and targets (B, M, H, W)


def _losses(x: Tensor, y: Tensor) -> Tensor:
    return 20 * _focal(x, y) + _dice(x, y)


def _squared(pred: Tensor, iou: Tensor, _: Tensor) -> Tensor:
    return ((pred - iou) ** 2).mean()


def _with(
    losses: Pixelwise = _losses,
    best: Callable[[Tensor], Tensor] = lambda losses: losses.amin(dim=1).mean(),
    iou: Pixelwise = _iou,
    error: Callable[[Tensor, Tensor, Tensor], Tensor] = _squared,
) -> Callable[..., Tensor]:
    """Another step of the loss; `error` of predicted IoUs, IoUs and losses (B, M)."""

    def loss(a: SimpleNamespace) -> Tensor:
        y = a.targets[:, None].to(a.mask_logits).expand_as(a.mask_logits)
        each = losses(a.mask_logits, y)
        return best(each) + error(a.iou_pred, iou(a.mask_logits, y), each)

    return right.instead(loss)


def _best(best: Callable[[Tensor], Tensor]) -> Callable[..., Tensor]:
    return _with(best=best)


def _choosing(index: Callable[[Tensor, Tensor, Tensor], Tensor]) -> Callable[..., Tensor]:
    """The mask of each image by `index(losses, predicted IoUs, IoUs)`."""

    def error(pred: Tensor, iou: Tensor, losses: Tensor) -> Tensor:
        chosen = losses.gather(1, index(losses, pred, iou)[:, None]).mean()
        return chosen + _squared(pred, iou, losses)

    return _with(best=lambda losses: 0, error=error)


def _weighted(focal: float, dice: float) -> Callable[..., Tensor]:
    return _with(lambda x, y: focal * _focal(x, y) + dice * _dice(x, y))


def _with_dice(dice: Pixelwise) -> Callable[..., Tensor]:
    return _with(lambda x, y: 20 * _focal(x, y) + dice(x, y))


def _entropy(x: Tensor, y: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(x, y, reduction="none")


def _with_focal(
    alpha: Callable[[Tensor], Tensor] = lambda y: 0.75 - 0.5 * y,
    factor: Callable[[Tensor], Tensor] = lambda wrong: wrong**2,
    entropy: Pixelwise = _entropy,
    **changes: Callable,
) -> Callable[..., Tensor]:
    def losses(x: Tensor, y: Tensor) -> Tensor:
        focal = (alpha(y) * factor((x.sigmoid() - y).abs()) * entropy(x, y)).mean(dim=(2, 3))
        return 20 * focal + _dice(x, y)

    return _with(losses, **changes)


def _logarithms(x: Tensor, y: Tensor) -> Tensor:
    return -(y * x.sigmoid().log() + (1 - y) * (1 - x.sigmoid()).log())


def _dice_of_squares(x: Tensor, y: Tensor) -> Tensor:
    p = x.sigmoid()
    return 1 - (2 * (p * y).sum(dim=(2, 3)) + 1) / (p.square().sum(dim=(2, 3)) + y.sum(dim=(2, 3)) + 1)


def _dice_of_masks(x: Tensor, y: Tensor) -> Tensor:
    mask = (x > 0).to(x)
    return 1 - (2 * (mask * y).sum(dim=(2, 3)) + 1) / (mask.sum(dim=(2, 3)) + y.sum(dim=(2, 3)) + 1)


def _batch_dice(x: Tensor, y: Tensor) -> Tensor:
    p = x.sigmoid()
    return 1 - (2 * (p * y).sum(dim=(0, 2, 3)) + 1) / (p.sum(dim=(0, 2, 3)) + y.sum(dim=(0, 2, 3)) + 1)


def _soft_iou(x: Tensor, y: Tensor) -> Tensor:
    p = x.sigmoid()
    both = (p * y).sum(dim=(2, 3))
    return both / (p.sum(dim=(2, 3)) + y.sum(dim=(2, 3)) - both)


def _empty_iou(value: float) -> Callable[..., Tensor]:
    """Another IoU of two empty masks."""
    return _with(iou=lambda x, y: torch.where(((x > 0) | (y > 0)).any(dim=(2, 3)), _iou(x, y), value))


def _separate_minima(a: SimpleNamespace) -> Tensor:
    y = a.targets[:, None].to(a.mask_logits).expand_as(a.mask_logits)
    least = 20 * _focal(a.mask_logits, y).amin(dim=1).mean() + _dice(a.mask_logits, y).amin(dim=1).mean()
    return least + _squared(a.iou_pred, _iou(a.mask_logits, y), y)


def _error_of_the_best(pred: Tensor, iou: Tensor, losses: Tensor) -> Tensor:
    return ((pred - iou) ** 2).gather(1, losses.argmin(dim=1)[:, None]).mean()


BEST = "(B, M) losses: amin(dim=1), then the mean over B."
WHY = "A click on a shirt may mean the shirt or the person. One mask trained for both becomes a blurred mixture."
PRED = "((iou_pred - iou) ** 2).mean() over all masks. The IoU of a mask that is not the best is predicted too."
IOU = "(mask_logits > 0) and the target: both / either."
EMPTY = "torch.where(either == 0, 1.0, both / either.clamp(min=1))"
FOCAL = "alpha_t (1 - p_t)^2 times the cross-entropy, alpha_t = 1/4 inside and 3/4 outside, the mean over H and W."
LOGITS = 'binary_cross_entropy_with_logits(mask_logits, y, reduction="none"), or logsigmoid.'
DICE = "1 - (2 s(p y) + 1) / (s(p) + s(y) + 1), with sums over H and W."
SUM = "20 focal + dice."

WRONG = [
    Wrong("mean", _best(torch.mean), "You average over the masks. Only the best one counts.", WHY),
    Wrong("sum of masks", _best(lambda x: x.sum(dim=1).mean()), "You sum over the masks. Only the best counts.", WHY),
    Wrong("worst", _best(lambda x: x.amax(dim=1).mean()), "You use the largest loss. The smallest counts.", BEST),
    Wrong("first mask", _best(lambda x: x[:, 0].mean()), "You always use the first mask. Use the best one.", BEST),
    Wrong(
        "argmax IoU at training",
        _choosing(lambda losses, pred, iou: pred.argmax(dim=1)),
        "You choose the mask by its predicted IoU, as at test time. In training, choose the mask with the "
        "smallest loss.",
        "At first the predicted IoUs are meaningless.",
    ),
    Wrong(
        "argmax of the true IoU",
        _choosing(lambda losses, pred, iou: iou.argmax(dim=1)),
        "You choose the mask by its IoU with the target. Choose the mask with the smallest loss.",
        BEST,
    ),
    Wrong("per batch", _best(lambda x: x.mean(dim=0).amin()), "You choose one mask per batch. Choose per image.", BEST),
    Wrong("least of all", _best(torch.amin), "You use only the best mask of all images. Each image has one.", BEST),
    Wrong(
        "least of each mask",
        _best(lambda x: x.amin(dim=0).mean()),
        "You find the best image for each mask. Find the best mask for each image.",
        BEST,
    ),
    Wrong("sum over images", _best(lambda x: x.amin(dim=1).sum()), "You sum over the images. Use their mean.", BEST),
    Wrong(
        "weighted",
        _best(lambda x: (x * (-x).softmax(dim=1)).sum(dim=1).mean()),
        "You weight the masks by a softmax of their losses. Only the mask with the smallest loss counts.",
        WHY,
    ),
    Wrong(
        "error of the guess too",
        _choosing(lambda losses, pred, iou: (losses + (pred - iou) ** 2).argmin(dim=1)),
        "You choose by the loss plus the error of the predicted IoU. Choose by the mask's loss alone.",
        BEST,
    ),
    Wrong(
        "best of each term",
        right.instead(_separate_minima),
        "You minimise the focal and the Dice loss separately, perhaps in two masks. Add the two terms first, "
        "then choose the mask.",
        BEST,
    ),
    Wrong(
        "masks without gradient",
        _best(lambda x: x.amin(dim=1).mean().detach()),
        "Your loss has no gradient with respect to the mask logits. The mask that you choose needs one.",
        "argmin has no gradient, but the loss of the chosen mask has one.",
    ),
    Wrong("IoU head untrained", _with(error=lambda pred, iou, losses: 0), "You do not train the predicted IoUs.", PRED),
    Wrong(
        "guess without gradient",
        _with(error=lambda *args: _squared(*args).detach()),
        "Your loss has no gradient with respect to the predicted IoUs. Detach only the computed IoU.",
        PRED,
    ),
    Wrong("guess of the best only", _with(error=_error_of_the_best), "You train only the IoU of the best mask.", PRED),
    Wrong(
        "guesses summed",
        _with(error=lambda pred, iou, losses: ((pred - iou) ** 2).sum(dim=1).mean()),
        "You sum the errors of the predicted IoUs over the masks of an image. Compute their mean.",
        PRED,
    ),
    Wrong(
        "all guesses summed",
        _with(error=lambda pred, iou, losses: ((pred - iou) ** 2).sum()),
        "You sum the errors of the predicted IoUs over all masks and images. Compute their mean.",
        PRED,
    ),
    Wrong(
        "sigmoid of guesses",
        _with(error=lambda pred, *rest: _squared(pred.sigmoid(), *rest)),
        "You apply a sigmoid to the predicted IoUs. Use the predicted values as they are.",
        PRED,
    ),
    Wrong(
        "absolute error",
        _with(error=lambda pred, iou, losses: (pred - iou).abs().mean()),
        "You use the absolute error of the predicted IoUs. Use the squared error.",
        PRED,
    ),
    Wrong(
        "guess as logit",
        _with(error=lambda pred, iou, losses: F.binary_cross_entropy_with_logits(pred, iou.to(pred))),
        "You treat the predicted IoUs as logits and compute a cross-entropy. Use the squared error of the values.",
        PRED,
    ),
    Wrong(
        "guess times 20",
        _with(error=lambda *args: 20 * _squared(*args)),
        "You multiply the error of the predicted IoUs by 20. Only the focal loss has this factor.",
        PRED,
    ),
    Wrong(
        "soft IoU",
        _with(iou=lambda x, y: _soft_iou(x, y).detach()),
        "You compute the IoU from probabilities. Compute it from the mask: a pixel belongs to it where the "
        "logit is above 0.",
        IOU,
    ),
    Wrong(
        "soft IoU with gradient",
        _with(iou=_soft_iou),
        "You compute the IoU from probabilities, with a gradient. Compute it from a mask with a threshold, "
        "without a gradient.",
        IOU,
    ),
    Wrong(
        "cut at logit 1/2",
        _with(iou=lambda x, y: _iou(x - 0.5, y)),
        "You compare the logits with 1/2. Compare them with 0, where the sigmoid is 1/2.",
        IOU,
    ),
    Wrong(
        "sigmoid above 0",
        _with(iou=lambda x, y: _iou(x.sigmoid(), y)),
        "You compare the sigmoid with 0, and it is above 0 everywhere. Compare the logits with 0.",
        IOU,
    ),
    Wrong(
        "0 is inside",
        _with(iou=lambda x, y: _iou(torch.where(x == 0, 1.0, x), y)),
        "You include pixels where the logit is exactly 0. Only pixels with a logit above 0 belong to the mask.",
        IOU,
    ),
    Wrong(
        "Dice for IoU",
        _with(iou=lambda x, y: 2 * _iou(x, y) / (1 + _iou(x, y))),
        "You use the Dice coefficient as the target of the predicted IoU. Use the IoU.",
        IOU,
    ),
    Wrong("empty is 0", _empty_iou(0.0), "Your IoU of two empty masks is 0. They are equal, so it is 1.", EMPTY),
    Wrong("empty is nan", _empty_iou(torch.nan), "Your IoU of two empty masks is not a number. It is 1.", EMPTY),
    Wrong("focal missing", _weighted(0, 1), "You leave out the focal loss. Add it.", FOCAL),
    Wrong("Dice missing", _weighted(20, 0), "You leave out the Dice loss. Add it to the focal loss.", DICE),
    Wrong("20 missing", _weighted(1, 1), "You leave out the factor 20 of the focal loss. Multiply by it.", SUM),
    Wrong("20 for Dice", _weighted(1, 20), "You multiply the Dice loss by 20. Multiply the focal loss by it.", SUM),
    Wrong(
        "focal summed",
        _with(lambda x, y: 20 * _focal(x, y) * y[0, 0].numel() + _dice(x, y)),
        "You sum the focal loss over the pixels. Compute its mean.",
        FOCAL,
    ),
    Wrong(
        "cross-entropy",
        _with(lambda x, y: 20 * _entropy(x, y).mean(dim=(2, 3)) + _dice(x, y)),
        "You use the plain cross-entropy. Use the focal loss.",
        FOCAL,
    ),
    Wrong(
        "logarithm of 0",
        _with_focal(entropy=_logarithms, best=lambda losses: losses.min(dim=1).values.mean()),
        "Your loss is not a number where a sigmoid is exactly 0 or 1: you compute log(0). Compute the "
        "cross-entropy from the logits.",
        LOGITS,
    ),
    Wrong(
        "entropy of probabilities",
        _with_focal(entropy=lambda x, y: F.binary_cross_entropy(x.sigmoid(), y, reduction="none")),
        "You compute the cross-entropy from probabilities, and torch clamps its logarithm at -100. Compute "
        "it from the logits.",
        LOGITS,
    ),
    Wrong(
        "sigmoid twice",
        _with_focal(entropy=lambda x, y: _entropy(x.sigmoid(), y)),
        "You apply the sigmoid twice. The cross-entropy with logits expects logits.",
        LOGITS,
    ),
    Wrong(
        "easy pixels count",
        _with_focal(factor=lambda wrong: (1 - wrong) ** 2),
        "You give large weights to easy pixels. Inside the target the factor is (1 - p)^2, and outside it is p^2.",
        FOCAL,
    ),
    Wrong("1/4 everywhere", _with_focal(lambda y: 0.25), "You use 1/4 outside too. The factor outside is 3/4.", FOCAL),
    Wrong("no alpha", _with_focal(lambda y: 1), "You leave out the factors 1/4 and 3/4. Multiply by them.", FOCAL),
    Wrong("alpha swapped", _with_focal(lambda y: 0.25 + 0.5 * y), "You swap 1/4 and 3/4. Inside it is 1/4.", FOCAL),
    Wrong("power of 1", _with_focal(factor=lambda wrong: wrong), "You leave out the square of 1 - p and p.", FOCAL),
    Wrong("Dice not smooth", _with_dice(lambda x, y: _dice(x, y, 0.0)), "You leave out + 1, twice, in Dice.", DICE),
    Wrong("squares in Dice", _with_dice(_dice_of_squares), "You sum squares for Dice, as V-Net does. Sum p.", DICE),
    Wrong("Dice of the cut mask", _with_dice(_dice_of_masks), "You threshold p for Dice, so it has no gradient.", DICE),
    Wrong("Dice over the batch", _with_dice(_batch_dice), "You sum over the batch for Dice. Sum per mask.", DICE),
    Wrong(
        "plain number",
        right.then(lambda out, a: float(out.detach())),
        "You return a plain number, which has no gradient. Return a scalar tensor.",
        "No float(...) and no .item().",
    ),
    Wrong(
        "no gradient",
        right.then(lambda out, a: out.detach()),
        "Your loss has no gradient. Only the IoU and the choice of the mask should have none.",
        "Use detach() or no_grad() only for the IoU and the choice of the mask.",
    ),
]

exercise = Exercise(
    name="best_of_three",
    points=3,
    cases=cases,
    reference=best_of_three,
    tolerance=1e-6,
    kind="numbers",
    probe=call_grad,
    wrong=WRONG,
    hides=["segedu.promptable.sam.interactive"],
)
