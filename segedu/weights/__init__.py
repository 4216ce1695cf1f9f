"""Trained weights: official files by their publishers, and our own small ones."""
