"""``python -m seg.report``: of a study (``experiments=…``) or of a data set (``data=…``), from what was recorded."""

from seg.studies import run

run()
