"""Grade one submission: rebuild its notebook, run it, compare its outcomes, and write one record."""
