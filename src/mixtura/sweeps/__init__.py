"""The grid of ``mixtura sweep``: which heads are fitted, in which processes, and what is kept of them.

``grid``: the whole sweep; ``jobs``: what one worker fits; ``results``: the files, resumed after an interruption;
``earlier``: files of earlier versions; ``tuning``: a search by optuna in place of the grid.
"""
