"""After grading: compute points, pages and tables from the records and the instructor's files, without student code."""
