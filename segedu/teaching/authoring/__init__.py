"""From the source of a lab to the notebooks of students and of instructors."""
