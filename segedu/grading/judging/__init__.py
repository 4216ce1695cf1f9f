"""Judging one submission: its notebook is rebuilt, run, and compared; the result is one record."""
