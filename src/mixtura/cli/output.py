"""Shared by all commands: --json, -q, -v and --debug, and printing of text, tables and JSON."""

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

from mixtura.names import printable

PIPED_WIDTH = 400
"""Columns of piped output: tables in a pipe are not wrapped, so grep sees whole lines."""

Json = Annotated[bool, typer.Option("--json", help="Print only JSON, for programs.", rich_help_panel="Output")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print the bare result only.", rich_help_panel="Output")]
Verbose = Annotated[
    bool, typer.Option("--verbose", "-v", help="Also print the libraries' log messages.", rich_help_panel="Output")
]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel="Output")]


@dataclass(frozen=True)
class Output:
    """The output format the user asked for; results go to stdout, everything else to stderr."""

    json: bool = False
    verbosity: int = 0
    debug: bool = False

    def result(self, record: Any, brief: Iterable[str], views: Iterable[RenderableType]) -> None:
        """Print a result once: as JSON, as plain lines (``-q``) or as tables and text.

        Plain lines are not escaped: a path must reach the shell unchanged.
        """
        if self.json:
            print(json.dumps(plain(record), indent=2, allow_nan=False))
        elif self.verbosity < 0:
            for line in brief:
                print(line)
        else:
            show(views)

    def note(self, text: str) -> None:
        """Print a note on stderr, except with ``--json`` or ``-q``."""
        if not self.json and self.verbosity >= 0:
            print(one_line(text), file=sys.stderr)

    @property
    def watched(self) -> bool:
        """Whether to show a progress bar: stderr is a terminal, and neither ``--json`` nor ``-q`` is given."""
        return not self.json and self.verbosity >= 0 and sys.stderr.isatty()


def show(views: Iterable[RenderableType]) -> None:
    """Print tables and text on stdout; in a pipe, without trailing blanks."""
    console = console_for(sys.stdout)
    with nullcontext() if sys.stdout.isatty() else console.capture() as capture:
        for view in views:
            console.print(view)
    if capture is not None:
        for line in capture.get().splitlines():
            print(line.rstrip())


def plain_table(names: Sequence[str], rows: Iterable[Sequence[str]] = (), right: int = 0) -> Table:
    """Return a table with a line below its header; the last ``right`` columns are numbers."""
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
    """Give the wrapper the name and help of a command, and the parameters that typer reads."""
    functools.update_wrapper(wrapper, function)
    wrapper.__annotations__ = {}  # typer would resolve the command's own, which name types that are not imported
    named = [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in parameters]
    setattr(wrapper, "__signature__", inspect.Signature(named))  # noqa: B010 - typer reads it; pyright knows no such attribute
    return wrapper


def console_for(stream: Any) -> Console:
    """Return a console as wide as the terminal, or :data:`PIPED_WIDTH` in a pipe; rich honors NO_COLOR."""
    return Console(file=stream, width=None if stream.isatty() else PIPED_WIDTH, highlight=False, soft_wrap=False)


def one_line(text: str) -> str:
    """Return the text on one line, with terminal control characters escaped.

    >>> one_line("a\\nb")
    'a b'
    """
    return printable(" ".join(text.splitlines()))


def shown(name: str) -> str:
    """Return a file name or label that is safe to print: one line, no control characters.

    >>> shown("photo\\n1.jpg")
    'photo\\\\n1.jpg'
    """
    return printable(name)


def plain(value: Any) -> Any:
    """Return the value in JSON types: paths become text, arrays lists, and non-finite numbers null.

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
    """Silence the libraries unless the user asks for their messages."""
    logging.basicConfig(level=level, stream=sys.stderr, format="%(levelname)s %(name)s: %(message)s")
    if level > logging.INFO and not sys.warnoptions:
        warnings.simplefilter("ignore")
