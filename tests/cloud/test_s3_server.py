"""OBS's client and transfers, and the store of artefacts, against somebody else's server: OpenStack Swift.

Its S3 API verifies signatures. The stand-in of the other tests was built from OBS's documentation by the same hands as
the code under test.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cloud.test_obs import contents, folder_of
from tests.interpreters import venv_with
from toolkit.cloud import transfer
from toolkit.cloud.obs import Bucket, _client
from toolkit.cloud.settings import ObsSettings
from toolkit.errors import CloudError

USER, KEY = "team:anna", "not-the-key-of-anybody"
RUNNER = Path(__file__).with_name("swift_runner.py")
STORE_RUNNER = Path(__file__).with_name("s3_store_runner.py")


@pytest.fixture(scope="module")
def swift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a running server."""
    python = venv_with("{}.{}".format(*sys.version_info[:2]), "swift>=2.35,<3")
    folder = tmp_path_factory.mktemp("swift")
    process = subprocess.Popen(
        [python, RUNNER, folder, USER, KEY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    port = process.stdout.readline().strip()
    assert port, f"it did not come up; see {folder}"
    yield f"http://127.0.0.1:{port}"
    process.stdin.close()
    process.wait(timeout=20)
    process.stdout.close()


@pytest.fixture(params=["v4", "v2", "obs"])
def settings(swift: str, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> ObsSettings:
    """A new bucket there. With ``obs`` the SDK asks the server which kind of signature it knows."""
    monkeypatch.setenv("OBS_ACCESS_KEY_ID", USER)
    monkeypatch.setenv("OBS_SECRET_ACCESS_KEY", KEY)
    monkeypatch.delenv("OBS_SECURITY_TOKEN")
    name = f"bucket-{request.param}-{random.randrange(10**9)}"
    made = ObsSettings(
        bucket=name,
        endpoint=swift,
        region="us-east-1",
        signature=request.param,
        part_size=100 * 2**10,
        tasks=3,
        timeout=20,
        pause=0.01,
    )
    client = _client(made)
    assert client.createBucket(name).status < 300
    client.close()
    return made


def test_a_folder_goes_there_and_back(settings: ObsSettings, tmp_path: Path) -> None:
    source, back = folder_of(tmp_path / "source"), tmp_path / "back"
    with Bucket(settings, settings.bucket) as bucket:
        report = transfer.upload_folder(bucket, source, "data", records=tmp_path / "records")
        assert (report.moved, report.skipped) == (4, 0)
        again = transfer.upload_folder(bucket, source, "data", records=tmp_path / "records")
        assert (again.moved, again.skipped) == (0, 4)
        assert {item.key for item in bucket.list("data/")} == {f"data/{name}" for name in contents(source)}
        transfer.download_folder(bucket, "data", back)
        assert contents(back) == contents(source)
        (source / "a.bin").write_bytes(b"0123456789")
        assert transfer.upload_folder(bucket, source, "data", records=tmp_path / "records").moved == 1
        assert transfer.download_folder(bucket, "data", back).moved == 1
        assert contents(back) == contents(source)
        assert bucket.head("data/nothing") is None


def test_an_interrupted_upload_goes_on_with_its_missing_parts(settings: ObsSettings, tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(random.Random(1).randbytes(550_000))
    there: list[int] = []
    failed: list[int] = []

    class Failing(Bucket):
        def put_part(self, key: str, upload: str, number: int, *arguments: object, **named: object) -> str:
            if number == 4 and not failed:
                failed.append(number)
                raise CloudError("cut by the test", cause="cut", host=self.host)
            etag = super().put_part(key, upload, number, *arguments, **named)  # type: ignore[arg-type]
            there.append(number)
            return etag

    settings.tasks = 1
    with Failing(settings, settings.bucket) as bucket:
        with pytest.raises(CloudError, match="cut by the test"):
            transfer.upload(bucket, {"big": big}, records=tmp_path / "records")
        assert {1, 2, 3} <= set(there)
        transfer.upload(bucket, {"big": big}, records=tmp_path / "records")
        assert sorted(there) == [1, 2, 3, 4, 5, 6], "each once"
        item = bucket.head("big")
        assert item is not None
        transfer.download(bucket, {tmp_path / "back": item})
    assert (tmp_path / "back").read_bytes() == big.read_bytes()


@pytest.mark.parametrize("variable", ["OBS_SECRET_ACCESS_KEY", "OBS_ACCESS_KEY_ID"])
def test_wrong_keys_are_refused_there(settings: ObsSettings, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "team:berta")
    with Bucket(settings, settings.bucket) as bucket, pytest.raises(CloudError) as caught:
        bucket.put_bytes("key", b"content")
    assert caught.value.cause == "forbidden"
    assert "request tx" in str(caught.value), "the server's own words"
    assert KEY not in str(caught.value)


@pytest.mark.parametrize("settings", ["v4"], indirect=True)  # as s3fs signs
def test_artefacts_are_shared_through_a_bucket_and_what_fails_is_one_line(
    swift: str, settings: ObsSettings, tmp_path: Path
) -> None:
    """With s3fs, in an environment that has it. Machines are processes here: nothing is remembered between them."""
    python = venv_with("{}.{}".format(*sys.version_info[:2]), "s3fs>=2024.6")
    good = {
        "url": f"s3://{settings.bucket}/artefacts",
        "endpoint": swift,
        "access_key": "env:STORE_KEY",
        "secret_key": "env:STORE_SECRET",
    }
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "PYTHONPATH": str(RUNNER.parents[2]),
        "STORE_KEY": USER,
        "STORE_SECRET": KEY,
        "WRONG": "team:berta",
        "AWS_EC2_METADATA_DISABLED": "true",  # or it looks for keys at an address of the network
    }

    def attempts(*changes: dict[str, str | None]) -> list[dict[str, str]]:
        asked = json.dumps([{**good, **change} for change in changes])
        done = subprocess.run(
            [python, STORE_RUNNER, tmp_path], input=asked, env=environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    first, *failed = attempts(
        {},
        {"url": "s3://nobodys-bucket/x"},
        {"secret_key": "env:WRONG"},
        {"access_key": "env:WRONG"},
        {"access_key": None, "secret_key": None},
        {"endpoint": "http://127.0.0.1:1"},
    )
    assert first == {"had": "no", "put": "yes", "got": "the same"}
    assert attempts({}) == [{"had": "yes", "put": "yes", "got": "the same"}], "another machine finds it"
    with Bucket(settings, settings.bucket) as bucket:
        assert {item.key.split("/")[1] for item in bucket.list("artefacts/")} == {"artefacts", "blobs", "records"}
        assert {item["code"] for item in failed} == {2}
    errors = [item["error"] for item in failed]
    assert errors[0] == "store.url: there is no bucket nobodys-bucket"
    assert all("Forbidden" in text for text in errors[1:3])
    assert "NoCredentialsError" in errors[3]
    assert "store.access_key=" in failed[3]["hint"]
    assert "http://127.0.0.1:1" in errors[4]
    assert "store.endpoint" in failed[4]["hint"]
    assert not [text for text in errors if "\n" in text or KEY in text]
