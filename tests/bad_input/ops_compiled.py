"""Bad input to `segedu.ops.compiled`."""

from bad_input.rows import refused

from segedu.ops.compiled import compiled

ROWS = [
    refused(TypeError, "kernel has type int", compiled, 3),
    refused(TypeError, "kernel has type type", compiled, int),
]
