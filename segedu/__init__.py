"""segedu: image segmentation, one readable file a method."""

__version__ = "0.1.0"
