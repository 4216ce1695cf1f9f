"""Measured claims: budgets of the labs, and the table of proofs."""
