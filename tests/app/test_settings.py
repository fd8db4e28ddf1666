import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from app.settings import Settings, SettingsError, environment_name, read_settings
from app.settings_table import settings_table
from tests.servers import ROOT


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("LANTERN_")]:
        monkeypatch.delenv(name)


def test_the_defaults_are_the_documented_contract() -> None:
    settings = read_settings([])
    assert (settings.host, settings.port, settings.models_dir) == ("127.0.0.1", 8000, Path("models/artifacts"))
    assert (settings.device, settings.queue_delay_ms) == ("auto", 0)


def test_the_command_line_wins_over_the_environment_and_that_over_the_default(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LANTERN_PORT", "9000")
    monkeypatch.setenv("LANTERN_MAX_ITEMS", "7")
    settings = read_settings(["--port", "9001"])
    assert (settings.port, settings.max_items) == (9001, 7)


def test_an_empty_variable_is_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANTERN_PORT", "")
    assert read_settings([]).port == 8000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PORT", "eighty"),
        ("PORT", "65536"),
        ("DEVICE", "tpu"),
        ("DEFAULT_IMAGE_MODEL", "Not A Name"),
        ("MAX_BATCH_SIZE", "0"),
        ("QUEUE_CAPACITY", "-1"),
        ("QUEUE_DELAY_MS", "fast"),
        ("REQUEST_TIMEOUT_S", "0"),
        ("MAX_BODY_BYTES", "1"),
        ("DRAIN_GRACE_S", "-1"),
        ("LOG_FORMAT", "xml"),
        ("LOG_LEVEL", "loud"),
        ("WORKERS", "0"),
        ("WORKERS", "65"),
    ],
)
def test_a_wrong_value_stops_the_start_with_the_settings_name(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(f"LANTERN_{name}", value)
    with pytest.raises(SettingsError, match=rf"LANTERN_{name} \(--{name.lower().replace('_', '-')}\)"):
        read_settings([])


def test_every_wrong_value_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANTERN_PORT", "x")
    monkeypatch.setenv("LANTERN_MAX_ITEMS", "x")
    with pytest.raises(SettingsError, match=r"(?s)LANTERN_PORT.*LANTERN_MAX_ITEMS"):
        read_settings([])


def test_a_misspelt_variable_stops_the_start_with_the_right_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANTERN_PROT", "9000")
    with pytest.raises(SettingsError, match="LANTERN_PROT is not a setting; did you mean LANTERN_PORT"):
        read_settings([])


def test_a_variable_like_no_setting_points_to_the_help(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANTERN_QQQQQQQQQQQQQQQQ", "1")
    with pytest.raises(SettingsError, match="--help"):
        read_settings([])


@pytest.mark.parametrize("name", ["LANTERN_SIGNING_KEY_FILE", "LANTERN_UID", "LANTERN_GID"])
def test_what_training_and_compose_are_told_in_the_same_shell_is_no_misspelling(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "1000")
    assert read_settings([]).port == 8000


def test_what_kubernetes_sets_for_a_service_named_lantern_is_no_misspelling(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT_8000_TCP", "PORT_8000_TCP_ADDR"):
        monkeypatch.setenv(f"LANTERN_{name}", "x")
    assert read_settings([]).port == 8000
    monkeypatch.setenv("LANTERN_PORT", "tcp://10.0.0.1:8000")
    with pytest.raises(SettingsError, match="enableServiceLinks: false"):
        read_settings([])


def test_a_request_must_fit_the_queue(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANTERN_QUEUE_CAPACITY", "8")
    with pytest.raises(SettingsError, match=r"MAX_ITEMS \(64\) is over QUEUE_CAPACITY \(8\)"):
        read_settings([])


def test_no_process_is_ended_that_is_merely_busy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANTERN_STALL_TIMEOUT_S", "1")
    with pytest.raises(SettingsError, match=r"STALL_TIMEOUT_S \(1\) is under 5"):
        read_settings([])
    monkeypatch.setenv("LANTERN_STALL_TIMEOUT_S", "0")
    assert read_settings([]).stall_timeout_s == 0


def test_a_body_must_fit_the_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANTERN_MAX_BUFFERED_BYTES", "4096")
    with pytest.raises(SettingsError, match=r"MAX_BODY_BYTES .* is over MAX_BUFFERED_BYTES \(4096\)"):
        read_settings([])


def test_a_body_must_fit_a_worker_process_s_share_of_the_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANTERN_WORKERS", "8")
    assert read_settings([]).workers == 8
    monkeypatch.setenv("LANTERN_WORKERS", "9")
    with pytest.raises(SettingsError, match=rf"MAX_BUFFERED_BYTES to at least {9 * 32 * 1024**2}, or have fewer"):
        read_settings([])


def test_a_rate_limit_has_to_hold_over_all_worker_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LANTERN_RATE_LIMIT_PER_S", "5")
    assert read_settings([]).rate_limit_per_s == 5
    monkeypatch.setenv("LANTERN_WORKERS", "2")
    with pytest.raises(SettingsError, match=r"RATE_LIMIT_PER_S with WORKERS=2: .* set WORKERS to 1"):
        read_settings([])


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Settings().port = 1  # type: ignore[misc]  # mypy knows it too


def run_app(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "app", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False
    )


def test_a_wrong_setting_ends_the_process_with_a_clear_line() -> None:
    finished = run_app(LANTERN_PORT="x")
    assert finished.returncode == 2
    assert "the service did not start: LANTERN_PORT" in finished.stderr
    assert "Traceback" not in finished.stderr


def test_a_device_that_is_not_there_ends_the_process_with_a_clear_line() -> None:
    finished = run_app("--device", "cuda:99")
    assert finished.returncode == 2
    assert "cuda:99: this machine has" in finished.stderr


def test_every_setting_is_in_the_help_and_in_the_docs() -> None:
    help_text = re.sub(r"\s+", " ", run_app("--help").stdout)
    docs = (ROOT / "docs/settings.md").read_text()
    for field in Settings.model_fields:
        assert f"--{field.replace('_', '-')}" in help_text
        assert f"`{environment_name(field)}`" in docs
    assert docs == settings_table(), "docs/settings.md is behind; its second line says how to write it anew"
