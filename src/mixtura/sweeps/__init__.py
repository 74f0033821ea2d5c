"""The grid of ``mixtura sweep``: the heads to fit, the processes that fit them, and the stored results.

``grid``: the whole sweep; ``cells``: what there is to fit; ``jobs``: the work of one process; ``selected``: the recipe
of the best cell; ``results``: the files, resumed after an interruption;
``earlier``: files of earlier versions; ``tuning``: a search by optuna instead of the grid.
"""
