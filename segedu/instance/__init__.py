"""Instance segmentation: methods that group pixels into objects, and methods that start from boxes."""
