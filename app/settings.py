"""Every knob of the service: typed, frozen, its unit in its name, read once.

The command line wins over the environment (prefix `LANTERN_`), which wins over the default here.
"""

import difflib
import os
import re
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, CliApp, SettingsConfigDict

from app.version_policy import VersionPolicy
from models.manifest import ModelName
from models.operators import parse_operators
from models.repository import DEFAULT_ROOT
from models.signing_key import SIGNING_KEY_VARIABLE

PREFIX = "LANTERN_"
Precision = Literal["auto", "fp32", "bf16", "int8"]
LEAST_STALL_S = 5
# The training's and the compose file's own: who trains, composes and serves from one shell has them there.
OF_OTHERS = frozenset({SIGNING_KEY_VARIABLE, "LANTERN_UID", "LANTERN_GID"})
# What Kubernetes puts into every container's environment for a Service named `lantern`.
SERVICE_LINK = re.compile(PREFIX + r"(SERVICE_HOST|SERVICE_PORT|PORT_[0-9]+_)")


class SettingsError(Exception):
    """A setting is wrong; the message has a line for each, with its name."""


class Settings(BaseSettings):
    """Serve the published models over HTTP."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_ignore_empty=True,
        frozen=True,
        cli_prog_name="python -m app",
        cli_kebab_case=True,
        cli_hide_none_type=True,
    )

    host: str = Field("127.0.0.1", min_length=1, description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    models_dir: Path = Field(DEFAULT_ROOT, description="Model repository.")
    device: str = Field(
        "auto",
        pattern=r"^(auto|cpu|cuda(:[0-9]{1,3})?)$",
        description="auto, cpu, cuda or cuda:N; auto takes CUDA if any. Of several worker processes each takes "
        "the next GPU, unless one is named.",
    )
    precision: Precision = Field(
        "auto",
        description="Number format of the models: auto takes each one's fastest that was measured to be accurate "
        "enough; another is taken where a model has it and the machine is made for it, and else fp32.",
    )
    default_image_model: ModelName | None = Field(
        None,
        description="Model for images when a request names none; else defaults.json's, else the only one.",
    )
    default_text_model: ModelName | None = Field(
        None,
        description="Model for texts when a request names none; else defaults.json's, else the only one.",
    )

    versions: str = Field(
        "current",
        description="Versions of each model that are live besides the current one, with commas between them: "
        "latest:N, the newest N that are published; NAME/VERSION, pinned; current, none.",
    )

    allow_operators: str | None = Field(
        None,
        description="Operators of torch that models may use besides those that only compute, with commas between "
        "them, as aten::save; `models/operators.py` lists the others. Only for models whose makers you trust.",
    )

    max_batch_size: int = Field(64, ge=1, le=4096, description="Most items in a batch; a model may allow fewer.")
    queue_capacity: int = Field(
        1024,
        ge=1,
        le=1_000_000,
        description="Most items admitted and unanswered, for each live version in each worker process.",
    )
    queue_delay_ms: float = Field(
        0,
        ge=0,
        le=10_000,
        description="How long an idle worker waits for a batch to fill; 0 takes what is there.",
    )
    request_timeout_s: float = Field(
        30, gt=0, le=3600, description="Time a request has; X-Request-Timeout-Ms may ask for less."
    )
    hang_timeout_s: float = Field(
        60,
        ge=0,
        le=86_400,
        description="A batch that takes longer is given up, its thread replaced and its model loaded anew; "
        "0: never.",
    )
    load_timeout_s: float = Field(
        1_800,
        ge=0,
        le=86_400,
        description="A version that takes longer to verify, load and warm up is refused; 0: none is.",
    )
    stall_timeout_s: float = Field(
        120,
        ge=0,
        le=86_400,
        description="A process that stands still for longer, as where a model keeps the interpreter to itself or "
        "it is stopped from outside, exits with status 1, to be started anew; 5 at least, or 0: never.",
    )
    max_body_bytes: int = Field(32 * 1024**2, ge=1024, description="Largest request body.")
    max_buffered_bytes: int = Field(
        256 * 1024**2,
        ge=1024,
        description="Most bytes of request bodies held at a time, of all requests together; worker processes "
        "have equal shares.",
    )
    max_image_pixels: int = Field(
        64_000_000, ge=1, description="Most pixels of an image, width times height; a model may allow fewer."
    )
    max_text_chars: int = Field(100_000, ge=1, description="Longest text, in characters.")
    max_items: int = Field(64, ge=1, description="Most items in a request; at most QUEUE_CAPACITY.")
    cpu_threads: int = Field(
        0,
        ge=0,
        le=256,
        description="Threads that decode and infer, in each worker process; 0: one for each CPU that may be used, "
        "shared out among the worker processes.",
    )
    max_memory_bytes: int = Field(
        0,
        ge=0,
        description="Physical memory that a process may hold: over it, it answers what it has and leaves, to be "
        "started anew, since a model may leak. Leave room for two versions of each model. 0: no bound.",
    )
    workers: int = Field(
        1,
        ge=1,
        le=64,
        description="Worker processes that serve, each with its own copy of the models; 1: no other process.",
    )

    api_keys_file: Path | None = Field(
        None,
        description="File of API keys that `python -m app.new_key` writes; read again when it changes. "
        "Unset: anyone may ask.",
    )
    admin_keys_file: Path | None = Field(
        None,
        description="File of keys of those who may load, unload, try, promote and roll back models over HTTP. "
        "Unset: nobody may.",
    )
    trusted_keys_file: Path | None = Field(
        None,
        description="File of public keys in PEM, one after the other, as `python -m training keygen` makes them. "
        "A version that none of them signed is refused; the file is read each time one is verified. "
        "Unset: signatures are not looked at.",
    )
    feedback_file: Path | None = Field(
        None,
        description="SQLite file in which POST /feedback stores corrections; `python -m training ... --feedback` "
        "learns from them. Unset: there is no such route.",
    )
    feedback_max_bytes: int = Field(
        1024**3, ge=65_536, description="Most bytes that file may grow to; then corrections are refused."
    )
    rate_limit_per_s: float = Field(
        0,
        ge=0,
        le=1_000_000,
        description="Requests a second that a client, by its key or else its address, may make on average; "
        "0: no limit.",
    )
    rate_limit_burst: int = Field(
        20, ge=1, le=1_000_000, description="Requests that a client may make at once, above the average."
    )

    drain_grace_s: float = Field(
        5,
        ge=0,
        le=3600,
        description="After SIGTERM: unready but still serving, for load balancers to notice.",
    )
    drain_timeout_s: float = Field(
        30, ge=0, le=3600, description="After the grace: longest wait for admitted requests, then exit."
    )
    reload_interval_s: float = Field(
        2, ge=0, le=86_400, description="How often new versions and API keys are looked for; 0: never again."
    )

    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="auto: text on a terminal, else a JSON object a line."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Least level logged.")

    @field_validator("versions")
    @classmethod
    def _names_versions(cls, text: str) -> str:
        VersionPolicy.parse(text)
        return text

    @field_validator("allow_operators")
    @classmethod
    def _names_operators(cls, text: str | None) -> str | None:
        parse_operators(text or "")
        return text

    @model_validator(mode="after")
    def _limits_fit_each_other(self) -> "Settings":
        if self.rate_limit_per_s and self.workers > 1:
            raise ValueError(
                f"RATE_LIMIT_PER_S with WORKERS={self.workers}: each worker process would count for itself, and "
                "allow a client more; set WORKERS to 1, or set no limit here and one in what stands in front"
            )
        if 0 < self.stall_timeout_s < LEAST_STALL_S:
            raise ValueError(
                f"STALL_TIMEOUT_S ({self.stall_timeout_s:g}) is under {LEAST_STALL_S}: a process that is merely "
                "busy would be ended; 0 never ends one"
            )
        if self.max_body_bytes > self.max_buffered_bytes:
            raise ValueError(
                f"MAX_BODY_BYTES ({self.max_body_bytes}) is over MAX_BUFFERED_BYTES ({self.max_buffered_bytes}): "
                "such a body could never be read"
            )
        if self.max_body_bytes > self.max_buffered_bytes // self.workers:
            raise ValueError(
                f"MAX_BODY_BYTES ({self.max_body_bytes}) is over a worker process's share of MAX_BUFFERED_BYTES "
                f"({self.max_buffered_bytes} / {self.workers}): raise MAX_BUFFERED_BYTES to at least "
                f"{self.max_body_bytes * self.workers}, or have fewer WORKERS"
            )
        if self.max_items > self.queue_capacity:
            raise ValueError(
                f"MAX_ITEMS ({self.max_items}) is over QUEUE_CAPACITY ({self.queue_capacity}): "
                "such a request could never be admitted"
            )
        return self


def read_settings(arguments: list[str]) -> Settings:
    """Read the settings from the command line and the environment.

    Raises:
        SettingsError: A value is wrong, or the environment has a LANTERN_ name that is none.
    """
    _refuse_unknown(list(os.environ))
    try:
        return CliApp.run(Settings, cli_args=arguments)
    except ValidationError as error:
        raise SettingsError("\n".join(_explain(problem) for problem in error.errors())) from None


def environment_name(field: str) -> str:
    """The environment variable of a setting."""
    return PREFIX + field.upper()


def _explain(problem: ErrorDetails) -> str:
    field = "_".join(str(step) for step in problem["loc"])
    if not field:
        return str(problem["msg"])
    line = f"{environment_name(field)} (--{field.replace('_', '-')}): {problem['msg']}, got {problem['input']!r}"
    if str(problem["input"]).startswith("tcp://"):
        line += "; Kubernetes sets it for a Service named lantern: set enableServiceLinks: false"
    return line


def _refuse_unknown(names: list[str]) -> None:
    known = [environment_name(field) for field in Settings.model_fields]
    for name in names:
        if name.startswith(PREFIX) and name not in {*known, *OF_OTHERS} and not SERVICE_LINK.match(name):
            near = difflib.get_close_matches(name, known, n=1)
            hint = f"; did you mean {near[0]}?" if near else "; python -m app --help lists them"
            raise SettingsError(f"{name} is not a setting{hint}")
