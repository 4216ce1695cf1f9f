"""What makes the library a course: exercises and their checks, widgets, notebooks, the capstone."""
