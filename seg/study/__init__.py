"""Statistics of studies, from scores to tables and sentences."""
