"""Every loss of (logits, target) once, with what holds for it: the tests of properties run over this table."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch

from segedu.losses.active_boundary import active_boundary_loss
from segedu.losses.boundary import boundary_dou_loss, boundary_loss, hausdorff_loss, region_wise_loss
from segedu.losses.boundary_aware import boundary_aware_loss
from segedu.losses.cldice import cldice_loss
from segedu.losses.compound import combo_loss, exponential_logarithmic_loss, unified_focal_loss
from segedu.losses.conditional_boundary import conditional_boundary_loss
from segedu.losses.cross_entropy import binary_cross_entropy, cross_entropy
from segedu.losses.dice import dice_loss, generalized_wasserstein_dice_loss, log_cosh_dice_loss
from segedu.losses.distribution import distance_map_cross_entropy, top_k_loss
from segedu.losses.focal import focal_loss, sigmoid_focal_loss
from segedu.losses.inverse_form import IDENTITY, inverse_form_loss
from segedu.losses.lovasz import lovasz_hinge_loss, lovasz_softmax_loss
from segedu.losses.region import focal_tversky_loss, iou_loss, sensitivity_specificity_loss, tversky_loss
from segedu.losses.rmi import rmi_loss
from segedu.losses.robust_t import robust_t_loss


@dataclass
class Entry:
    """One loss; the flags say what its formula promises."""

    name: str
    function: Any
    classes: int = 3
    highest: float = float("inf")  # bound of the value
    lowest: float = 0.0
    perfect: float | None = 0.0  # value of a perfect prediction, if it is known
    sees_classes: bool = True  # a perfect prediction costs less than the opposite of it
    mirrors: bool = True  # a mirrored image costs the same
    needs_edge: bool = False  # an image of one class has no gradient
    moves: bool = True  # the same pixels in another order cost the same
    renames: bool = True  # classes in another order cost the same
    batch_is_mean: bool = True  # two images of equal size cost the mean of both
    volumes: bool = True
    one_score: bool = False  # logits (B, H, W) of two classes
    empty: float | None = 0.0  # value where all pixels are ignored
    slopes: dict = field(default_factory=dict)  # options under which the whole gradient flows, for gradcheck

    def __str__(self):
        return self.name


APART = torch.tensor([[0.0, 1.0, 1.0], [1.0, 0.0, 0.5], [1.0, 0.5, 0.0]], dtype=torch.float64)
wasserstein = partial(generalized_wasserstein_dice_loss, class_distances=APART)
small_rmi = partial(rmi_loss, region=2, pool=1)


def of_features(logits, target, **options):
    """The logits are the features as well."""
    return conditional_boundary_loss(logits, logits, target, window=3, **options)


def of_distances(logits, target, ignore_index=255):
    """Class 0 is the outside of the mask; the classes of the logits are distances."""
    mask = torch.where(target == ignore_index, target, (target > 0).long())
    return boundary_aware_loss(logits, mask, ignore_index=ignore_index)


def by_centre_of_mass(preds, target):
    """Not learnt: says "moved" by a weighted difference of both tiles, and identity where they agree."""
    axis = torch.linspace(0.1, 1, preds.shape[-1], dtype=preds.dtype)
    weights = torch.stack([axis[:, None] * axis**power for power in range(6)])
    return preds.new_tensor(IDENTITY[:6]) + ((preds - target) * weights).sum((2, 3))


def of_boundaries(logits, target, **options):
    return inverse_form_loss(logits, target, by_centre_of_mass, tile=3, **options)


PLACE = {"moves": False, "batch_is_mean": False, "volumes": False, "needs_edge": True, "sees_classes": False}
LOSSES = [
    Entry("cross_entropy", cross_entropy),
    Entry("binary_cross_entropy", binary_cross_entropy, one_score=True),
    Entry("focal_loss", focal_loss),
    Entry("focal_loss gamma 1/2", partial(focal_loss, gamma=0.5)),
    Entry("sigmoid_focal_loss", sigmoid_focal_loss, one_score=True),
    Entry("top_k_loss", partial(top_k_loss, k=30), batch_is_mean=False),
    Entry("distance_map_cross_entropy", distance_map_cross_entropy, moves=False),
    Entry("dice_loss", dice_loss, highest=1),
    Entry("dice_loss squared", partial(dice_loss, squared=True), highest=1),
    Entry("log_cosh_dice_loss", log_cosh_dice_loss, highest=0.434, batch_is_mean=False),
    Entry("generalized_wasserstein_dice_loss", wasserstein, highest=1, renames=False),
    Entry("iou_loss", iou_loss, highest=1),
    Entry("tversky_loss", tversky_loss, highest=1),
    Entry("focal_tversky_loss", focal_tversky_loss, highest=1),
    Entry("sensitivity_specificity_loss", sensitivity_specificity_loss, highest=1),
    Entry("lovasz_softmax_loss", lovasz_softmax_loss, highest=1),
    Entry("lovasz_softmax_loss all", partial(lovasz_softmax_loss, only_present=False), highest=1),
    Entry("lovasz_hinge_loss", lovasz_hinge_loss, one_score=True),
    Entry("rmi_loss", small_rmi, lowest=-10.362, perfect=-9.842, moves=False, volumes=False, empty=-10.3616),
    Entry("robust_t_loss", robust_t_loss, lowest=-1e9, perfect=None, renames=False),
    Entry("boundary_loss", boundary_loss, lowest=-99, perfect=None, moves=False, renames=False, needs_edge=True),
    Entry("hausdorff_loss", hausdorff_loss, moves=False, renames=False, needs_edge=True),
    Entry(
        "boundary_aware_loss", of_distances, perfect=None, sees_classes=False, moves=False, renames=False, volumes=False
    ),
    Entry(
        "active_boundary_loss",
        partial(active_boundary_loss, boundary_fraction=0.3),
        mirrors=False,
        slopes={"detach_neighbours": False},
        **PLACE,
    ),
    Entry("conditional_boundary_loss", of_features, perfect=None, slopes={"pull": 0.0}, **PLACE),
    Entry("inverse_form_loss", of_boundaries, one_score=True, moves=False, mirrors=False, volumes=False),
    Entry("boundary_dou_loss", boundary_dou_loss, highest=1, moves=False),
    Entry("region_wise_loss", region_wise_loss, lowest=-1 / 3, highest=1 / 3, perfect=None, moves=False),
    Entry("cldice_loss", partial(cldice_loss, iterations=1), highest=1, moves=False, renames=False),
    Entry("combo_loss", combo_loss, renames=False),
    Entry("exponential_logarithmic_loss", exponential_logarithmic_loss, batch_is_mean=False),
    Entry("unified_focal_loss", unified_focal_loss, renames=False),
]
