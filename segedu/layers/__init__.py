"""Blocks of layers that several papers share and none of them introduces."""
