"""Bodies of the Open Inference Protocol, as they stand in the OpenAPI document."""

from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StrictBool,
    StrictInt,
    StrictStr,
    WithJsonSchema,
    field_validator,
)

# No model has more. A list that is too long is refused before anything in it is looked at.
MOST_TENSORS = 64
MOST_DIMENSIONS = 16
MOST_ID_CHARS = 4_096

Datatype = Literal[
    "BOOL",
    "UINT8",
    "UINT16",
    "UINT32",
    "UINT64",
    "INT8",
    "INT16",
    "INT32",
    "INT64",
    "FP16",
    "FP32",
    "FP64",
    "BYTES",
]
Parameters = Annotated[
    dict[str, Any],
    BeforeValidator(lambda given: {} if given is None else given),
    WithJsonSchema(
        {
            "anyOf": [{"type": "object", "additionalProperties": True}, {"type": "null"}],
            "description": "What this server does not know of them, it takes no notice of.",
        }
    ),
]
# Where an input's elements are: in one place or in the other.
ELEMENTS: dict[str, Any] = {
    "oneOf": [
        {"required": ["data"], "properties": {"data": {"type": "array"}}},
        {
            "required": ["parameters"],
            "properties": {
                "parameters": {
                    "type": "object",
                    "required": ["binary_data_size"],
                    "properties": {"binary_data_size": {"type": "integer", "minimum": 0}},
                }
            },
        },
    ]
}


class Part(BaseModel):
    """Open to unknown fields: the protocol has extensions."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class InputTensor(Part):
    """An input: its elements stand in `data`, or follow the JSON if its parameters have `binary_data_size`."""

    model_config = ConfigDict(json_schema_extra=ELEMENTS)

    name: StrictStr
    shape: Annotated[list[Annotated[StrictInt, Field(ge=0, lt=2**63)]], Field(max_length=MOST_DIMENSIONS)]
    datatype: Datatype
    parameters: Parameters = Field(default_factory=dict)
    data: list[Any] | None = Field(None, description="Flat, or nested as `shape` says; row-major.")


class WantedOutput(Part):
    """An output that is wanted.

    Of its parameters, `binary_data` has its elements follow the JSON, and `classification` (a number) turns the
    scores of a classifier into its best labels, each `SCORE:INDEX:LABEL`.
    """

    name: StrictStr
    parameters: Parameters = Field(default_factory=dict)


class InferRequest(Part):
    """What is asked.

    Of its parameters, `timeout` (microseconds) is the time to answer within, and `binary_data_output` has all
    outputs follow the JSON.
    """

    id: StrictStr | None = Field(None, max_length=MOST_ID_CHARS, description="Echoed.")
    parameters: Parameters = Field(default_factory=dict)
    inputs: Annotated[list[InputTensor], Field(min_length=1, max_length=MOST_TENSORS)]
    outputs: Annotated[list[WantedOutput], Field(max_length=MOST_TENSORS)] | None = Field(
        None, description="All, if left out."
    )


class OutputTensor(Part):
    """An output; its elements follow the JSON if its parameters have `binary_data_size`."""

    name: str
    shape: list[int]
    datatype: Datatype
    parameters: Parameters | None = None
    data: list[Any] | None = None


class InferReply(Part):
    """What the model gave."""

    model_name: str
    model_version: str
    id: str | None = None
    outputs: list[OutputTensor]


class TensorMetadata(Part):
    """An input or output of a model; -1 is a dimension that varies."""

    name: str
    datatype: Datatype
    shape: list[int]


class ModelMetadata(Part):
    """A model: an input may also be sent as BYTES, shape [N], as encoded images or UTF-8 texts."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ServerMetadata(Part):
    """The server, and which extensions of the protocol it has."""

    name: str
    version: str
    extensions: list[str]


class ServerLive(Part):
    """The process answers."""

    live: bool


class ServerReady(Part):
    """Traffic may come."""

    ready: bool


class ModelReady(Part):
    """The model is warm."""

    name: str
    ready: bool


class IndexRequest(Part):
    """Which models of the repository are asked about."""

    ready: StrictBool = Field(False, description="Only versions that are live.")


class LoadRequest(Part):
    """How a model is to be loaded; parameters are taken no notice of, but those that would change the model."""

    parameters: Parameters = Field(default_factory=dict)

    @field_validator("parameters")
    @classmethod
    def _check_unchanged(cls, parameters: dict[str, Any]) -> dict[str, Any]:
        foreign = [name for name in parameters if name == "config" or name.startswith("file:")]
        if foreign:
            raise ValueError(f"{foreign[0][:80]!r} is not taken: a model is what its bundle says")
        return parameters


class RepositoryModel(Part):
    """A version in the repository, or a model of which none is live."""

    name: str
    version: str = ""
    state: Literal["READY", "LOADING", "UNAVAILABLE"]
    reason: str = ""


class Failure(Part):
    """What is off, and what to do."""

    error: str
