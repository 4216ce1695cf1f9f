"""Semantic segmentation: one class per pixel. One file per paper."""
