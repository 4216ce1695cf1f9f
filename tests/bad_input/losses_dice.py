"""Bad and empty input to `segedu.losses.dice`."""

from bad_input.rows import ALL_IGNORED, LOGITS, NAN, TARGET, defined, logits_and_target, refused

from segedu.losses.dice import dice_loss

ROWS = [
    *logits_and_target(dice_loss),
    refused(TypeError, "smooth is ", dice_loss, LOGITS, TARGET, smooth="1"),
    refused(ValueError, "smooth is -1", dice_loss, LOGITS, TARGET, smooth=-1),
    refused(ValueError, "smooth is nan", dice_loss, LOGITS, TARGET, smooth=NAN),
    defined(0.0, dice_loss, LOGITS, ALL_IGNORED),
    defined(0.0, dice_loss, LOGITS, ALL_IGNORED, smooth=0, per_image=False),
]
