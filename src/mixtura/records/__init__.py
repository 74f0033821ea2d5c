"""Plain dataclasses that cross rings: no torch and no logic beyond their own fields. Report and web import these.

``decision``: Decision, Evaluation and their parts; ``catalog``: products, items and edits; ``journal``: logged
decisions, drift and groups of unknown photos; ``inspection``: suspected labels, outliers and near-duplicates;
``contact_sheet``: pages of pictures; ``strangers``: how many strangers a model would notice; ``sweep``: cells
and runs of a grid.
"""
