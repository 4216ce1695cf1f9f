"""After grading: from records and the instructor's own files to points, pages and tables. It never runs anything."""
