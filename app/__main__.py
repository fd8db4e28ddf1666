"""python -m app: serve until told to stop, then drain."""

import sys

from app import logs
from app.api_keys import ApiKeysInvalid
from app.settings import Settings, SettingsError, read_settings
from models.errors import DeviceUnavailable, KeyFileInvalid


def main() -> int:
    """Serve; return the exit status."""
    logs.take_standard_streams()
    try:
        settings = read_settings(sys.argv[1:])
    except SettingsError as error:
        return _refuse(error)
    logs.configure(settings.log_format, settings.log_level)
    return _supervise(settings) if settings.workers > 1 else _serve(settings)


def _supervise(settings: Settings) -> int:
    from app.processes.supervisor import Supervisor, WorkersFailed

    try:
        return Supervisor(settings).run()
    except WorkersFailed as error:
        return _refuse(error)


def _serve(settings: Settings) -> int:
    # torch takes seconds to import, and a wrong setting should be told at once.
    from app.main import create_app
    from app.server import Server

    try:
        app = create_app(settings)
    except (DeviceUnavailable, ApiKeysInvalid, KeyFileInvalid) as error:
        return _refuse(error)
    return Server(app, settings).serve_until_stopped()


def _refuse(error: Exception) -> int:
    print(f"the service did not start: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main())
