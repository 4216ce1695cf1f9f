"""How well the checks tell right answers from wrong ones: known wrong answers and machine mutants."""
