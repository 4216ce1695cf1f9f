"""Promptable segmentation: a click, a box or a mask selects the object."""
