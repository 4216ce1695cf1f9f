"""Find and read submissions: folders, archives, notebooks, times. No student code runs here."""
