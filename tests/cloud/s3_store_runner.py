"""Uses a shared store on S3; run by an interpreter that has s3fs, with this checkout on its path.

Usage: s3_store_runner.py FOLDER < settings.json, a list. For each, one JSON line: what came of it.
"""

import json
import secrets
import sys
from pathlib import Path

from toolkit.artefacts.hashing import digest_data, digest_folder
from toolkit.artefacts.shared import SharedStore
from toolkit.config.schema import StoreSettings
from toolkit.errors import DeployError

PARTS = {"what": "an artefact of the test"}


def use(settings, folder):
    """A look, a put, a get."""
    package, fingerprint = folder / "package", digest_data(PARTS)
    package.mkdir(exist_ok=True)
    (package / "model.om").write_bytes(b"model" * 100_000)
    store = SharedStore.open(StoreSettings("shared", **settings))
    had = store.record("convert", fingerprint)
    digest = digest_folder(package)
    store.put(digest, package)
    store.put_record("convert", fingerprint, {"digest": digest, "parts": PARTS})
    back = folder / secrets.token_hex(4)
    store.get(digest, back)
    same = (back / "model.om").read_bytes() == (package / "model.om").read_bytes()
    return {"had": "yes" if had else "no", "put": "yes", "got": "the same" if same else "another"}


for asked in json.load(sys.stdin):
    try:
        answer = use(asked, Path(sys.argv[1]))
    except DeployError as error:
        answer = {"error": str(error), "hint": error.hint, "code": error.exit_code}
    sys.stdout.write(json.dumps(answer) + "\n")
