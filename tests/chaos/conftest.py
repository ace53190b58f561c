"""What pytest must not import: the worker of the torture is a program, and wants the directory that a run gives it."""

collect_ignore = ["worker.py"]
