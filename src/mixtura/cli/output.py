"""What every command shares: --json, -q, -v and --debug, and how text, tables and JSON are printed."""

import functools
import inspect
import json
import logging
import math
import sys
import traceback
import warnings
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console, RenderableType
from rich.table import Table
from rich.text import Text

PIPED_WIDTH = 400
"""Columns when nobody watches: a table in a pipe is not folded, so that grep sees whole lines."""

Json = Annotated[
    bool, typer.Option("--json", help="Print JSON for programs and nothing else.", rich_help_panel="Output")
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print only the bare result.", rich_help_panel="Output")]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Also print what the libraries say.", rich_help_panel="Output")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel="Output")]


@dataclass(frozen=True)
class Output:
    """How the user wants to be answered; results go to stdout, everything else to stderr."""

    json: bool = False
    verbosity: int = 0
    debug: bool = False

    def result(self, record: Any, brief: Iterable[str], views: Iterable[RenderableType]) -> None:
        """Print a result once: as JSON, as bare lines (``-q``) or as tables and text.

        Bare lines are printed as they are: a path must reach the shell unchanged.
        """
        if self.json:
            print(json.dumps(plain(record), indent=2, allow_nan=False))
        elif self.verbosity < 0:
            for line in brief:
                print(line)
        else:
            show(views)

    def note(self, text: str) -> None:
        """Say something beside the result, unless asked to be quiet."""
        if not self.json and self.verbosity >= 0:
            print(one_line(text), file=sys.stderr)

    @property
    def watched(self) -> bool:
        """Whether a progress bar has a viewer."""
        return not self.json and self.verbosity >= 0 and sys.stderr.isatty()


def show(views: Iterable[RenderableType]) -> None:
    """Print tables and text on stdout; in a pipe, without the blanks that fill a table's lines."""
    console = console_for(sys.stdout)
    with nullcontext() if sys.stdout.isatty() else console.capture() as capture:
        for view in views:
            console.print(view)
    if capture is not None:
        for line in capture.get().splitlines():
            print(line.rstrip())


def plain_table(names: Sequence[str], rows: Iterable[Sequence[str]] = (), right: int = 0) -> Table:
    """A table with a line below its head; the last ``right`` columns hold numbers."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for place, name in enumerate(names):
        table.add_column(name, overflow="fold", justify="right" if place >= len(names) - right else "left")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def command(function: Callable[..., None]) -> Callable[..., None]:
    """The command with the shared options added; they make its first argument, ``out``."""

    def wrapper(*, json: bool, quiet: bool, verbose: bool, debug: bool, **options: Any) -> None:
        out = Output(json=json, verbosity=verbose - quiet, debug=debug)
        _set_logging(logging.DEBUG if debug else logging.INFO if verbose else logging.ERROR)
        try:
            function(out, **options)
        except Exception as error:
            if debug and not isinstance(error, typer.Exit):
                traceback.print_exc()
            raise

    shared = [("json", Json), ("quiet", Quiet), ("verbose", Verbose), ("debug", Debug)]
    own = list(inspect.signature(function).parameters.values())[1:]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=False, annotation=kind) for name, kind in shared
    ]
    return signed(wrapper, function, [*own, *added])


def signed(
    wrapper: Callable[..., None], function: Callable[..., None], parameters: Iterable[inspect.Parameter]
) -> Callable[..., None]:
    """The wrapper under the name and with the help of a command, and with the parameters that typer is to read."""
    functools.update_wrapper(wrapper, function)
    wrapper.__annotations__ = {}  # typer would resolve the command's own, which name types that are not imported
    named = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    setattr(wrapper, "__signature__", inspect.Signature(named))  # noqa: B010 - typer reads it; pyright knows no such attribute
    return wrapper


def console_for(stream: Any) -> Console:
    """A console as wide as the terminal, or wide open in a pipe; NO_COLOR is honored by rich."""
    return Console(file=stream, width=None if stream.isatty() else PIPED_WIDTH, highlight=False, soft_wrap=False)


def one_line(text: str) -> str:
    """The text on one line, with anything that could steer a terminal escaped.

    >>> one_line("a\\nb")
    'a b'
    """
    joined = " ".join(text.splitlines())
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in joined)


def shown(name: str) -> str:
    """A file name or label as it may be printed: one line, no control characters.

    >>> shown("photo\\n1.jpg")
    'photo\\\\n1.jpg'
    """
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in name)


def duration(seconds: float) -> str:
    """A time as people say it.

    >>> duration(0.42), duration(75.0), duration(7260.0)
    ('0.4 s', '1 min 15 s', '2 h 1 min')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def plain(value: Any) -> Any:
    """The value as JSON can hold it: paths are text, arrays lists, and a number that is not finite is null.

    >>> plain({"a": float("nan"), "b": (1, Path("x"))})
    {'a': None, 'b': [1, 'x']}
    """
    if isinstance(value, dict):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, str | bool | int | float):
        return value
    return plain(value.tolist())  # numpy arrays and scalars


def _set_logging(level: int) -> None:
    """Libraries talk only when the user asks them to."""
    logging.basicConfig(level=level, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    if level > logging.INFO and not sys.warnoptions:
        warnings.simplefilter("ignore")
