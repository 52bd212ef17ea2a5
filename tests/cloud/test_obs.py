"""OBS: what is sent arrives whole, goes on where it stopped, and every failure is one line."""

from __future__ import annotations

import dataclasses
import hashlib
import random
from pathlib import Path

import pytest

from tests.cloud.conftest import ACCESS_KEY, SECRET_KEY, TOKEN
from tests.cloud.obs_server import ObsServer, Request
from toolkit.artefacts.lock import with_lock
from toolkit.cloud import locate, transfer
from toolkit.cloud.obs import Bucket
from toolkit.cloud.settings import ModelArtsSettings, ObsSettings, problems
from toolkit.config.schema import Config
from toolkit.errors import CloudError, ConfigError, InputError
from toolkit.ui.events import Event


def folder_of(path: Path) -> Path:
    """Small, empty and large files, names with spaces and beyond ASCII."""
    draw = random.Random(5)
    for name, size in {
        "a.bin": 10,
        "sub dir/ü ключ+%.bin": 70_000,
        "empty": 0,
        "sub dir/big": 350_000,
    }.items():
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(draw.randbytes(size))
    return path


def contents(folder: Path) -> dict[str, str]:
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


@pytest.mark.usefixtures("names")
@pytest.mark.parametrize("by_name", [True, False])
def test_a_folder_goes_there_and_back(obs: ObsSettings, obs_server: ObsServer, tmp_path: Path, by_name: bool) -> None:
    obs.endpoint = obs_server.by_name if by_name else obs_server.by_number
    source = folder_of(tmp_path / "source")
    events: list[Event] = []
    with Bucket(obs, "bucket") as bucket:
        report = transfer.upload_folder(bucket, source, "data", records=tmp_path / "records", emit=events.append)
        assert (report.moved, report.skipped) == (4, 0)
        again = transfer.upload_folder(bucket, source, "data", records=tmp_path / "records")
        assert (again.moved, again.skipped, again.bytes) == (0, 4, 0)
        transfer.download_folder(bucket, "data", tmp_path / "back")
        assert contents(tmp_path / "back") == contents(source)
        assert transfer.download_folder(bucket, "data", tmp_path / "back").moved == 0
    assert {request.scheme for request in obs_server.requests if request.query.get("apiversion") is None} == {
        "OBS" if by_name else "AWS"
    }
    assert len(obs_server.sent("PUT", "partNumber")) == 4
    assert not obs_server.uploads
    assert not list((tmp_path / "records").iterdir())
    assert events[-1].data == {"done": 420_010, "total": 420_010, "unit": "B"}


def test_what_changed_is_sent_and_what_vanished_is_removed(
    obs: ObsSettings, obs_server: ObsServer, tmp_path: Path
) -> None:
    source, back = folder_of(tmp_path / "source"), tmp_path / "back"
    with Bucket(obs, "bucket") as bucket:
        transfer.upload_folder(bucket, source, "data", records=tmp_path / "r")
        transfer.download_folder(bucket, "data", back)
        (source / "a.bin").write_bytes(b"0123456789")
        assert transfer.upload_folder(bucket, source, "data", records=tmp_path / "r").moved == 1
        del obs_server.buckets["bucket"]["data/empty"]
        (back / "sub dir/big").write_bytes(b"touched")
        report = transfer.download_folder(bucket, "data", back)
    assert report.moved == 2
    (source / "empty").unlink()
    assert contents(back) == contents(source)


def test_an_interrupted_upload_goes_on_with_its_missing_parts(
    obs: ObsSettings, obs_server: ObsServer, tmp_path: Path
) -> None:
    big = tmp_path / "big"
    big.write_bytes(random.Random(1).randbytes(550_000))
    obs.attempts, obs.tasks = 1, 1
    obs_server.faults.append(lambda request: 500 if request.query.get("partNumber") == "4" else None)
    with Bucket(obs, "bucket") as bucket:
        with pytest.raises(
            CloudError,
            match=r"could not send part 4 of obs://bucket/big: .*InternalError \(500\).*request REQ",
        ):
            transfer.upload(bucket, {"big": big}, records=tmp_path / "r")
        obs_server.faults.clear()
        report = transfer.upload(bucket, {"big": big}, records=tmp_path / "r")
    sent = sorted(request.query["partNumber"] for request in obs_server.sent("PUT", "partNumber"))
    # A part that was on its way when another failed may have arrived: it is not sent again either.
    assert sent == ["1", "2", "3", "4", "4", "5", "6"]
    assert len(obs_server.sent("POST", "uploads")) == 1
    assert report.bytes <= 550_000 - 3 * 102_400
    assert obs_server.buckets["bucket"]["big"].content == big.read_bytes()


def test_an_upload_of_an_older_content_is_dropped(obs: ObsSettings, obs_server: ObsServer, tmp_path: Path) -> None:
    big = tmp_path / "big"
    big.write_bytes(b"a" * 300_000)
    obs.attempts = 1
    obs_server.faults.append(lambda request: 500 if request.query.get("partNumber") == "2" else None)
    with Bucket(obs, "bucket") as bucket:
        with pytest.raises(CloudError):
            transfer.upload(bucket, {"big": big}, records=tmp_path / "r")
        obs_server.faults.clear()
        big.write_bytes(b"b" * 300_000)
        transfer.upload(bucket, {"big": big}, records=tmp_path / "r")
    assert obs_server.uploads == {}
    assert obs_server.buckets["bucket"]["big"].content == big.read_bytes()


def test_a_cut_download_goes_on_in_the_middle_of_a_part(
    obs: ObsSettings, obs_server: ObsServer, tmp_path: Path
) -> None:
    big = tmp_path / "big"
    big.write_bytes(random.Random(2).randbytes(250_000))
    with Bucket(obs, "bucket") as bucket:
        transfer.upload(bucket, {"big": big}, records=tmp_path / "r")
        cuts = iter([True, True, False])
        obs_server.faults.append(lambda request: "cut" if request.method == "GET" and next(cuts, False) else None)
        item = bucket.head("big")
        assert item is not None
        transfer.download(bucket, {tmp_path / "back": item})
    assert (tmp_path / "back").read_bytes() == big.read_bytes()
    asked = [request.headers["range"] for request in obs_server.sent("GET") if "range" in request.headers]
    assert len(asked) == 5
    assert len(set(asked)) == 5  # nothing is fetched twice


def test_a_download_that_was_killed_goes_on_with_its_missing_parts(
    obs: ObsSettings, obs_server: ObsServer, tmp_path: Path
) -> None:
    big = tmp_path / "big"
    big.write_bytes(random.Random(3).randbytes(450_000))
    obs.attempts, obs.tasks = 1, 1
    with Bucket(obs, "bucket") as bucket:
        transfer.upload(bucket, {"big": big}, records=tmp_path / "r")
        item = bucket.head("big")
        assert item is not None
        obs_server.faults.append(
            lambda request: 503 if request.headers.get("range", "").startswith("bytes=307200") else None
        )
        with pytest.raises(CloudError, match="503"):
            transfer.download(bucket, {tmp_path / "back": item})
        assert not (tmp_path / "back").exists()
        obs_server.faults.clear()
        before = len(obs_server.sent("GET"))
        transfer.download(bucket, {tmp_path / "back": item})
    asked = [request.headers["range"] for request in obs_server.sent("GET")[before:]]
    # The part behind the one that failed may have been on its way already.
    assert asked in (["bytes=307200-409599", "bytes=409600-449999"], ["bytes=307200-409599"])
    assert (tmp_path / "back").read_bytes() == big.read_bytes()
    assert not [path.name for path in tmp_path.iterdir() if ".part" in path.name]


def test_a_damaged_object_is_never_handed_on(obs: ObsSettings, obs_server: ObsServer, tmp_path: Path) -> None:
    for size in (1_000, 250_000):
        source = tmp_path / "source"
        source.write_bytes(b"x" * size)
        with Bucket(obs, "bucket") as bucket:
            transfer.upload(bucket, {"o": source}, records=tmp_path / "r")
            stored = obs_server.buckets["bucket"]["o"]
            obs_server.buckets["bucket"]["o"] = dataclasses.replace(stored, content=b"y" + stored.content[1:])
            item = bucket.head("o")
            assert item is not None
            with pytest.raises(CloudError, match="came out damaged") as caught:
                transfer.download(bucket, {tmp_path / "back": item})
        assert caught.value.cause == "damaged"
        assert not (tmp_path / "back").exists()


def test_an_object_that_changes_meanwhile_is_refused(obs: ObsSettings, obs_server: ObsServer, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"x" * 250_000)

    def swap(request: Request) -> None:
        if request.headers.get("range", "").startswith("bytes=102400"):
            stored = obs_server.buckets["bucket"]["o"]
            obs_server.buckets["bucket"]["o"] = dataclasses.replace(stored, etag="0" * 32)

    obs.tasks = 1
    with Bucket(obs, "bucket") as bucket:
        transfer.upload(bucket, {"o": source}, records=tmp_path / "r")
        item = bucket.head("o")
        assert item is not None
        obs_server.faults.append(lambda request: swap(request))
        with pytest.raises(CloudError) as caught:
            transfer.download(bucket, {tmp_path / "back": item})
    assert caught.value.cause == "changed"


@pytest.mark.parametrize(
    ("change", "cause", "words"),
    [
        ({"OBS_SECRET_ACCESS_KEY": "not-the-one"}, "forbidden", ["SignatureDoesNotMatch", "403"]),
        ({"OBS_ACCESS_KEY_ID": "nobody"}, "forbidden", ["InvalidAccessKeyId", "403"]),
        ({"OBS_SECURITY_TOKEN": ""}, "forbidden", ["InvalidAccessKeyId", "token"]),
    ],
)
def test_wrong_keys_are_one_line_with_the_requests_id(
    obs: ObsSettings, change: dict[str, str], cause: str, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in change.items():
        monkeypatch.setenv(name, value)
    with Bucket(obs, "bucket") as bucket, pytest.raises(CloudError) as caught:
        list(bucket.list("x/"))
    said = str(caught.value)
    assert caught.value.cause == cause
    assert all(word in said for word in words), said
    assert "\n" not in said
    assert caught.value.request_id.startswith("REQ")
    assert caught.value.hint
    for secret in (SECRET_KEY, TOKEN, "not-the-one"):
        assert secret not in said + caught.value.hint


def test_no_such_bucket_nothing_listening_and_silence(obs: ObsSettings, obs_server: ObsServer) -> None:
    with Bucket(obs, "other") as bucket, pytest.raises(CloudError, match=r"NoSuchBucket \(404\)") as caught:
        list(bucket.list("x/"))
    assert caught.value.cause == "not-found"
    waited: list[float] = []
    quiet = dataclasses.replace(obs, timeout=0.2, attempts=3)
    obs_server.faults.append(lambda request: "hang")
    with (
        Bucket(quiet, "bucket", sleep=waited.append) as bucket,
        pytest.raises(CloudError, match=r"nothing was heard for 0\.2 s"),
    ):
        bucket.head("x")
    assert waited == [0.01, 0.02]
    assert len(obs_server.requests) == 1 + 3
    obs_server.close()
    obs_server.__init__(ACCESS_KEY, SECRET_KEY)  # type: ignore[misc]  # the old port is free now
    with Bucket(quiet, "bucket", sleep=waited.append) as bucket, pytest.raises(CloudError) as caught:
        bucket.head("x")
    assert caught.value.cause == "unreachable"
    assert obs.endpoint.split("//")[1] in str(caught.value)


def test_trouble_of_the_server_is_tried_again(obs: ObsSettings, obs_server: ObsServer, tmp_path: Path) -> None:
    answers = iter([503, 500, 429])
    obs_server.faults.append(lambda request: next(answers, None) if request.method == "PUT" else None)
    small = tmp_path / "small"
    small.write_bytes(b"abc")
    with Bucket(obs, "bucket", sleep=lambda _: None) as bucket:
        transfer.upload(bucket, {"small": small}, records=tmp_path / "r")
    assert len(obs_server.sent("PUT")) == 4
    assert obs_server.buckets["bucket"]["small"].content == b"abc"


def test_long_lists_come_in_pages(obs: ObsSettings, obs_server: ObsServer) -> None:
    with Bucket(obs, "bucket") as bucket:
        bucket.put_bytes("first", b"x")
        stored = obs_server.buckets["bucket"].pop("first")
        obs_server.buckets["bucket"].update({f"many/{number:05d}": stored for number in range(2500)})
        assert [item.key for item in bucket.list("many/")] == [f"many/{number:05d}" for number in range(2500)]
    assert len([request for request in obs_server.sent("GET") if not request.key]) == 3


@pytest.mark.parametrize("key", ["data/../../evil", "data//etc/passwd/..", "data/a\\b", "data/.x.obs"])
def test_keys_that_lead_out_of_the_folder_are_refused(
    obs: ObsSettings, obs_server: ObsServer, tmp_path: Path, key: str
) -> None:
    with Bucket(obs, "bucket") as bucket:
        bucket.put_bytes("ok", b"x")
        obs_server.buckets["bucket"][key] = obs_server.buckets["bucket"]["ok"]
        with pytest.raises(InputError, match="cannot be a file's"):
            transfer.download_folder(bucket, "data", tmp_path / "in" / "back")
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_localise(obs: ObsSettings, obs_server: ObsServer, tmp_path: Path) -> None:
    source, cache = folder_of(tmp_path / "source"), tmp_path / "cache"
    with Bucket(obs, "bucket") as bucket:
        transfer.upload_folder(bucket, source, "sets/one", records=tmp_path / "r")
    assert locate.localise("~/x", cache, obs) == Path("~/x").expanduser()
    folder = locate.localise("obs://bucket/sets/one", cache, obs)
    assert contents(folder) == contents(source)
    file = locate.localise("obs://bucket/sets/one/a.bin", cache, obs)
    assert file.read_bytes() == (source / "a.bin").read_bytes()
    before = len(obs_server.sent("GET", "sets"))
    locate.localise("obs://bucket/sets/one/", cache, obs)
    assert len(obs_server.sent("GET", "sets")) == before
    with pytest.raises(CloudError, match="obs://bucket/sets/two/: there is nothing"):
        locate.localise("obs://bucket/sets/two", cache, obs)
    for wrong in ("obs://", "obs://bucket", "obs://B/x", "obs://bucket/"):
        with pytest.raises(ConfigError, match="not an address in OBS"):
            locate.localise(wrong, cache, obs)
    with pytest.raises(ConfigError, match=r"store\.obs\.region"):
        locate.localise("obs://bucket/x", cache, ObsSettings())


def test_addresses_in_a_config_are_fetched_or_refused(obs: ObsSettings, tmp_path: Path) -> None:
    with Bucket(obs, "bucket") as bucket:
        for name in ("set/a.bin", "model.onnx", "photos/1.png", "amct.cfg", "fusion.cfg", "fleet.yaml"):
            bucket.put_bytes(name, name.encode())
    config = Config()
    config.store.obs = obs
    config.data.root, config.model.from_ = "obs://bucket/set", "obs://bucket/model.onnx"
    config.infer.pictures, config.inventory = "obs://bucket/photos/", "obs://bucket/fleet.yaml"
    config.quantise.config, config.atc.fusion_switch_file = "obs://bucket/amct.cfg", "obs://bucket/fusion.cfg"
    config.modelarts.environments = {"WHERE": "obs://bucket/x"}
    found = locate.localise_config(config, tmp_path)
    assert set(found) == {*locate.TAKEN, "atc.fusion_switch_file"}
    files = (config.model.from_, config.inventory, config.quantise.config, config.atc.fusion_switch_file)
    assert [Path(path).read_text() for path in files] == ["model.onnx", "fleet.yaml", "amct.cfg", "fusion.cfg"]
    assert (Path(config.data.root) / "a.bin").read_text() == "set/a.bin"
    assert (Path(config.infer.pictures) / "1.png").read_text() == "photos/1.png"
    config.out, config.sign.key = "obs://bucket/out", "obs://bucket/key"
    with pytest.raises(ConfigError) as caught:
        locate.localise_config(config, tmp_path)
    assert [line.partition(":")[0] for line in caught.value.problems] == ["sign.key", "out"]
    with pytest.raises(InputError, match=r"^lock: obs://bucket/deploy.lock is in OBS"):
        with_lock(["lock=obs://bucket/deploy.lock"])


def test_tls_is_verified_with_names(obs: ObsSettings) -> None:
    import ssl

    with Bucket(dataclasses.replace(obs, endpoint="https://obs.cn-north-4.myhuaweicloud.com"), "bucket") as bucket:
        context = bucket._connected().context
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname


def test_settings_are_checked() -> None:
    obs = ObsSettings(
        bucket="B", signature="x", part_size=1, endpoint="http://obs.example.com", secret_key="plain", tasks=0
    )
    found = "\n".join(problems(obs, ModelArtsSettings(poll=0, environments={"a b": ""}), True))
    for key in (
        "store.obs.bucket: 'B'", "store.obs.signature", "store.obs.part_size", "store.obs.endpoint: http://",
        "store.obs.secret_key", "store.obs.tasks", "modelarts.poll", "modelarts.environments",
        "modelarts.flavor_id", "modelarts.engine_id",
    ):  # fmt: skip
        assert key in found
    assert "plain" not in found
    assert list(problems(ObsSettings(), ModelArtsSettings(), False)) == []


def test_keys_are_named_when_they_are_missing(obs: ObsSettings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OBS_SECRET_ACCESS_KEY")
    with (
        Bucket(obs, "bucket") as bucket,
        pytest.raises(ConfigError, match="neither OBS_SECRET_ACCESS_KEY nor HUAWEICLOUD_SDK_SK"),
    ):
        bucket.head("x")
