"""The end of a process that stands still, so that whoever started it starts it anew.

Some of torch's work keeps the interpreter to itself, loading a model above all. If that does not come back, no
other thread of Python ever runs again: no request is answered, no signal is heeded, and no other watch notices.

Source: faulthandler of the standard library, a thread of which waits without the interpreter.
"""

import faulthandler
import logging

logger = logging.getLogger(__name__)

STANDARD_ERROR = 2


class Watchdog:
    """Ends the process, with status 1, unless it is heard of in time. Used on the event loop only.

    It first writes to the standard error where each thread of Python stands.

    Args:
        longest_s: From one sign of life to the next, also while the process is stopped from outside; 0: for ever.
    """

    def __init__(self, longest_s: float) -> None:
        self._longest_s = longest_s
        self._has_failed = False

    def reassure(self) -> None:
        """Give a sign of life."""
        if not self._longest_s:
            return
        try:
            faulthandler.dump_traceback_later(self._longest_s, file=STANDARD_ERROR, exit=True)
        except (RuntimeError, MemoryError):
            # The system has no thread to give just now. Nobody is watched until it has.
            if not self._has_failed:
                logger.exception("whether the process stands still cannot be watched just now")
            self._has_failed = True
        else:
            self._has_failed = False

    def dismiss(self) -> None:
        """Watch no more."""
        if self._longest_s:
            faulthandler.cancel_dump_traceback_later()
