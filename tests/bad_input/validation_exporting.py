"""No input to `segedu.validation.exporting`."""

from bad_input.rows import defined

from segedu.validation.exporting import is_exporting

ROWS = [defined(False, is_exporting)]
