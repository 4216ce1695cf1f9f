"""Cellpose: the network, its flows, the size model, and volumes."""
