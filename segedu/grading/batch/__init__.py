"""Grading a batch: many submissions, in other processes or on a cluster."""
