"""Checks of arguments, in one wording: numbers, tensors, images, boxes, label maps, targets.

Every check takes the argument's name first and its value second, and raises `TypeError` for a wrong type or dtype and
`ValueError` for a wrong shape or value. The message names the argument, its value and what is expected:
`logits has shape (2, 5), expected (B, K, H, W)`.

This package imports nothing else of segedu, so that every part of the library can use it.
"""
