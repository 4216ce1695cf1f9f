"""Finding and reading submissions: folders, archives, notebooks, times. Nothing of a student runs here."""
