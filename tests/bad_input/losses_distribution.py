"""Bad and empty input to the other losses of distributions, of boundaries by distance, compound ones, regression."""

import torch
from bad_input.rows import ALL_IGNORED, FLOATS, LOGITS, MAP, NAN, TARGET, defined, logits_and_target, refused, zeros

from segedu.losses.boundary import boundary_dou_loss, boundary_loss, hausdorff_loss, region_wise_loss
from segedu.losses.compound import combo_loss, exponential_logarithmic_loss, log_probabilities, unified_focal_loss
from segedu.losses.distance_maps import distance_inside, signed_distance
from segedu.losses.distribution import boundary_nearness, distance_map_cross_entropy, top_k_loss
from segedu.losses.overlap import class_masks
from segedu.losses.regression import l1_loss, l2_loss, smooth_l1_loss

OF_CLASSES = (top_k_loss, distance_map_cross_entropy, boundary_loss, hausdorff_loss, boundary_dou_loss)
OF_CLASSES += (region_wise_loss, combo_loss, exponential_logarithmic_loss, unified_focal_loss)
NOWHERE, EVERYWHERE = zeros(1, 1, 2, 2).bool(), torch.ones(1, 1, 2, 2).bool()
DISTANCE, EXPONENTIAL = distance_map_cross_entropy, exponential_logarithmic_loss

ROWS = [
    *(row for function in OF_CLASSES for row in logits_and_target(function)),
    *(defined(0.0, function, LOGITS, ALL_IGNORED) for function in OF_CLASSES),
    *(
        refused(ValueError, "class_weights has shape (3,)", function, LOGITS, TARGET, class_weights=torch.ones(3))
        for function in (top_k_loss, DISTANCE, EXPONENTIAL)
    ),
    refused(ValueError, "k is 0", top_k_loss, LOGITS, TARGET, k=0),
    refused(ValueError, "k is 101", top_k_loss, LOGITS, TARGET, k=101),
    refused(ValueError, "reduction is 'avg'", DISTANCE, LOGITS, TARGET, reduction="avg"),
    defined(zeros(1, 4, 5).double(), boundary_nearness, TARGET, 2, torch.ones(1, 4, 5).bool()),
    defined(NOWHERE.double(), distance_inside, NOWHERE),
    defined(NOWHERE.double(), distance_inside, EVERYWHERE),
    defined(NOWHERE.double(), signed_distance, EVERYWHERE, NOWHERE),
    defined(([[[[False]]]], [[[[False]]]]), class_masks, zeros(1, 1, 1), 1, zeros(1, 1, 1).bool()),
    refused(ValueError, "alpha is 0", hausdorff_loss, LOGITS, TARGET, alpha=0),
    refused(ValueError, "smooth is -1", boundary_dou_loss, LOGITS, TARGET, smooth=-1),
    defined(0.0, boundary_loss, LOGITS, TARGET),
    defined(0.0, hausdorff_loss, LOGITS, TARGET),
    refused(ValueError, "alpha is 2", combo_loss, LOGITS, TARGET, alpha=2),
    refused(ValueError, "beta is nan", combo_loss, LOGITS, TARGET, beta=NAN),
    defined(([[-0.0]], [[-torch.inf]]), log_probabilities, torch.zeros(1, 1)),
    refused(ValueError, "dice_weight is 2", EXPONENTIAL, LOGITS, TARGET, dice_weight=2),
    refused(ValueError, "gamma is 0", EXPONENTIAL, LOGITS, TARGET, gamma=0),
    refused(ValueError, "smooth is 0", EXPONENTIAL, LOGITS, TARGET, smooth=0),
    refused(ValueError, "weight is 2", unified_focal_loss, LOGITS, TARGET, weight=2),
    refused(ValueError, "delta is -1", unified_focal_loss, LOGITS, TARGET, delta=-1),
    refused(ValueError, "gamma is 1", unified_focal_loss, LOGITS, TARGET, gamma=1),
    refused(ValueError, "smooth is -1", unified_focal_loss, LOGITS, TARGET, smooth=-1),
    *(
        row
        for function in (l1_loss, l2_loss, smooth_l1_loss)
        for row in (
            refused(TypeError, "preds has type list", function, [0.0], FLOATS),
            refused(TypeError, "target has dtype torch.int64", function, FLOATS, MAP),
            refused(ValueError, "preds has shape (2, 3)", function, FLOATS, FLOATS.T),
            refused(ValueError, "preds has shape (0,)", function, torch.zeros(0), torch.zeros(0)),
            refused(ValueError, "weights has shape (3,)", function, FLOATS, FLOATS, weights=torch.ones(3)),
            refused(ValueError, "weights has a negative", function, FLOATS, FLOATS, weights=FLOATS - 1),
            refused(ValueError, "reduction is 'avg'", function, FLOATS, FLOATS, reduction="avg"),
            defined(0.0, function, FLOATS, FLOATS + NAN, weights=FLOATS),
        )
    ),
    refused(ValueError, "beta is -1", smooth_l1_loss, FLOATS, FLOATS, beta=-1),
]
