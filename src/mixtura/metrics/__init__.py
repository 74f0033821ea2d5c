"""Metrics: arrays in, numbers out.

Conventions: shares lie in [0, 1]; a score is higher for more known items; classes are indices from 0.
"""
