"""The sandbox: isolated kernels that run a submission's cells."""
