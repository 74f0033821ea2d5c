"""Parse lists on the command line: values between commas, with dots for steps."""

import math

from mixtura.errors import UsageError


def names_in(text: str) -> list[str]:
    """Return the names between commas.

    >>> names_in("tied, full")
    ['tied', 'full']
    """
    names = [part.strip() for part in text.split(",")]
    if not all(names):
        raise UsageError(f"{text!r} holds an empty name. Write names between commas, as in tied,full.")
    return names


def numbers_in(text: str, flag: str, example: str = "1,2,...,10") -> list[float | int]:
    """Return the numbers between commas; ``...`` continues in the step of the two numbers before it.

    >>> numbers_in("5,10,...,25", "--n-components")
    [5, 10, 15, 20, 25]
    >>> numbers_in("0.1,0.2,...,0.5,1", "--explained-variance")
    [0.1, 0.2, 0.3, 0.4, 0.5, 1]

    Raises:
        UsageError: a part is not a number, or the dots have no step.
    """
    found: list[float | int] = []
    parts = [part.strip() for part in text.split(",")]
    for place, part in enumerate(parts):
        if part == "...":
            found += _between(found, parts[place + 1 :], f"{flag} {text!r}", example)
        else:
            found.append(_number(part, f"{flag} {text!r}", f"{flag} {example}"))
    return found


def _number(part: str, given: str, example: str) -> float | int:
    try:
        value = float(part)
    except ValueError:
        raise UsageError(f"{given}: {part!r} is not a number. Write for example {example}.") from None
    if not math.isfinite(value):
        raise UsageError(f"{given}: {part!r} is not a finite number. Write for example {example}.")
    return int(value) if value.is_integer() else value


def _between(found: list[float | int], rest: list[str], given: str, example: str) -> list[float | int]:
    """Return the numbers that the dots stand for."""
    step = found[-1] - found[-2] if len(found) > 1 else 0
    last = _number(rest[0], given, example) if rest else 0
    if step <= 0 or last <= found[-1] or (last - found[-1]) / step > 1000:
        raise UsageError(f"{given}: dots need two rising numbers before and the last one after, as in {example}.")
    # rounded: 0.2 + 0.1 must be 0.3
    return [round(found[-1] + step * i, 10) for i in range(1, round((last - found[-1]) / step))]
