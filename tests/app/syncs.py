"""What a process that a test starts brings to the disk: syncs.c, preloaded."""

from pathlib import Path

from tests.preloading import built

SOURCE = Path(__file__).with_name("syncs.c")


class Syncs:
    """The syncs of whoever is started through it.

    Args:
        directory: For what is made on the way.
    """

    def __init__(self, directory: Path) -> None:
        self._notes = directory / "syncs"
        self._notes.touch()
        self.through = ("env", f"LD_PRELOAD={built(SOURCE, directory)}", f"SYNCS_FILE={self._notes}")

    def of(self, *files: Path) -> int:
        """How often any of these files was synced so far."""
        names = {str(file.resolve()) for file in files}
        return sum(line in names for line in self._notes.read_text().splitlines())
