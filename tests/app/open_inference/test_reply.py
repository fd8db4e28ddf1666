"""A reply puts together what came from different batches."""

import json

import numpy as np

from app.open_inference.reply import wanted_outputs, write
from app.responding import Raw
from models.repository import Repository
from tests.bundles import publish_writer


def test_what_ended_sooner_in_one_batch_than_in_another_is_filled_up(repository: Repository) -> None:
    manifest = publish_writer(repository, "echo").manifest
    scores = np.array([0.5, 0.25], np.float32)
    short = Raw((np.array([[7], [8]]), scores, [b"a", b"b"]))
    long = Raw((np.array([[7, 8, 9], [1, 2, 3]]), scores, [b"c", b"d"]))
    body = write(None, wanted_outputs(None, manifest), manifest, [short, long])
    assert body.json_length is not None
    said = json.loads(body.content[: body.json_length])["outputs"]
    assert [output["shape"] for output in said] == [[2, 2, 3], [2, 2], [2, 2]]
    tokens = np.frombuffer(body.content[body.json_length :][: 12 * 8], np.int64).reshape(2, 2, 3)
    assert tokens.tolist() == [[[7, 0, 0], [8, 0, 0]], [[7, 8, 9], [1, 2, 3]]]
