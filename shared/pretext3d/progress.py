"""Progress bars: moving ones in a terminal, a line now and then in a log."""

import re
import time

from tqdm import tqdm

__all__ = ["LOG_INTERVAL", "Bar"]

LOG_INTERVAL = 30.0  # seconds between two lines, of whichever bars, where the output is no terminal


class Bar(tqdm):
    """`tqdm`, which in a log (nohup, a scheduler, CI) writes a line every 30 s at most, of all bars together.

    That line has the numbers without the bar. tqdm itself overwrites its line, of which a file keeps every
    version. A bar that has not advanced is not shown in a log.
    """

    disable: bool
    bar_format: str | None
    written = float("-inf")  # time of the last line in a log

    def in_log(self) -> bool:
        """Whether the output is no terminal."""
        return not getattr(self.fp, "isatty", bool)()

    def display(self, msg: str | None = None, pos: int | None = None) -> bool:
        """Show the bar, or in a log add a line where one is due."""
        if not self.in_log():
            return bool(super().display(msg, pos))
        now = time.monotonic()
        if msg is None and self.n > self.initial and now - Bar.written >= LOG_INTERVAL:
            Bar.written = now
            self.fp.write(f"{self.plain()}\n")
            self.fp.flush()
        return True

    def plain(self) -> str:
        """The bar's numbers without the bar: desc, percentage, steps, times and rate."""
        layout = (self.bar_format or "{l_bar}{r_bar}").replace("|{bar}", "|")
        text = self.format_meter(**{**self.format_dict, "bar_format": layout})
        return " ".join(re.sub(r"\|+", " ", text, count=1).split()).replace(" ,", ",")

    def close(self) -> None:
        """End the bar; in a log, with a last line where one is due."""
        if self.disable or not self.in_log():
            super().close()
            return
        if self.leave:
            self.display()
        self.disable = True
        self._decr_instances(self)

    def clear(self, nolock: bool = False) -> None:
        """Clear the bar's line in a terminal."""
        if not self.disable and not self.in_log():
            super().clear(nolock)
