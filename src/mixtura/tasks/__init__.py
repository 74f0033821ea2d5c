"""Verbs, one file each: ``run(...)`` returns a record; no mathematics and no files of their own."""
