"""The command line: one file a command; each parses, calls one task and prints.

Nothing here imports torch before a task runs, so that ``--help`` answers at once.
"""

import contextlib
import os
import sys

PANELS = {
    "Make and use a model": {
        "fit": "mixtura.cli.fit:fit",
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
    "Look after a catalog": {
        "inspect": "mixtura.cli.inspect:inspect",
        "drift": "mixtura.cli.drift:drift",
        "discover": "mixtura.cli.discover:discover",
        "recalibrate": "mixtura.cli.recalibrate:recalibrate",
    },
    "Data and features": {
        "extract": "mixtura.cli.extract:extract",
        "search": "mixtura.cli.search:search",
        "cluster": "mixtura.cli.cluster:cluster",
        "data list": "mixtura.cli.data:list_sets",
        "data get": "mixtura.cli.data:get",
        "data import": "mixtura.cli.data:import_features",
    },
    "First steps": {
        "demo": "mixtura.cli.demo:demo",
        "doctor": "mixtura.cli.doctor:doctor",
    },
}
"""Every command under the title of its panel in the help."""

COMMANDS = {name: target for commands in PANELS.values() for name, target in commands.items()}


def main() -> None:
    """Run the command that ``sys.argv`` names and exit with its code."""
    from mixtura.cli.app import run

    code = run(sys.argv[1:])
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # whoever listened has left
            stream.flush()
    # Not sys.exit: where torch and pyarrow are both loaded, taking their threads down ends some runs in an abort, and
    # the exit code is a promise.
    os._exit(code)
