"""Scores of being known: higher = more known.

Each entry is a function of the evidence and the background log-density of a row (nats), fitted to nothing.
"""

SCORES = {
    "evidence": "mixtura.scores.density:evidence",
    "relative": "mixtura.scores.density:relative",
}
