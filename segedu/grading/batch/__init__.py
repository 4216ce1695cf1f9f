"""Grade a batch of many submissions, in other processes or on a cluster."""
