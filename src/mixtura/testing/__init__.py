"""Law kits, shipped with the package: what must hold of every family, so that one from outside can prove itself."""
