"""Mixtures of Gaussians on deep features: class, typicality, subclass, samples and edits from one density."""

__version__ = "0.1.0"
