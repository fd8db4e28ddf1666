from collections.abc import Callable

import pytest
import torch

from models.bundle import Bundle
from models.errors import ExampleError, ImageTooLarge, TextEmpty, TextNotUtf8, TextTooLong, TokenizerInvalid
from models.manifest import Tokenization
from models.preparation import ImagePreparation, TextPreparation, preparation_of
from models.preprocessing import decode_image
from models.repository import Repository
from models.tokenization import PAD, Tokenizer
from tests.bundles import decoding, publish, publish_texts, publish_writer, tokenizer_json
from tests.images import png


def texts(max_tokens: int = 6, *, truncate: bool = False) -> TextPreparation:
    return TextPreparation(Tokenizer(tokenizer_json()), Tokenization(max_tokens=max_tokens, truncate=truncate))


def test_an_image_is_decoded_as_the_model_says() -> None:
    content = png(90, size=(30, 20))
    preparation = ImagePreparation(decoding(color="RGB", size=(5, 7)))
    example_CHW = preparation.prepare(content)
    assert (example_CHW.dtype, example_CHW.shape) == (torch.uint8, (3, 5, 7))
    assert torch.equal(example_CHW, decode_image(content, preparation.decoding))


@pytest.mark.parametrize(("models_own", "callers"), [(99, None), (99, 1000), (1000, 99)])
def test_the_tighter_limit_on_pixels_applies(models_own: int, callers: int | None) -> None:
    preparation = ImagePreparation(decoding(max_pixels=models_own), callers)
    with pytest.raises(ImageTooLarge, match="at most 99"):
        preparation.prepare(png(0, size=(10, 10)))
    preparation.prepare(png(0, size=(9, 11)))


def test_images_are_stacked_in_order() -> None:
    preparation = ImagePreparation(decoding())
    batch_NCHW = preparation.collate([preparation.prepare(png(grey)) for grey in (0, 100, 200)])
    assert (batch_NCHW.dtype, batch_NCHW.shape) == (torch.uint8, (3, 1, 8, 8))
    assert batch_NCHW[:, 0, 0, 0].tolist() == [0, 100, 200]


def test_a_text_becomes_its_tokens() -> None:
    preparation = texts()
    example_L = preparation.prepare(b"A good film")
    assert torch.equal(example_L, preparation.tokenizer.encode("a good film"))


def test_a_text_is_read_as_utf_8() -> None:
    preparation = texts()
    assert torch.equal(preparation.prepare("good é".encode()), preparation.tokenizer.encode("good é"))


@pytest.mark.parametrize("content", [b"\xff", b"good \xc3", "good é".encode("latin-1"), "good".encode("utf-16")])
def test_bytes_that_are_not_utf_8_are_refused(content: bytes) -> None:
    with pytest.raises(TextNotUtf8, match="not UTF-8") as refused:
        texts().prepare(content)
    assert isinstance(refused.value, ExampleError)


@pytest.mark.parametrize("content", [b"", b" \n"])
def test_an_empty_text_is_refused(content: bytes) -> None:
    with pytest.raises(TextEmpty):
        texts().prepare(content)


def test_a_text_over_the_models_limit_is_refused_or_cut_as_the_model_says() -> None:
    content = b"a good film a bad film"
    with pytest.raises(TextTooLong, match="8 tokens; the model takes at most 6"):
        texts().prepare(content)
    cut_L = texts(truncate=True).prepare(content)
    assert torch.equal(cut_L, texts(max_tokens=8).prepare(content)[:6])


def test_texts_are_padded_to_the_longest_in_order() -> None:
    preparation = texts()
    examples = [preparation.prepare(content) for content in (b"fine", b"a good film", b"bad film")]
    batch_NL = preparation.collate(examples)
    assert batch_NL.shape == (3, 5)
    assert (batch_NL != PAD).sum(1).tolist() == [3, 5, 4]
    for example_L, row_L in zip(examples, batch_NL, strict=True):
        assert torch.equal(row_L[: len(example_L)], example_L)


def test_an_image_models_inputs_are_images_and_no_file_is_read(repository: Repository) -> None:
    manifest = publish(repository, "shades").manifest

    def never(path: str) -> bytes:
        pytest.fail(f"{path} was read")

    preparation = preparation_of(manifest, never, max_pixels=63)
    assert isinstance(preparation, ImagePreparation)
    assert preparation.decoding == manifest.decode
    with pytest.raises(ImageTooLarge, match="at most 63"):
        preparation.prepare(png(0))


@pytest.mark.parametrize("publish_", [publish_texts, publish_writer])
def test_a_text_models_inputs_are_texts_by_its_own_tokenizer(
    repository: Repository, publish_: Callable[..., Bundle]
) -> None:
    bundle = publish_(repository, "words", tokenize=Tokenization(max_tokens=4, truncate=True))
    read: list[str] = []

    def noted(path: str) -> bytes:
        read.append(path)
        return bundle.read(path)

    preparation = preparation_of(bundle.manifest, noted)
    assert read == ["tokenizer.json"]
    assert isinstance(preparation, TextPreparation)
    assert preparation.prepare(b"a good film").tolist() == preparation.tokenizer.encode("a good film")[:4].tolist()


def test_a_tokenizer_that_is_none_is_refused(repository: Repository) -> None:
    manifest = publish_texts(repository, "words").manifest
    with pytest.raises(TokenizerInvalid):
        preparation_of(manifest, lambda _: b"{}")
