"""``python -m mixtura``: the command line."""

from mixtura.cli import main

if __name__ == "__main__":
    main()
