"""Segmentation without labels: clustering of colours, places and learned features."""
