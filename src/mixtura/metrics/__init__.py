"""Metrics: functions from arrays to numbers.

Conventions: shares are in [0, 1]; scores are higher for more known items; classes are indices from 0.
"""
