"""Geometry on boxes and masks: no model, no state."""
