"""Samples in, a fitted model out, for every solver.

``fit``: the one flow; ``selection``: projection, family, shrinkage and counts; ``fitted``: what every solver returns,
and the model made of it; ``heads``: from a head's name to the head at its initialization; ``gradient``: training by
gradients.
"""
