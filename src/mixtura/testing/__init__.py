"""Law kits shipped with the package: test suites with which third-party families and heads can verify themselves."""
