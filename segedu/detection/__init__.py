"""Object detection: the objects of an image as boxes, in two stages with proposals, or in one."""
