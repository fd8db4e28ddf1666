"""POST /feedback: a correction is on the disk once it is acknowledged, and refused where it would be of no use."""

import sqlite3
import threading
from base64 import b64encode
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import pytest

import app.routes.feedback
from app.api_keys import line_of, new_key
from models.feedback import Correction, FeedbackStore, corrections
from models.repository import Repository
from tests.app.syncs import Syncs
from tests.bundles import publish_texts
from tests.images import png
from tests.servers import Running, process, until

Serve = Callable[..., Running]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "feedback.sqlite"


@pytest.fixture
def client(shades: Repository, serve: Serve, file: Path) -> httpx.Client:
    publish_texts(shades, "moods")
    return serve(feedback_file=file).until_ready().client


def image(grey: int = 0) -> str:
    return b64encode(png(grey)).decode()


def correct(client: httpx.Client, status: int = 201, **fields: object) -> Any:
    body = {"request_id": "r-1", "model": "shades", "label": "light"} | fields
    response = client.post("/feedback", json=body)
    assert response.status_code == status, response.text
    return response.json()


def test_a_correction_is_stored_with_its_input(client: httpx.Client, file: Path) -> None:
    assert [correct(client, image=image())["id"], correct(client, label="grey", image=image(9))["id"]] == [1, 2]
    correct(client, model="moods", label="bad", text="a good film")
    assert corrections(file, "shades") == [
        Correction("r-1", "", "shades", "light", "image", png(0)),
        Correction("r-1", "", "shades", "grey", "image", png(9)),
    ]
    (of_moods,) = corrections(file, "moods")
    assert (of_moods.answer, of_moods.content) == ("bad", b"a good film")


def test_json_of_more_values_than_anyone_needs_is_refused_unread(client: httpx.Client) -> None:
    response = client.post("/feedback", content=b'{"x": [' + b"[0]," * 60_000 + b"0]}")
    assert response.status_code == 422
    assert "values" in response.json()["detail"]


def test_an_image_comes_as_it_does_to_predict(client: httpx.Client, file: Path) -> None:
    lines = "\r\n".join(image()[at : at + 20] for at in range(0, len(image()), 20))
    for sent in (lines, f"data:image/png;base64,{image()}"):
        correct(client, image=sent)
    (of_shades,) = corrections(file, "shades")
    assert of_shades.content == png(0)


def test_without_its_input_it_is_kept_and_nothing_to_learn_from(client: httpx.Client, file: Path) -> None:
    correct(client)
    assert corrections(file, "shades") == []
    with sqlite3.connect(file) as connection:
        assert connection.execute("SELECT request_id, answer FROM corrections").fetchall() == [("r-1", "light")]


def test_of_an_input_that_was_corrected_twice_the_last_counts(client: httpx.Client, file: Path) -> None:
    for label in ("light", "grey"):
        correct(client, label=label, image=image())
    assert [each.answer for each in corrections(file, "shades")] == ["grey"]


@pytest.mark.parametrize(
    ("fields", "status", "said"),
    [
        ({"label": "purple"}, 422, "none of the model's"),
        ({"label": ""}, 422, "label"),
        ({"model": "nobody"}, 404, "no model"),
        ({"request_id": ""}, 422, "request_id"),
        ({"request_id": "x" * 200}, 422, "request_id"),
        ({"image": "%%%"}, 422, "base64"),
        ({"image": "³"}, 422, "base64"),
        ({"image": b64encode(b"no image").decode()}, 400, "no image"),
        ({"image": ""}, 400, "no image"),
        ({"text": "a text"}, 422, "shades takes images"),
        ({"text": "a text", "image": image()}, 422, "both"),
        ({"model": "moods", "label": "bad", "image": image()}, 422, "moods takes texts"),
        ({"model": "moods", "label": "bad", "text": "x" * 1_000_001}, 413, "characters"),
        ({"model": "moods", "label": "bad", "text": " \n"}, 422, "empty"),
        ({"why": "it is wrong"}, 422, "why"),
    ],
)
def test_what_would_be_of_no_use_is_refused(
    client: httpx.Client, file: Path, fields: dict[str, object], status: int, said: str
) -> None:
    assert said in correct(client, status, **fields)["detail"]
    assert not file.exists()


def test_it_is_off_unless_a_file_is_named(shades: Repository, serve: Serve) -> None:
    client = serve().until_ready().client
    assert correct(client, 404)["code"] == "not_found"
    assert "/feedback" not in client.get("/openapi.json").json()["paths"]


def test_who_corrected_is_known_where_keys_are(
    shades: Repository, serve: Serve, file: Path, tmp_path: Path
) -> None:
    key = new_key()
    (tmp_path / "keys").write_text(line_of("mobile", key))
    client = serve(feedback_file=file, api_keys_file=tmp_path / "keys").until_ready().client
    assert client.post("/feedback", json={}).status_code == 401
    client.headers["X-API-Key"] = key
    correct(client, image=image())
    assert [each.client for each in corrections(file, "shades")] == ["mobile"]


def test_a_file_that_is_full_says_so_and_keeps_what_it_has(shades: Repository, serve: Serve, file: Path) -> None:
    client = serve(feedback_file=file, feedback_max_bytes=65_536).until_ready().client
    correct(client, image=image())
    large = b64encode(png(0) + bytes(60_000)).decode()
    problem = correct(client, 507, image=large)
    assert (problem["code"], "is full" in problem["detail"]) == ("storage_full", True)
    assert len(corrections(file, "shades")) == 1
    assert file.stat().st_size <= 65_536
    correct(client, image=image(5))


def test_a_file_that_cannot_be_used_is_our_fault_and_logged(
    shades: Repository, serve: Serve, file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file.write_bytes(b"no database at all" * 100)
    client = serve(feedback_file=file).until_ready().client
    assert correct(client, 500, image=image())["code"] == "internal_error"
    assert "feedback.sqlite cannot be used" in caplog.text


def test_a_place_that_is_none_is_told_at_the_start(
    shades: Repository, serve: Serve, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    client = serve(feedback_file=tmp_path / "nowhere/feedback.sqlite").until_ready().client
    assert correct(client, 500)["code"] == "internal_error"
    (told,) = [message for message in caplog.messages if "LANTERN_FEEDBACK_FILE" in message]
    assert "nowhere is no directory; no correction will be stored" in told


def test_who_waits_for_the_file_takes_nothing_from_predictions(
    shades: Repository, serve: Serve, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = serve(feedback_file=file).until_ready()
    freed = threading.Event()
    add = FeedbackStore.add

    def wait_and_add(store: FeedbackStore, correction: Correction, patience_s: float) -> int:
        assert freed.wait(30)
        return add(store, correction, patience_s)

    monkeypatch.setattr(FeedbackStore, "add", wait_and_add)
    many = 40  # More than the threads of any pool.
    with ThreadPoolExecutor(many) as pool:
        corrected = [pool.submit(correct, running.client, label="grey") for _ in range(many)]
        try:
            # Each holds the memory of its body until it is stored.
            until(lambda: running.service.budget.held_bytes >= many * 50)
            form = [("file", png(0, size=(8, 8)) + bytes(200_000))]
            headers = {"X-Request-Timeout-Ms": "5000"}
            assert running.client.post("/predict", files=form, headers=headers).status_code == 200
        finally:
            freed.set()
        assert sorted(each.result()["id"] for each in corrected) == list(range(1, many + 1))


def test_a_file_that_somebody_else_holds_is_to_be_tried_again(
    client: httpx.Client, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    correct(client)
    monkeypatch.setattr(app.routes.feedback, "PATIENCE_S", 2.0)
    headers = {"X-Request-Timeout-Ms": "10000"}
    body = {"request_id": "r", "model": "shades", "label": "light"}
    with closing(sqlite3.connect(file, isolation_level=None)) as other, ThreadPoolExecutor(8) as pool:
        other.execute("BEGIN IMMEDIATE")
        asked = [pool.submit(client.post, "/feedback", json=body, headers=headers) for _ in range(8)]
        for response in (each.result() for each in asked):
            assert (response.status_code, response.json()["code"]) == (503, "overloaded")
            assert int(response.headers["retry-after"]) > 0
        other.execute("ROLLBACK")
    assert correct(client)["id"] == 2


def test_what_is_acknowledged_outlives_a_kill_and_processes_share_the_file(shades: Repository, file: Path) -> None:
    with process(shades.root, workers=2, feedback_file=file) as service:
        client = service.until_ready().client
        with ThreadPoolExecutor(8) as pool:
            numbers = list(pool.map(lambda grey: correct(client, image=image(grey))["id"], range(40)))
        service.popen.kill()
    assert sorted(numbers) == list(range(1, 41))
    assert len(corrections(file, "shades")) == 40


def test_a_correction_is_synced_before_it_is_acknowledged(shades: Repository, file: Path, tmp_path: Path) -> None:
    syncs, log = Syncs(tmp_path), file.with_name("feedback.sqlite-wal")
    with process(shades.root, through=syncs.through, feedback_file=file) as service:
        client = service.until_ready().client
        correct(client)
        assert syncs.of(file, log)
        # Whoever is the last to close the file syncs it in any case, and whoever begins the log syncs that.
        with closing(sqlite3.connect(file)) as other:
            other.execute("SELECT id FROM corrections").fetchall()
            correct(client)
            for _ in range(3):
                before = syncs.of(log)
                correct(client)
                assert syncs.of(log) > before


def test_many_may_be_the_first(file: Path) -> None:
    for attempt in range(20):
        fresh = file.with_name(f"{attempt}.sqlite")
        with ThreadPoolExecutor(8) as pool:
            adding = [
                pool.submit(FeedbackStore(fresh, 10**6).add, Correction("r", "", "m", "a")) for _ in range(8)
            ]
            assert sorted(each.result() for each in adding) == list(range(1, 9))


def test_it_is_documented(client: httpx.Client) -> None:
    document = client.get("/openapi.json").json()
    operation = document["paths"]["/feedback"]["post"]
    assert set(operation["responses"]) >= {"201", "404", "422", "507"}
    assert "FeedbackRequest" in document["components"]["schemas"]
