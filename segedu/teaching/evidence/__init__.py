"""Claims that are measured: budgets of the labs, and the table of proofs."""
