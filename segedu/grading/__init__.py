"""The grader: submissions in, records out. It imports no method and no exercise (the judge loads one by name)."""
