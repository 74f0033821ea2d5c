"""Samples in, a fitted model out, for every solver.

``fit``: the pipeline; ``selection``: projection, family, shrinkage and component counts; ``fitted``: the result of
every solver and the model built from it; ``heads``: from a head's name to an initialized head; ``checks``: what a
recipe may not say of them; ``gradient``: training by gradient descent.
"""
