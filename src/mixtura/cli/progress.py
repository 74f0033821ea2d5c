"""Progress on stderr: items, items per second, time left. A bar on a terminal, elsewhere one plain line a minute."""

import math
import sys
import time
from types import TracebackType
from typing import Any

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.text import Text

from mixtura.cli.output import Output, console_for, one_line
from mixtura.formats import duration

SECONDS_BETWEEN_LINES = 60.0


class Bar:
    """Call it with progress records: ``done`` of ``total`` items, ``rate`` in items/s, ``remaining`` in seconds.

    A record's ``message``, if any, is printed on its own line, with or without a terminal. ``next`` names the step
    after the last item, so a long fit does not look like a hang.
    """

    def __init__(self, out: Output, next: str = "", doing: str = "Reading") -> None:
        self._out, self._doing, self._next = out, doing, next or doing
        pace = TextColumn("[dim]{task.fields[pace]}")
        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), pace)
        self._bars = Progress(*columns, console=console_for(sys.stderr), transient=True, disable=not out.watched)
        self._row: TaskID | None = None
        self._printed = time.monotonic()

    def __enter__(self) -> "Bar":
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def __call__(self, progress: Any) -> None:
        """Update the bar, and print what the record has to say."""
        self._say(getattr(progress, "message", ""))
        if self._row is None:
            self._row = self._bars.add_task(self._doing, total=progress.total, pace="")
        left = f", {duration(progress.remaining)} left" if math.isfinite(progress.remaining) else ""
        pace = f"{progress.rate:.{0 if progress.rate >= 10 else 1}f}/s{left}"
        now = getattr(progress, "doing", self._doing) if progress.done < progress.total else self._next
        if not self._out.watched and time.monotonic() - self._printed >= SECONDS_BETWEEN_LINES:
            self._printed = time.monotonic()
            self._out.note(f"{now}: {progress.done} of {progress.total}, {pace}")
        self._bars.update(self._row, description=now, completed=progress.done, total=progress.total, pace=pace)

    def _say(self, message: str) -> None:
        if message and self._out.watched:
            self._bars.console.print(Text(one_line(message)))
        elif message:
            self._out.note(message)
