"""The command line, one file per command. Each command parses, calls one task and prints.

Nothing here imports torch before a task runs, so ``--help`` answers at once.
"""

import contextlib
import os
import sys

PANELS = {
    "Make and use a model": {
        "fit": "mixtura.cli.fit:fit",
        "train": "mixtura.cli.train:train",
        "sweep": "mixtura.cli.sweep:sweep",
        "predict": "mixtura.cli.predict:predict",
        "serve": "mixtura.cli.serve:serve",
        "evaluate": "mixtura.cli.evaluate:evaluate",
        "report": "mixtura.cli.report:report",
        "export": "mixtura.cli.export:export",
    },
    "Edit a catalog": {
        "products": "mixtura.cli.catalog:products",
        "enroll": "mixtura.cli.catalog:enroll",
        "remove": "mixtura.cli.catalog:remove",
        "rename": "mixtura.cli.catalog:rename",
        "merge": "mixtura.cli.catalog:merge",
        "split": "mixtura.cli.catalog:split",
        "confirm": "mixtura.cli.catalog:confirm",
        "undo": "mixtura.cli.catalog:undo",
        "history": "mixtura.cli.catalog:history",
    },
    "Maintain a catalog": {
        "inspect": "mixtura.cli.inspect:inspect",
        "drift": "mixtura.cli.drift:drift",
        "discover": "mixtura.cli.discover:discover",
        "recalibrate": "mixtura.cli.recalibrate:recalibrate",
    },
    "Data and features": {
        "extract": "mixtura.cli.extract:extract",
        "search": "mixtura.cli.search:search",
        "cluster": "mixtura.cli.cluster:cluster",
        "subclasses": "mixtura.cli.subclasses:subclasses",
        "fewshot": "mixtura.cli.fewshot:fewshot",
        "data list": "mixtura.cli.data:list_sets",
        "data get": "mixtura.cli.data:get",
        "data import": "mixtura.cli.data:import_features",
    },
    "First steps": {
        "demo": "mixtura.cli.demo:demo",
        "doctor": "mixtura.cli.doctor:doctor",
    },
}
"""Every command, by the title of its help panel."""

COMMANDS = {name: target for commands in PANELS.values() for name, target in commands.items()}


def main() -> None:
    """Run the command in ``sys.argv`` and exit with its code."""
    from mixtura.cli.app import run

    code = run(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # the reader has gone
            stream.flush()
    # Not sys.exit: with torch and pyarrow both loaded, stopping their threads sometimes aborts the process, and users
    # rely on the exit code.
    os._exit(code)
