"""Bad input to `segedu.ops.compiled`."""

from bad_input.rows import refused

from segedu.ops.compiled import compiled

ROWS = [refused(TypeError, "kernel is a int", compiled, 3), refused(TypeError, "kernel is a type", compiled, int)]
