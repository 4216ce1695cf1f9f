"""Panoptic: every pixel gets a class, and every thing a number of its own; objects and surfaces by one method."""
