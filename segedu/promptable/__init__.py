"""Segmentation by prompts: a click, a box or a mask says what is meant."""
