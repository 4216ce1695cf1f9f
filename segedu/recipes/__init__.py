"""Recipes: how each method is trained and measured, one row per method and data set."""
