"""The model that is in the folder now: requests follow edits of other processes, refits and new folders."""

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from mixtura.catalog import Catalog
from mixtura.catalog.catalog import OtherEncoder
from mixtura.errors import MixturaError, UsageError
from mixtura.pipeline.factory import PhotoEncoder
from mixtura.tasks.predict import encoder_for
from mixtura.web.problems import busy

T = TypeVar("T")

FOLLOW_TRIES = 3  # of one piece of work, while models of other encoders come
RETRY_SECONDS = 5
UNUSABLE = "The model cannot be used at the moment. The operator finds the cause in the log."

log = logging.getLogger("mixtura.web")


@dataclass(frozen=True)
class Shop:
    """A catalog and the encoder that its model was made with."""

    catalog: Catalog
    encoder: PhotoEncoder


class LiveShop:
    """The shop that answers; :attr:`current` is replaced when a refit comes with another encoder."""

    def __init__(self, catalog: Catalog, encoder: PhotoEncoder) -> None:
        self.current = Shop(catalog, encoder)
        self._lock, self._logged = threading.Lock(), ""

    def follow(self) -> Shop:
        """The shop as it is in the folder now; call it before each piece of work.

        Raises:
            Refusal: 503 if the folder has gone, or what is in it cannot be served.
        """
        with self._lock:
            try:
                try:
                    self.current.catalog.refresh()
                except OtherEncoder:
                    catalog = Catalog.open(self.current.catalog.folder)
                    self.current = Shop(catalog, photo_encoder(catalog))
            except MixturaError as error:
                self._log(str(error))
                raise busy(UNUSABLE, RETRY_SECONDS) from error
            self._logged = ""
            return self.current

    def _log(self, cause: str) -> None:
        """Tell the operator, once for each cause: probes ask every few seconds."""
        if cause != self._logged:
            log.error("the model in %s cannot be used: %s", self.current.catalog.folder, cause)
        self._logged = cause

    def at_work(self, work: Callable[[Shop], T]) -> T:
        """The result of some work with the shop as it is now; begun again if another encoder comes meanwhile.

        Work must not change anything before its last call of the catalog.
        """
        for turn in range(FOLLOW_TRIES):
            try:
                return work(self.follow())
            except OtherEncoder as error:
                if turn == FOLLOW_TRIES - 1:
                    raise busy(UNUSABLE, RETRY_SECONDS) from error
        raise AssertionError("the last turn returns or raises")


def photo_encoder(catalog: Catalog) -> PhotoEncoder:
    """The encoder of a catalog of photos.

    Raises:
        DataError: the installed encoder is not the one that the model was made with.
        UsageError: it is a catalog of sounds.
    """
    encoder = encoder_for(catalog.model)
    if not isinstance(encoder, PhotoEncoder):
        folder: Path = catalog.folder
        raise UsageError(
            f"{folder} is a catalog of sounds, and only photos can be served. Use mixtura predict {folder} FILE."
        )
    return encoder
