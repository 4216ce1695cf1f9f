"""Derive the notebooks of students and of instructors from the source of a lab."""
