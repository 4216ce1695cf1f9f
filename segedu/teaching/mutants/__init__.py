"""How well the checks separate right answers from wrong ones: known wrong answers and machine mutants."""
