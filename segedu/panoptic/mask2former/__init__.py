"""Mask2Former: the pixel decoder, the masked-attention decoder, and the loss."""
