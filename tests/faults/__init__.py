"""What must not bring the service down: short in every run of the tests, long with LANTERN_FAULTS=long."""

import os

LONG = os.environ.get("LANTERN_FAULTS") == "long"
