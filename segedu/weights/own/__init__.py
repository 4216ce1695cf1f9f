"""Small weights that we trained ourselves: each file beside the script and the log that made it."""
