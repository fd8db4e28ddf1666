"""A key is made, what is published is signed with it, and only that is served: by command."""

from pathlib import Path

import torch

from models.repository import Repository
from tests.bundles import Always
from tests.end_to_end.commands import run
from tests.images import png
from tests.servers import process, until


def test_a_service_that_trusts_a_key_serves_what_it_signed(tmp_path: Path) -> None:
    key, models = tmp_path / "signing.key", tmp_path / "models"
    (tmp_path / "labels.txt").write_text("dark\ngrey\nlight\n")
    torch.jit.save(torch.jit.script(Always(0)), tmp_path / "model.pt")
    publishing = ["import", str(tmp_path / "model.pt"), "--labels", str(tmp_path / "labels.txt")]
    publishing += ["--name", "shades", "--size", "8", "--models-dir", str(models)]
    assert run(*publishing, "--signing-key", str(key))[0] == 1
    assert run("keygen", str(key))[0] == 0
    status, output = run(*publishing, "--signing-key", str(key))
    assert status == 0, output
    repository = Repository(models)
    signed = repository.current("shades").version
    with process(models, drain_grace_s=0, reload_interval_s=0.05, trusted_keys_file=f"{key}.pub") as service:
        client = service.until_ready().client

        def answered_by() -> str:
            response = client.post("/predict", content=png(0), headers={"Content-Type": "image/png"})
            version: str = response.json()["version"]
            return version

        status, output = run(*publishing)
        assert status == 0, output
        unsigned = repository.current("shades").version
        until(lambda: client.get("/models/shades").json()["refused"] is not None)
        assert answered_by() == signed
        status, output = run("sign", "shades", "--key", str(key), "--models-dir", str(models))
        assert (status, f"signed shades/{unsigned} " in output) == (0, True), output
        until(lambda: answered_by() == unsigned)
        rollback = ("-m", "models.rollback")
        status, output = run("shades", signed, "--models-dir", str(models), python=rollback)
        assert status == 0, output
        until(lambda: answered_by() == signed)
