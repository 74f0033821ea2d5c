"""Run a command line: parse it, call the command, and report any error in one sentence with an exit code."""

import errno
import inspect
import io
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Annotated

import typer
import typer.main
from rich.markup import escape

from mixtura import __version__
from mixtura.cli import PANELS
from mixtura.cli.checked import CheckedCommand
from mixtura.cli.old_options import renamed
from mixtura.cli.output import command, one_line
from mixtura.errors import (
    BROKEN_PIPE,
    INTERNAL,
    INTERRUPTED,
    NO_MEMORY,
    TERMINATED,
    CannotWrite,
    MixturaError,
    NoInput,
    OutOfSpace,
    Terminated,
    was_terminated,
)
from mixtura.files import NO_SUCH_FILE
from mixtura.formats import plain_words
from mixtura.names import find

ABOUT = """Classify photos, reject what you have never seen at an error rate you choose, and explain every answer.

mixtura learns from one folder of photos per class. Each answer has a probability (which class, if it is a known one) \
and a typicality (is it a known class at all). Photos unlike anything it has learned are reported as unknown."""

EXAMPLES = """[bold]Examples[/bold]

  mixtura demo                          try it without photos of your own
  mixtura fit photos/ -o shop           learn photos/apple/, photos/pear/
  mixtura predict shop new.jpg          classify a photo, or reject it
  mixtura predict shop inbox/ --json    the same as JSON
  mixtura report shop                   write the report page again

Every command has its own help: [bold]mixtura fit --help[/bold]"""

ERRNO = {
    errno.ENOSPC: OutOfSpace,
    errno.EDQUOT: OutOfSpace,
    errno.EIO: OutOfSpace,
    errno.EACCES: CannotWrite,
    errno.EPERM: CannotWrite,
    errno.EROFS: CannotWrite,
    **dict.fromkeys(NO_SUCH_FILE, NoInput),
}
"""Maps errors of the operating system to errors of mixtura."""


NO_MEMORY_WORDS = re.compile(r"out of memory|can't allocate memory|std::bad_alloc")
"""What libraries say when memory runs out, in errors of several types."""


def run(arguments: Sequence[str]) -> int:
    """Run one command line and return its exit code; errors go to stderr as one sentence."""
    _open_closed_streams()
    _print_any_name()
    with _termination():
        try:
            code = _invoke(list(arguments) or ["--help"])
            sys.stdout.flush()
            return code
        except KeyboardInterrupt as stop:
            word, code = ("terminated", TERMINATED) if was_terminated(stop) else ("interrupted", INTERRUPTED)
            return _fail(f"{word}; finished work is kept. Run the same command again to continue.", code)
        except BrokenPipeError:
            # The reader of our output has gone (head, less); the rest of the buffer must not be flushed to it.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return BROKEN_PIPE
        except MixturaError as error:
            return _fail(str(error), error.exit_code)
        except OSError as error:
            return _system_error(error)
        except Exception as error:
            return _internal_error(error)


def build() -> typer.Typer:
    """Return the command line as a typer application."""
    app = _group("mixtura", EXAMPLES)
    app.callback(help=ABOUT)(_root)
    groups: dict[str, typer.Typer] = {}
    for panel, commands in PANELS.items():
        for name in commands:
            function = find(commands, name)
            group, _, verb = name.rpartition(" ")
            if group and group not in groups:
                groups[group] = _group(group, None)
                about = sys.modules[function.__module__].__doc__
                app.add_typer(groups[group], name=group, help=about, rich_help_panel=panel)
            target = groups[group] if group else app
            about, examples = _help_of(function)
            title = None if group else panel
            made = target.command(verb, cls=CheckedCommand, help=about, epilog=examples, rich_help_panel=title)
            made(command(function))
    return app


def _help_of(function: Callable[..., None]) -> tuple[str, str | None]:
    """Return the help text and the docstring's ``Examples:``."""
    about, _, examples = (inspect.getdoc(function) or "").partition("\n\nExamples:\n")
    paragraphs = [" ".join(paragraph.split("\n")) for paragraph in about.split("\n\n")]
    # The leading line break keeps the indentation of the lines below.
    return escape("\n\n".join(paragraphs)), f"\n[bold]Examples[/bold]\n\n{escape(examples)}" if examples else None


def _group(name: str, epilog: str | None) -> typer.Typer:
    return typer.Typer(
        name=name,
        epilog=epilog,
        add_completion=False,
        no_args_is_help=name != "mixtura",
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )


def _show_version(wanted: bool) -> bool:
    if wanted:
        print(f"mixtura {__version__}")
        raise typer.Exit
    return wanted


def _root(
    version: Annotated[
        bool, typer.Option("--version", "-V", help="Print the version.", is_eager=True, callback=_show_version)
    ] = False,
) -> None:
    """Do nothing: the program needs a command. The help text is :data:`ABOUT`."""


def _invoke(arguments: list[str]) -> int:
    # We enter the context here because typer's own main would swallow the signals and exit by itself.
    group = typer.main.get_command(build())
    try:
        with group.make_context("mixtura", arguments) as context:
            group.invoke(context)
    except typer.Exit as stop:
        return stop.exit_code
    except typer.TyperException as error:
        context = getattr(error, "ctx", None)
        path = context.command_path if context else "mixtura"
        said = _renamed(error, arguments) or _ill_typed(error, arguments) or _usage_sentence(error)
        return _fail(f"{said} Try '{path} --help'.", error.exit_code) if said else error.exit_code
    return 0


def _renamed(error: typer.TyperException, arguments: Sequence[str]) -> str:
    """Return the replacement for a renamed option, or an empty string if it was not renamed."""
    flag, context = getattr(error, "option_name", None), getattr(error, "ctx", None)
    if flag is None or context is None:
        return ""
    text = _value_of([flag], arguments)
    said = renamed(str(context.info_name), flag, None if text is None or text.startswith("-") else text)
    return f"There is no option {flag} any more. {said}" if said else ""


def _value_of(flags: Sequence[str], arguments: Sequence[str]) -> str | None:
    """Return the last value that was given to an option, under one of its names."""
    found = None
    for word, following in zip(arguments, [*arguments[1:], None], strict=True):
        name, equals, value = word.partition("=")
        if name in flags:
            found = value if equals else following
    return found


def _ill_typed(error: typer.TyperException, arguments: Sequence[str]) -> str:
    """Return what is wrong with the value of an option, with both; an empty string if something else is wrong."""
    said = plain_words(getattr(error, "message", ""))
    flags = getattr(getattr(error, "param", None), "opts", [])
    value = _value_of(flags, arguments)
    if value is None or not said.startswith("should"):
        return ""
    return f"{flags[0]} is {value!r}, but it {said.rstrip('.')}."


def _usage_sentence(error: typer.TyperException) -> str:
    close = getattr(error, "possibilities", None)
    said = f"{error.message}. Did you mean {' or '.join(close)}?" if close else error.format_message().strip()
    if not said:  # a bare group has printed its help
        return ""
    return said.replace("?.", "?") if said[-1] in ".?" else f"{said}."


def _fail(sentence: str, code: int) -> int:
    print(f"mixtura: {one_line(sentence)}", file=sys.stderr)
    return code


def _system_error(error: OSError) -> int:
    kind = ERRNO.get(error.errno or 0)
    if kind is None:
        return _internal_error(error)
    name = f" {str(error.filename)!r}" if error.filename else ""
    checks = "the path and the free space" if kind is OutOfSpace else "the path and its permissions"
    return _fail(f"{error.strerror}{name}. Check {checks}.", kind.exit_code)


def _internal_error(error: Exception) -> int:
    if isinstance(error, MemoryError) or NO_MEMORY_WORDS.search(str(error)):
        return _fail(
            "There is not enough memory for this. Use smaller numbers (--size, --batch-size, --n-components, --jobs), "
            "or less data.",
            NO_MEMORY,
        )
    fault = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return _fail(f"This is a fault in mixtura ({fault}). Run again with --debug and report what it prints.", INTERNAL)


def _open_closed_streams() -> None:
    """Connect standard streams that were closed (``>&-``, some services) to the null device.

    Without a stream, printing fails; with a free number below 3, the next file would get it, and what libraries print
    would be written into that file.
    """
    for number, name in enumerate(("stdin", "stdout", "stderr")):
        try:
            os.fstat(number)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest free number, which is this one
            if opened != number:
                os.dup2(opened, number)
                os.close(opened)
        if getattr(sys, name) is None:
            setattr(sys, name, open(number, "r" if number == 0 else "w", closefd=False))  # noqa: SIM115


def _print_any_name() -> None:
    """Escape bytes in file names that are not text, so that printing never fails."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


@contextmanager
def _termination() -> Iterator[None]:
    """Let SIGTERM unwind like Ctrl-C, so finished work is committed."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Terminated(signal.Signals(number))

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # only the main thread may set signal handlers
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
