"""Bad and empty input to the region losses and what they are made of."""

import torch
from bad_input.rows import ALL_IGNORED, LOGITS, NAN, TARGET, defined, logits_and_target, refused, zeros

from segedu.losses.cldice import cldice_loss, soft_skeleton
from segedu.losses.dice import dice_loss, generalized_wasserstein_dice_loss, log_cosh_dice_loss
from segedu.losses.lovasz import lovasz_extension, lovasz_hinge_loss, lovasz_softmax_loss
from segedu.losses.overlap import class_probabilities, mean_over_classes, power_from_zero, ratio_or_one, soft_counts
from segedu.losses.region import (
    focal_tversky_loss,
    iou_loss,
    sensitivity_specificity_loss,
    tversky_error,
    tversky_loss,
)
from segedu.losses.rmi import half_log_det_unexplained, region_vectors, rmi_loss
from segedu.losses.robust_t import robust_t_loss

APART = 1 - torch.eye(2)
SCORES, ONES = torch.zeros(1, 4, 5), torch.ones(2)
WASSERSTEIN = generalized_wasserstein_dice_loss
REGION = (iou_loss, tversky_loss, focal_tversky_loss, sensitivity_specificity_loss, log_cosh_dice_loss)

ROWS = [
    *(row for function in (*REGION, lovasz_softmax_loss, robust_t_loss) for row in logits_and_target(function)),
    *(row for function in (rmi_loss, cldice_loss, soft_counts) for row in logits_and_target(function)),
    *logits_and_target(class_probabilities, 255),
    *logits_and_target(WASSERSTEIN, APART),
    *(defined(0.0, function, LOGITS, ALL_IGNORED) for function in (*REGION, lovasz_softmax_loss, robust_t_loss)),
    *(
        refused(error, words, function, LOGITS, TARGET, class_weights=weights)
        for function in (*REGION, dice_loss)
        for error, words, weights in (
            (TypeError, "class_weights has type list", [1, 1]),
            (ValueError, "class_weights has shape (3,)", torch.ones(3)),
            (ValueError, "class_weights has a negative, infinite or NaN", -ONES),
        )
    ),
    *(
        refused(ValueError, "smooth is -1", function, LOGITS, TARGET, smooth=-1)
        for function in (iou_loss, tversky_loss, focal_tversky_loss, log_cosh_dice_loss, cldice_loss)
    ),
    defined(0.0, iou_loss, LOGITS, ALL_IGNORED, smooth=0),
    defined(0.0, iou_loss, LOGITS, TARGET, class_weights=0 * ONES),
    refused(ValueError, "alpha is -0.1", tversky_loss, LOGITS, TARGET, alpha=-0.1),
    refused(TypeError, "beta is ", tversky_loss, LOGITS, TARGET, beta="1"),
    refused(ValueError, "gamma is 0", focal_tversky_loss, LOGITS, TARGET, gamma=0),
    refused(ValueError, "weight is 1.1", sensitivity_specificity_loss, LOGITS, TARGET, weight=1.1),
    refused(ValueError, "smooth is nan", tversky_error, (ONES, ONES, ONES), 0.5, 0.5, NAN),
    defined([0.0, 0.0], tversky_error, (0 * ONES, 0 * ONES, 0 * ONES), 0.5, 0.5, 0),
    defined([0.0, 0.0], power_from_zero, 0 * ONES, 0.5),
    defined([1.0, 1.0], ratio_or_one, 0 * ONES, 0 * ONES),
    refused(ValueError, "class_weights has shape (3,)", mean_over_classes, ONES, class_weights=torch.ones(3)),
    refused(TypeError, "class_distances has type list", WASSERSTEIN, LOGITS, TARGET, [[0, 1], [1, 0]]),
    refused(ValueError, "class_distances has shape (3, 3)", WASSERSTEIN, LOGITS, TARGET, 1 - torch.eye(3)),
    refused(ValueError, "class_distances has a negative", WASSERSTEIN, LOGITS, TARGET, -APART),
    refused(ValueError, "class_distances is not a distance", WASSERSTEIN, LOGITS, TARGET, torch.eye(2)),
    refused(ValueError, "class_distances is not a distance", WASSERSTEIN, LOGITS, TARGET, 0 * APART),
    refused(ValueError, "class_distances is not a distance", WASSERSTEIN, LOGITS, TARGET, APART.triu()),
    refused(ValueError, "smooth is -1", WASSERSTEIN, LOGITS, TARGET, APART, smooth=-1),
    defined(0.0, WASSERSTEIN, LOGITS, ALL_IGNORED, APART),
    refused(TypeError, "logits has type list", lovasz_hinge_loss, [0.0], TARGET),
    refused(ValueError, "logits has shape (5,)", lovasz_hinge_loss, torch.zeros(5), zeros(5)),
    refused(ValueError, "target has shape (1, 5, 4)", lovasz_hinge_loss, SCORES, TARGET.mT),
    refused(ValueError, "target has the value 2", lovasz_hinge_loss, SCORES, TARGET + 2),
    refused(ValueError, "target has the value 0.5", lovasz_hinge_loss, SCORES, SCORES + 0.5),
    defined(0.0, lovasz_hinge_loss, SCORES, ALL_IGNORED),
    defined(0.0, lovasz_extension, ONES, ONES, zeros(2).bool()),
    refused(ValueError, "weight is -1", rmi_loss, LOGITS, TARGET, weight=-1),
    refused(ValueError, "eps is 0", rmi_loss, LOGITS, TARGET, eps=0),
    refused(TypeError, "region is 3.0", rmi_loss, LOGITS, TARGET, region=3.0),
    refused(ValueError, "pool is 0", rmi_loss, LOGITS, TARGET, pool=0),
    refused(ValueError, "logits has shape (1, 2, 4, 5)", rmi_loss, LOGITS, TARGET),
    refused(ValueError, "logits has shape (1, 2, 1, 4, 5)", rmi_loss, LOGITS[:, :, None], TARGET[:, None]),
    defined(torch.zeros(1, 1, 4, 2), region_vectors, torch.zeros(1, 1, 2, 3), 2),
    defined(0.0, half_log_det_unexplained, torch.zeros(1, 3), torch.zeros(1, 3), 1.0),
    refused(ValueError, "nu is 0", robust_t_loss, LOGITS, TARGET, 0),
    refused(ValueError, "nu is -1.0", robust_t_loss, LOGITS, TARGET, torch.tensor(-1.0)),
    refused(ValueError, "nu is nan", robust_t_loss, LOGITS, TARGET, ONES),
    refused(TypeError, "nu is ", robust_t_loss, LOGITS, TARGET, "1"),
    refused(TypeError, "iterations is 1.0", cldice_loss, LOGITS, TARGET, iterations=1.0),
    refused(ValueError, "iterations is 0", soft_skeleton, LOGITS, 0),
    refused(ValueError, "logits has shape (1, 2, 5)", cldice_loss, LOGITS[:, :, 0], TARGET[:, 0]),
    defined(0.0, cldice_loss, LOGITS, ALL_IGNORED),
]
