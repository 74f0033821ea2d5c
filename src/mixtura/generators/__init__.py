"""Generators: vectors in, photos or further vectors out.

``autoencoder``: the half of an autoencoder that draws a photo from the vector of its bottleneck.
"""
