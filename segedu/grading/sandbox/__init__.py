"""The sandbox: isolated Jupyter kernels that run a submission's cells.

In this package, "kernel" always means a Jupyter kernel; the Linux kernel is called the operating system. `fork_server`
describes the three processes of a sandbox (supervisor, init and kernel), `isolation_levels` the levels 1 to 3, and
`steps` the kinds of cells that are run.
"""
