"""Telling the observers of a workflow what has become durable."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..logs import fields, said

if TYPE_CHECKING:
    from ..observers import RunObserver
    from ..records import Record

logger = logging.getLogger("durable_flow")


class Observers:
    """The observers of a workflow. One that raises is logged once for each class of error, and told on."""

    def __init__(self, observers: Sequence[RunObserver]):
        self._observers = tuple(observers)
        self._logged: set[tuple[int, type[BaseException]]] = set()

    def tell(self, run_id: str, workflow: str, records: Sequence[Record]) -> None:
        """Tell of an append."""
        told = tuple(records)
        for place, observer in enumerate(self._observers):
            try:
                observer.appended(run_id, workflow, told)
            except (KeyboardInterrupt, SystemExit):
                raise
            except BaseException as error:  # CancelledError too: it has nothing to do with the run
                if (place, type(error)) not in self._logged:
                    self._logged.add((place, type(error)))
                    logger.error(
                        "observer %s failed, and is told on: %s; further errors of this class are not logged",
                        type(observer).__qualname__, said(error), extra=fields("observer_failed", run_id),
                    )  # fmt: skip
