"""Platforms that run the grader themselves: nbgrader and Gradescope."""
