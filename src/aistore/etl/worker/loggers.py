"""The state of the loggers, which a program can change, and how it is put back between two objects."""

import sys
from typing import Any, Dict, Iterable, List, Tuple

#: Handlers, level, whether it propagates, whether it is disabled, filters.
_State = Tuple[List[Any], int, bool, bool, List[Any]]

_WARNING = 30  # logging.WARNING, where logging may not be imported yet
_NEW: _State = ([], 0, True, False, [])
_NEW_ROOT: _State = ([], _WARNING, True, False, [])  # logging was first imported by the program


class Loggers:
    """A snapshot: of all loggers for a program that uses them, else of the root alone."""

    def __init__(self, used: bool) -> None:
        self._used = used
        logging = sys.modules.get("logging")
        self._before: Dict[Any, _State] = {}
        for logger in self._known(logging) if logging is not None else ():
            self._before[logger] = (
                list(logger.handlers), logger.level, logger.propagate, logger.disabled, list(logger.filters)
            )  # fmt: skip

    def _known(self, logging: Any) -> Iterable[Any]:
        if not self._used:
            return (logging.root,)
        loggers = logging.root.manager.loggerDict.values()
        return [logging.root, *(logger for logger in loggers if hasattr(logger, "handlers"))]

    def restore(self) -> None:
        """Put them back as they were; those that are new become as new ones are."""
        logging = sys.modules.get("logging")
        if logging is None:
            return
        for logger in self._known(logging):
            before = self._before.get(logger) or (_NEW_ROOT if logger is logging.root else _NEW)
            if (logger.handlers, logger.level, logger.propagate, logger.disabled, logger.filters) != before:
                _put_back(logger, before)
        if logging.root.manager.disable:
            logging.disable(logging.NOTSET)


def _put_back(logger: Any, before: _State) -> None:
    for handler in [handler for handler in logger.handlers if handler not in before[0]]:
        logger.removeHandler(handler)
        try:
            handler.close()
        except Exception:  # a handler of the program's own; its stream is closed anyway
            pass
    logger.handlers[:] = before[0]
    logger.setLevel(before[1])  # also drops the loggers' caches of what is enabled
    logger.propagate, logger.disabled = before[2], before[3]
    logger.filters[:] = before[4]
