"""Commands that refuse, before they run, what no option can mean: an empty word, a number that is not finite."""

import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from typer.core import TyperCommand

from mixtura.errors import UsageError

STANDARD_OUTPUT = "-"
OPTIONAL_FILE = "[FILE.csv]"
"""The metavar of an option whose file may be left out; it then stands for standard output."""


class CheckedCommand(TyperCommand):
    """A command whose values are checked as they were typed.

    An unset shell variable gives an empty word, which pathlib would read as the current folder; NaN and infinity pass
    every bound.
    """

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the words after the command.

        Raises:
            UsageError: a value is empty, or a number is not finite.
        """
        optional = {flag for one in self.params if one.metavar == OPTIONAL_FILE for flag in one.opts}
        words = list(_completed(args, optional))
        given, _, _ = self.make_parser(ctx).parse_args(args=list(words))
        for param in self.params:
            if any(isinstance(value, str) and not value.strip() for value in _values(given.get(str(param.name)))):
                raise UsageError(f"{_named(param)} is '', but it should not be empty. Is a shell variable not set?")
        rest = super().parse_args(ctx, words)
        for param in self.params:
            for value in _values(ctx.params.get(param.name)):
                if isinstance(value, float) and not math.isfinite(value):
                    raise UsageError(f"{_named(param)} is '{value}', but it should be a finite number.")
        return rest


def _completed(words: Sequence[str], optional: Iterable[str]) -> Iterator[str]:
    """Yield the words, with standard output for a file that was left out; a file is known by its ending."""
    for word, following in zip(words, [*words[1:], None], strict=False):
        if word == "--":
            optional = ()
        yield word
        if word in optional and not (following is not None and _is_file(following)):
            yield STANDARD_OUTPUT


def _is_file(word: str) -> bool:
    return not word.strip() or word.lower().endswith(".csv")


def _values(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else [value]


def _named(param: Any) -> str:
    return param.opts[0] if param.param_type_name == "option" else param.metavar or str(param.name).upper()
