"""Bad and empty input to the boundary losses with a file of their own."""

import torch
from bad_input.rows import ALL_IGNORED, LOGITS, NAN, TARGET, defined, logits_and_target, refused, zeros

from segedu.losses.active_boundary import (
    active_boundary_loss,
    distance_to_boundary,
    neighbour_divergence,
    predicted_boundary,
)
from segedu.losses.boundary_aware import (
    boundary_aware_loss,
    decode_distances,
    log_uncovered,
    truncated_distance,
)
from segedu.losses.conditional_boundary import conditional_boundary_loss
from segedu.losses.inverse_form import (
    InverseNet,
    class_boundary,
    inverse_form_loss,
    split_into_tiles,
    synthetic_tiles,
    train_inverse_net,
)

ALL, FEATURES, SCORES = torch.ones(1, 4, 5).bool(), torch.zeros(1, 7, 4, 5), torch.zeros(1, 4, 5)
CONDITIONAL, VOLUME = conditional_boundary_loss, (LOGITS[:, :, None], TARGET[:, None])


def any_net(preds, target):
    """As many parameters as a tile has pixels."""
    return preds.flatten(1)


ROWS = [
    *logits_and_target(active_boundary_loss),
    refused(ValueError, "boundary_fraction is 0", active_boundary_loss, LOGITS, TARGET, boundary_fraction=0),
    refused(ValueError, "boundary_fraction is 2", active_boundary_loss, LOGITS, TARGET, boundary_fraction=2),
    refused(ValueError, "max_distance is 0", active_boundary_loss, LOGITS, TARGET, max_distance=0),
    refused(ValueError, "smoothing is 1.1", active_boundary_loss, LOGITS, TARGET, smoothing=1.1),
    refused(ValueError, "logits has shape (1, 2, 1, 4, 5)", active_boundary_loss, *VOLUME),
    defined(0.0, active_boundary_loss, LOGITS, ALL_IGNORED),
    defined(0.0, active_boundary_loss, LOGITS, TARGET),
    defined((torch.zeros(1, 8, 4, 5), torch.zeros(1, 8, 4, 5).bool()), neighbour_divergence, LOGITS, ~ALL),
    defined(~ALL, predicted_boundary, torch.zeros(1, 8, 4, 5), ALL, 0.5),
    defined(torch.full((1, 4, 5), torch.inf).double(), distance_to_boundary, TARGET, ALL),
    refused(TypeError, "logits has type list", boundary_aware_loss, [0.0], TARGET),
    refused(ValueError, "logits has shape (1, 4, 5)", boundary_aware_loss, SCORES, TARGET),
    refused(ValueError, "logits has shape (1, 1, 4, 5)", boundary_aware_loss, LOGITS[:, :1], TARGET),
    refused(ValueError, "target has shape (1, 5, 4)", boundary_aware_loss, LOGITS, TARGET.mT),
    refused(ValueError, "target has the value 2", boundary_aware_loss, LOGITS, TARGET + 2),
    defined(0.0, boundary_aware_loss, LOGITS, ALL_IGNORED),
    refused(TypeError, "logits has type NoneType", decode_distances, None),
    defined(torch.zeros(1, 4, 5), log_uncovered, LOGITS, ~ALL),
    refused(ValueError, "max_distance is 0", truncated_distance, TARGET, 0),
    defined(TARGET + 3, truncated_distance, TARGET + 1, 3),
    refused(TypeError, "logits has type list", CONDITIONAL, FEATURES, [0.0], TARGET),
    refused(ValueError, "logits has shape (1, 1, 4, 5)", CONDITIONAL, FEATURES, LOGITS[:, :1], TARGET),
    refused(ValueError, "target has the value 2", CONDITIONAL, FEATURES, LOGITS, TARGET + 2),
    refused(ValueError, "logits has shape (1, 2, 1, 4, 5)", CONDITIONAL, FEATURES, *VOLUME),
    refused(TypeError, "features has type list", CONDITIONAL, [0.0], LOGITS, TARGET),
    refused(ValueError, "features has shape (1, 7, 5, 4)", CONDITIONAL, FEATURES.mT, LOGITS, TARGET),
    refused(ValueError, "features has shape (1, 0, 4, 5)", CONDITIONAL, FEATURES[:, :0], LOGITS, TARGET),
    refused(TypeError, "window is 3.0", CONDITIONAL, FEATURES, LOGITS, TARGET, window=3.0),
    refused(ValueError, "window is 4", CONDITIONAL, FEATURES, LOGITS, TARGET, window=4),
    refused(ValueError, "temperature is 0", CONDITIONAL, FEATURES, LOGITS, TARGET, temperature=0),
    refused(ValueError, "pull is nan", CONDITIONAL, FEATURES, LOGITS, TARGET, pull=NAN),
    refused(ValueError, "push is -1", CONDITIONAL, FEATURES, LOGITS, TARGET, push=-1),
    defined(0.0, CONDITIONAL, FEATURES, LOGITS, ALL_IGNORED),
    defined(0.0, CONDITIONAL, FEATURES, LOGITS, TARGET),
    refused(TypeError, "boundary_logits has type list", inverse_form_loss, [0.0], TARGET, any_net),
    refused(ValueError, "target has shape (1, 5, 4)", inverse_form_loss, SCORES, TARGET.mT, any_net),
    refused(ValueError, "boundary_logits has shape (4, 5)", inverse_form_loss, SCORES[0], TARGET[0], any_net),
    refused(TypeError, "tile is 2.0", inverse_form_loss, SCORES, TARGET, any_net, tile=2.0),
    refused(ValueError, "tile is 0", inverse_form_loss, SCORES, TARGET, any_net, tile=0),
    refused(ValueError, "the result of inverse_net has shape", inverse_form_loss, SCORES, TARGET + 1, any_net, tile=2),
    defined(0.0, inverse_form_loss, SCORES, TARGET, any_net),
    defined(0.0, inverse_form_loss, SCORES, ALL_IGNORED, any_net),
    defined(torch.zeros(1, 1, 8, 8), split_into_tiles, SCORES, 8),
    defined(zeros(1, 1, 1), class_boundary, zeros(1, 1, 1)),
    refused(ValueError, "tile is 12", InverseNet, 12),
    refused(ValueError, "count is 0", synthetic_tiles, 0, 8, torch.Generator()),
    refused(ValueError, "tile is 1", synthetic_tiles, 2, 1, torch.Generator()),
    refused(ValueError, "steps is 0", train_inverse_net, InverseNet(8, 2), steps=0),
]
