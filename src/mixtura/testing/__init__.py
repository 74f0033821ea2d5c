"""Law kits shipped with the package: test suites with which families, heads and encoders verify themselves."""
