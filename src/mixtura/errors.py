"""Every error a user can meet, in one tree.

::

    MixturaError                      exit code 1
    ├── UsageError                    2   an option, name or recipe key that does not exist or does not fit
    │   ├── UnknownName               2   a name that is in no table; lists the nearest
    │   ├── WrongKind                 2   an object that is no encoder, data set or other part that was asked for
    │   ├── RecipeError               2   a recipe with an unknown, duplicate or ill-typed key
    │   └── MissingExtra              2   an optional dependency that is not installed; names the command
    ├── DataError                     65  input that cannot be used as it is
    │   ├── NonFinite                 65  NaN or infinity in features
    │   ├── WrongDimension            65  features of another width than the model's
    │   ├── LabelError                65  missing, extra or single labels
    │   ├── FingerprintMismatch       65  features of another encoder
    │   ├── CollapsedComponent        65  a component without enough points
    │   ├── BundleError               65  a model folder that is incomplete, altered or of another version
    │   ├── CheckpointError           65  a training run that cannot go on: damaged, of another recipe or version
    │   └── StoreError                65  a feature store that is damaged or of another layout
    ├── NoInput                       66  a file or folder that is missing, empty or unreadable
    │   └── BadItem                   66  one file that cannot be decoded safely; carries a reason code
    │       ├── BadImage              66  where a picture was asked for
    │       └── BadSound              66  where a sound was asked for
    ├── NoDensity                     69  a head that has no density was asked for one
    ├── CannotWrite                   73  the output exists, is not writable or is locked
    └── OutOfSpace                    74  the disk is full or failing; earlier results are intact

An interrupt ends with 130, a termination signal with 143. The numbers follow BSD ``sysexits``.
Each message says what is wrong, which value, and what to do.
"""

import signal

INTERNAL, NO_MEMORY, INTERRUPTED, BROKEN_PIPE, TERMINATED = 70, 71, 130, 141, 143
"""Exit codes of what is no :class:`MixturaError`."""


class MixturaError(Exception):
    """Base of all errors that mixtura raises on purpose."""

    exit_code = 1


class UsageError(MixturaError):
    """An option or argument that does not exist or does not fit."""

    exit_code = 2


class UnknownName(UsageError):
    """A name that is in no table."""


class WrongKind(UsageError, TypeError):
    """An object that is not what was asked for, such as a number in place of an encoder."""


class RecipeError(UsageError):
    """A recipe with an unknown, duplicate or ill-typed key."""


class MissingExtra(UsageError):
    """An optional dependency that is not installed."""


class DataError(MixturaError, ValueError):
    """Input that cannot be used as it is."""

    exit_code = 65


class NonFinite(DataError):
    """NaN or infinity where numbers are needed."""


class WrongDimension(DataError):
    """Features of another width than expected."""


class LabelError(DataError):
    """Labels that are missing, too many or all the same."""


class FingerprintMismatch(DataError):
    """Features that another encoder, or another preprocessing, has made."""


class CollapsedComponent(DataError):
    """A component that holds too few points to have a spread.

    ``problem`` is the message without its advice, which each estimator gives in the names of its own parameters.
    """

    def __init__(self, problem: str, advice: str = "") -> None:
        super().__init__(f"{problem} {advice}".rstrip())
        self.problem = problem


class BundleError(DataError):
    """A model folder that is incomplete, altered or of another version."""


class CheckpointError(DataError):
    """A training run that cannot go on: its checkpoints are damaged, or of another recipe, data set or version."""


class StoreError(DataError):
    """A feature store that is damaged or of another layout."""


class NoInput(MixturaError):
    """A file or folder that is missing, empty or unreadable."""

    exit_code = 66


class BadItem(NoInput):
    """One file that cannot be decoded safely; ``reason`` is a code that its subclass lists."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class BadImage(BadItem):
    """One image that cannot be decoded safely.

    ``reason`` is one of ``not_an_image``, ``truncated``, ``too_large``, ``empty``, ``not_a_file``,
    ``unreadable``, ``format_not_allowed``.
    """


class BadSound(BadItem):
    """One sound that cannot be decoded safely.

    ``reason`` is one of ``not_a_sound``, ``truncated``, ``too_large``, ``empty``, ``not_a_file``, ``unreadable``,
    ``format_not_allowed``, ``not_finite``.
    """


class NoDensity(MixturaError):
    """A head without a density was asked for one."""

    exit_code = 69


class CannotWrite(MixturaError):
    """The output exists, is not writable or is locked."""

    exit_code = 73


class OutOfSpace(MixturaError):
    """The disk is full or failing."""

    exit_code = 74


class Terminated(KeyboardInterrupt):
    """A termination signal; unwinds like Ctrl-C."""


def was_terminated(stop: KeyboardInterrupt) -> bool:
    """Whether a termination signal has stopped the program, and not Ctrl-C."""
    return isinstance(stop, Terminated) or signal.SIGTERM in stop.args
