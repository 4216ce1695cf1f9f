"""Scenes drawn by the course itself, loaders of real data, and the transforms that move image and truth together."""
