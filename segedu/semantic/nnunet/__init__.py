"""nnU-Net: the plan from a data set's fingerprint, the network, training, and preprocessing of volumes."""
