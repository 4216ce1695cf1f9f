"""No input to `segedu.ops.exporting`."""

from bad_input.rows import defined

from segedu.ops.exporting import is_exporting

ROWS = [defined(False, is_exporting)]
