"""Exports for platforms that run the grader themselves: nbgrader and Gradescope."""
