"""Who serves a model."""

from dataclasses import dataclass

from app.workers import Workers


@dataclass(frozen=True)
class Crew:
    """The threads that serve a model: those that decode, and those that run its batches; they may be the same."""

    decoders: Workers
    runners: Workers

    def wait_s(self, now_s: float, *, light: bool) -> float:
        """Seconds until what is admitted now is expected to be begun, after everything that is ahead of it.

        Args:
            now_s: On the workers' clock.
            light: It takes next to no time.
        """
        ahead_s = self.decoders.wait_s(now_s, light=light)
        return ahead_s if self.runners is self.decoders else ahead_s + self.runners.wait_s(now_s, light=light)

    def close(self) -> None:
        """Stop the threads that are this model's own."""
        if self.runners is not self.decoders:
            self.runners.close()
