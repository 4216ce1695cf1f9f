"""Small weights that we trained ourselves, each with the script that made it and its log."""
