"""Synthetic scenes, loaders of real data sets, and transforms of images together with their targets."""
