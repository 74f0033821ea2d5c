"""Records of a few-shot evaluation: the accuracy of classifiers over the same episodes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

INDUCTIVE, TRANSDUCTIVE = "inductive", "transductive"


@dataclass(frozen=True)
class FewShotResult:
    """Accuracies of one classifier.

    ``mean`` and its 95% interval ``low`` to ``high`` are over the episodes, by Student's t, as shares within 0 and 1;
    NaN bounds for one episode. ``difference`` is the mean minus that of the first classifier on the same episodes, with
    half the length of its 95% interval in ``difference_half`` (NaN for the first). ``seconds`` is the time over all
    episodes, ``prepared`` that of what is done once before.
    """

    classifier: str
    accuracy: Float[np.ndarray, " E"]
    mean: float
    low: float
    high: float
    difference: float
    difference_half: float
    seconds: float
    prepared: float


@dataclass(frozen=True)
class FewShot:
    """A few-shot evaluation: E episodes, and the result of each classifier.

    ``way`` is the number of classes of each episode, ``shot`` and ``query`` are counts per class. ``classes`` and
    ``items`` count what episodes draw from, ``base`` the classes that classifiers may borrow from. ``facts`` say how it
    was made; ``notes`` are sentences to show. ``setting`` is ``inductive``, each query classified alone, or
    ``transductive``, all queries of an episode together.
    """

    protocol: str
    way: Int[np.ndarray, " E"]
    shot: int
    query: int
    seed: int
    classes: int
    items: int
    base: int
    results: tuple[FewShotResult, ...]
    facts: dict[str, Any]
    notes: tuple[str, ...] = ()
    setting: str = INDUCTIVE

    @property
    def named(self) -> str:
        """The protocol in words.

        >>> FewShot("nway", np.array([5, 5]), 1, 15, 0, 20, 900, 0, (), {}).named
        '5-way 1-shot'
        >>> FewShot("intra", np.array([4, 9]), 5, 15, 0, 20, 900, 0, (), {}).named
        'intra-superclass (4- to 9-way) 5-shot'
        """
        low, high = int(self.way.min()), int(self.way.max())
        way = f"{low}-way" if low == high else f"{low}- to {high}-way"
        words = {"allway": f"all-way ({way})", "intra": f"intra-superclass ({way})", "omniglot-runs": f"runs ({way})"}
        return f"{words.get(self.protocol, way)} {self.shot}-shot"
