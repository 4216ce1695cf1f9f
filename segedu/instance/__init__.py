"""Instances: every object apart, found from the pixels up or from the box down."""
