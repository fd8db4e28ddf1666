"""Bodies of requests and replies, as they stand in the OpenAPI document."""

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StrictFloat, StrictInt, model_validator

from models.accuracy import Accuracy
from models.versions import VersionName

# A PNG of one grey pixel, for documentation: who sends an example gets an answer.
EXAMPLE_IMAGE = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGM4AQAAygDJmcpdfgAAAABJRU5ErkJggg=="


class Body(BaseModel):
    """Closed to unknown fields, so that a misspelt one is an error and not a silent default."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class JsonRequest(Body):
    """The JSON form of a prediction request; each instance is checked on its own."""

    instances: Annotated[
        list[Any],
        Field(min_length=1, description='Each `{"image": "<base64>"}` or `{"text": "..."}`.'),
    ]
    model: str | None = Field(None, description="Model to ask; the default one for the input if left out.")
    top_k: StrictInt | None = Field(None, ge=1, description="Number of labels in `top`.")


class ImageInstance(Body):
    """An image in a JSON request."""

    image: str = Field(description="The image file, base64; a `data:` URL is taken too.")


class TextInstance(Body):
    """A text in a JSON request."""

    text: str = Field(description="One text.")


class ScoredLabel(Body):
    """A label and its calibrated probability."""

    label: str
    score: float = Field(ge=0, le=1)


class Prediction(ScoredLabel):
    """What an item shows: the best label, and the best few."""

    top: list[ScoredLabel]


class ScoredText(Body):
    """A text that the model wrote; of the best, the score says how likely it is one of those that were wanted."""

    text: str
    score: float = Field(ge=0, le=1)


class WrittenText(ScoredText):
    """What the model writes for an item: the best text, and the best few."""

    top: list[ScoredText]


class ItemError(Body):
    """Why one item of a request has no prediction."""

    code: str
    detail: str


class FailedItem(Body):
    """Stands in the place of an item that could not be predicted."""

    error: ItemError


class TimingMs(Body):
    """Milliseconds that a request took, each that of its slowest item."""

    decode: float
    queue: float
    inference: float
    total: float


class PredictReply(Body):
    """Predictions, in the order of the request's items."""

    model_config = ConfigDict(
        json_schema_extra={
            "example": {
                "model": "fashion",
                "version": "20261123.1",
                "request_id": "5f0c1e7a",
                "predictions": [
                    {
                        "label": "Sneaker",
                        "score": 0.971,
                        "top": [{"label": "Sneaker", "score": 0.971}, {"label": "Ankle boot", "score": 0.021}],
                    }
                ],
                "timing_ms": {"decode": 0.4, "queue": 0.1, "inference": 1.9, "total": 2.7},
            }
        }
    )

    model: str
    version: str
    request_id: str
    predictions: list[Prediction | WrittenText | FailedItem]
    timing_ms: TimingMs


class Problem(Body):
    """RFC 9457 problem details."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    request_id: str
    errors: list[ItemError] | None = Field(None, description="Each item's error, if there were several items.")


class ImageLimits(Body):
    """What an image must be, and what it is turned into."""

    formats: list[str]
    color: Literal["L", "RGB"]
    height: int
    width: int
    max_pixels: int


class TextLimits(Body):
    """What a text must be."""

    max_tokens: int
    truncate: bool = Field(description="A longer text is cut; if not, it is refused.")
    max_chars: int


class FailedVersion(Body):
    """A version that was refused; the one before it, if any, serves on."""

    version: str | None
    error: str
    detail: str
    at: datetime


class CandidateRequest(Body):
    """A version that is to be tried."""

    version: VersionName
    share: StrictFloat = Field(
        0.0, ge=0, le=1, description="Of the requests that name no version, which it answers."
    )
    shadow: StrictFloat = Field(
        0.0, ge=0, le=1, description="Of those, which it is asked too; it is only compared."
    )

    @model_validator(mode="after")
    def _check_shares(self) -> Self:
        if self.share + self.shadow > 1:
            raise ValueError("share and shadow are over 1 together: a request is answered or only copied")
        return self


class RollbackRequest(Body):
    """A version that is to be the current one."""

    version: VersionName


class FeedbackRequest(Body):
    """What should have been answered."""

    request_id: str = Field(min_length=1, max_length=128, description="Of the answer that was wrong.")
    model: str = Field(min_length=1, max_length=64, description="Which gave it.")
    label: str = Field(min_length=1, description="The right label; of a model that writes, the right text.")
    image: str | None = Field(None, description="The input, an image file in base64; with it, it can be learned.")
    text: str | None = Field(None, description="The input, if it is a text.")

    @property
    def has_input(self) -> bool:
        """Whether the input is there."""
        return self.image is not None or self.text is not None

    @model_validator(mode="after")
    def _check_one_input(self) -> Self:
        if self.image is not None and self.text is not None:
            raise ValueError("image and text are both given; an input is one of them")
        return self


class Stored(Body):
    """A correction that is on the disk."""

    id: int


class ComparedInfo(Body):
    """What a candidate said of items that the current version answered, since the service started."""

    agreed: int = Field(description="Items of which it gave the same label or text.")
    differed: int
    failed: int = Field(description="Items that it could not answer.")
    skipped: int = Field(description="Items that it was not asked about, for there was too much to do.")
    agreement: float | None = Field(description="agreed / (agreed + differed)")
    mean_score_distance: float | None = Field(
        description="Between the score of the answer and the candidate's of the same label or text."
    )
    mean_current_ms: float | None = Field(
        description="From admission to the answer, on the same requests; what they waited for others is in it."
    )
    mean_candidate_ms: float | None = Field(
        description="Likewise, but asked while nobody waits: under load a slower candidate may look faster."
    )


class CandidateInfo(Body):
    """A version that is tried on requests which name none."""

    version: str
    share: float = Field(description="Of the requests, which it answers.")
    shadow: float = Field(description="Of the requests, which it is asked too; its answer is only compared.")
    live: bool = Field(description="If not, the current version answers everybody.")
    compared: ComparedInfo | None = None


class ModelInfo(Body):
    """A model: what is live of it, and what was refused."""

    name: str
    ready: bool
    version: str | None = None
    versions: list[str] = Field(description="On disk, oldest first.")
    live_versions: list[str] = Field(description="Those that answer, the current one first.")
    candidate: CandidateInfo | None = None
    task: str | None = None
    labels: list[str] | None = None
    input: ImageLimits | TextLimits | None = None
    max_batch_size: int | None = None
    metrics: dict[str, float] | None = None
    device: str | None = None
    backend: str | None = Field(None, description="The form of the model that serves here.")
    accuracy: Accuracy | None = Field(
        None, description="What that form is worth beside TorchScript, which `metrics` are of; none if it is that."
    )
    manifest_sha256: str | None = None
    loaded_at: datetime | None = None
    refused: FailedVersion | None = None
    refused_versions: list[FailedVersion] = Field(
        default_factory=list,
        description="Those besides the current one that are wanted and could not be loaded; "
        "without a version: the candidate's file.",
    )


class ModelList(Body):
    """Every model of the repository."""

    models: list[ModelInfo]


class RequestLimits(Body):
    """What a request may be."""

    max_body_bytes: int
    max_image_pixels: int
    max_text_chars: int
    max_items: int
    queue_capacity: int
    request_timeout_s: float


class Metadata(Body):
    """The service itself."""

    name: str
    version: str
    device: str
    torch: str
    python: str
    default_models: dict[str, str | None]
    limits: RequestLimits


class Live(Body):
    """The process answers."""

    status: Literal["live"] = "live"


class ModelReadiness(Body):
    """Whether a model is warm, and what is wrong if anything is."""

    ready: bool
    version: str | None
    refused: FailedVersion | None = None


class Ready(Body):
    """Whether traffic should come here."""

    status: Literal["ready", "not_ready", "draining"]
    detail: str | None = None
    models: dict[str, ModelReadiness]
