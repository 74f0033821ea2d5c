"""Kinds within labeled classes: how many a class holds, which row is of which kind, and whether to believe it.

- ``spaces``: the rows of each class on its leading axes, and which rows may judge each other.
- ``tied_mixtures``: many mixtures with a shared covariance at once, by EM.
- ``held_out``: the held-out density of every number of kinds.
- ``stability``: whether half the rows find the same kinds.
- ``one_gaussian``: whether one Gaussian would look as split.
- ``search``: all of it for one class.
"""
