"""Segmentation without labels: clustering of colours, positions and learned features."""
