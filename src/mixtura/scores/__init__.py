"""How typical an item is, read from log-densities: a function of arrays, which knows no model."""
