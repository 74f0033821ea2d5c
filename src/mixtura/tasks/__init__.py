"""Verbs, one file each: ``run(...)`` returns a record; no mathematics here, and no files of its own."""
