"""The cases are programs; ``make cases`` runs them."""

collect_ignore_glob = ["*.py"]
