"""``mixtura doctor``: is everything that mixtura needs here and working?"""

import typer

from mixtura.cli.output import Output


def doctor(out: Output) -> None:
    """Check this installation: versions, weights, disk, threads, and a first photo encoded.

    Every line that is not ok says what to do. The exit code is 1 when something is broken; put the output into a
    report of a fault.

    Examples:
      mixtura doctor
      mixtura doctor --json | jq '.[] | select(.status != "ok")'
    """
    from mixtura.cli import views
    from mixtura.tasks.doctor import run

    checks = run()
    out.result(
        [check.to_dict() for check in checks],
        [f"{check.status}\t{check.name}\t{check.detail}" for check in checks],
        [views.checks_view(checks)],
    )
    if any(check.status == "broken" for check in checks):
        raise typer.Exit(1)
