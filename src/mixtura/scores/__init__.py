"""Typicality scores of items from log-densities; functions of arrays that are independent of the model."""
