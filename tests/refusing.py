"""`python -m app` with worker processes, of which the first that tries a certain version refuses it for good.

Run as `python -m tests.refusing` it is the supervisor, as `python -m tests.refusing CONTROL HANDOVER` a worker.
"""

import os
import sys
from typing import Any

from app.processes import child

# What such a version has in its manifest, as source.config.note.
REFUSE = "one refuses it"


def main() -> int:
    if len(sys.argv) == 1:
        from app.__main__ import main as supervise

        child.PROGRAM = "tests.refusing"
        return supervise()
    from app import service
    from app.inference import ModelUnusable, load
    from app.processes import worker_process
    from models.bundle import Bundle

    def load_or_refuse(bundle: Bundle, *rest: Any) -> Any:
        if bundle.manifest.source.config.get("note") == REFUSE:
            mark = bundle.directory.parent / f".refused-{bundle.manifest.version}"
            try:
                with mark.open("x") as file:  # Exactly one process gets to make it.
                    file.write(str(os.getpid()))
            except FileExistsError:
                pass
            if mark.read_text() == str(os.getpid()):
                raise ModelUnusable("refused on purpose")
        return load(bundle, *rest)

    vars(service)["load"] = load_or_refuse
    return worker_process.main()


if __name__ == "__main__":
    sys.exit(main())
