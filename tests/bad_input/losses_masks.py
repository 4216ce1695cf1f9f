"""Bad and empty input to `segedu.losses.masks`."""

import numpy as np
import torch
from bad_input.rows import NAN, defined, refused

from segedu.losses.masks import mask_dice_loss, mask_losses

LOGITS, MASKS = torch.zeros(2, 1, 1), torch.zeros(2, 2, 2, dtype=torch.bool)
SAME_SIZE = torch.zeros(2, 2, 2)
NOTHING = (torch.tensor(0.0), torch.tensor(0.0))

ROWS = [
    refused(TypeError, "mask_logits has type list, expected a floating-point", mask_losses, [[[0.0]]], MASKS, 1),
    refused(TypeError, "masks has type ndarray", mask_losses, LOGITS, np.zeros((2, 2, 2), bool), 1),
    refused(TypeError, "mask_logits has dtype torch.int64", mask_losses, LOGITS.long(), MASKS, 1),
    refused(TypeError, "masks has dtype torch.float32, expected torch.bool", mask_losses, LOGITS, MASKS.float(), 1),
    refused(ValueError, "mask_logits has shape (1, 1), expected (M, h, w)", mask_losses, LOGITS[0], MASKS, 1),
    refused(ValueError, "masks has shape (2, 0, 2)", mask_losses, LOGITS, MASKS[:, :0], 1),
    refused(ValueError, "masks has shape (1, 2, 2), expected (M, H, W) with M = 2", mask_losses, LOGITS, MASKS[:1], 1),
    refused(TypeError, "count is ", mask_losses, LOGITS, MASKS, "1"),
    refused(ValueError, "count is 0, expected a finite number above 0", mask_losses, LOGITS, MASKS, 0),
    refused(ValueError, "count is nan", mask_losses, LOGITS, MASKS, NAN),
    defined(NOTHING, mask_losses, LOGITS[:0], MASKS[:0], 1),
    defined(NOTHING, mask_losses, LOGITS[:0].half(), MASKS[:0], 1),
    # empty ground truth and empty predictions
    defined(NOTHING, mask_losses, torch.full((2, 1, 1), -99.0), MASKS, 1),
    refused(TypeError, "mask_logits has type list, expected a floating-point", mask_dice_loss, [[[0.0]]], MASKS),
    refused(TypeError, "masks has dtype torch.float32, expected torch.bool", mask_dice_loss, SAME_SIZE, MASKS.float()),
    refused(ValueError, "mask_logits has shape (0, 2, 2)", mask_dice_loss, SAME_SIZE[:0], MASKS[:0]),
    refused(
        ValueError, "masks has shape (1, 2, 2), expected (N, H, W) with N = 2", mask_dice_loss, SAME_SIZE, MASKS[:1]
    ),
    defined(0.0, mask_dice_loss, torch.full((2, 2, 2), -torch.inf), MASKS),
]
