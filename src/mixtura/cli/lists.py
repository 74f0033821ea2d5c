"""Parse lists on the command line: values between commas, with dots for steps."""

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


def numbers_in(text: str, flag: str) -> list[float | int]:
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
            found += _between(found, parts[place + 1 :], text, flag)
        else:
            found.append(_number(part, text, flag))
    return found


def _number(part: str, text: str, flag: str) -> float | int:
    try:
        value = float(part)
    except ValueError:
        raise UsageError(f"{flag} {text!r}: {part!r} is not a number. Write for example {flag} 1,2,...,10.") from None
    return int(value) if value.is_integer() else value


def _between(found: list[float | int], rest: list[str], text: str, flag: str) -> list[float | int]:
    """Return the numbers that the dots stand for."""
    step = found[-1] - found[-2] if len(found) > 1 else 0
    last = _number(rest[0], text, flag) if rest else 0
    if step <= 0 or last <= found[-1] or (last - found[-1]) / step > 1000:
        raise UsageError(
            f"{flag} {text!r}: dots need two rising numbers before and the last one after, as in 1,2,...,10."
        )
    # rounded: 0.2 + 0.1 must be 0.3
    return [round(found[-1] + step * i, 10) for i in range(1, round((last - found[-1]) / step))]
