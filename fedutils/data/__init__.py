"""Data sets: the synthetic phantom and the real layouts that the project reads."""
