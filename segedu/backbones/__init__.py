"""Networks that turn images into a list of features, fine to coarse."""
