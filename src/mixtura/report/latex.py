"""Write LaTeX: text with its special characters escaped, and tables in the style of booktabs."""

from collections.abc import Iterable, Sequence

SPECIAL = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    **{character: f"\\{character}" for character in "&%$#_{}"},
}
_ESCAPES = str.maketrans(SPECIAL)


def escaped(text: str) -> str:
    r"""Return text that LaTeX prints as it is.

    >>> escaped("own.heads:Ring_2, 95%")
    'own.heads:Ring\\_2, 95\\%'
    """
    return text.translate(_ESCAPES)


def tabular(alignment: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; cells are LaTeX already.

    Args:
        alignment: one letter for each column: l, r or c.
        head: the names of the columns.
        rows: one line of the table each.
    """
    lines = [f"\\begin{{tabular}}{{{alignment}}}", "\\toprule", _line(head), "\\midrule"]
    return "\n".join([*lines, *map(_line, rows), "\\bottomrule", "\\end{tabular}", ""])


def _line(cells: Sequence[str]) -> str:
    return f"{' & '.join(cells)} \\\\"
