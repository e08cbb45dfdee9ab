"""``python -m seg.report experiments=attention``: a study's tables, figures and page, from what was recorded."""

from seg.studies import run

run()
