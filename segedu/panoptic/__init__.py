"""Panoptic segmentation: every pixel gets a class, and every thing an id; one method for things and stuff."""
