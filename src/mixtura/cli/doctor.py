"""``mixtura doctor``: check that everything mixtura needs is installed and works."""

import typer

from mixtura.cli.output import Output


def doctor(out: Output) -> None:
    """Check this installation: versions, weights, disk, threads, and encoding of a test photo.

    Every line that is not ok says what to do. The exit code is 1 if something is broken. Include the output in bug
    reports.

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
