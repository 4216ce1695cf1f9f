"""Detection: where the objects are, as boxes: proposals first, or all at once."""
