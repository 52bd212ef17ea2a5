"""Differences between old and new contents: rebuilt by the agent's own function, and never dear."""

from __future__ import annotations

import hashlib
import io
import itertools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolkit.errors import InputError
from toolkit.remote import delta
from toolkit.remote.delta import BLOCK, Delta, chunks_of, delta_of, pack_index, unpack_index

AGENT = Path(__file__).resolve().parents[2] / "toolkit" / "onboard" / "agent.py"
FRAME = 5
namespace: dict[str, Any] = {"__name__": "agent"}
exec(compile(AGENT.read_text(encoding="utf-8"), str(AGENT), "exec"), namespace)
rebuild: Callable[[Any, bytes], bytes] = namespace["rebuild"]


def weights(count: int, seed: int = 0, dtype: str = "f4") -> np.ndarray:
    return np.random.default_rng(seed).normal(size=count).astype(dtype)


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def make(folder: Path, old: bytes, new: bytes, index_only: bool = False) -> Delta | None:
    """The delta between two contents, as install() asks for it."""
    for data in (old, new):
        (folder / sha(data)).write_bytes(data)
    known = chunks_of(io.BytesIO(old)) if index_only else folder / sha(old)
    path = folder / sha(new)
    return delta_of(sha(old), sha(new), len(new), lambda: path.open("rb"), known)


def sent(found: Delta, start: int = 0) -> int:
    return sum(len(payload) + FRAME for payload, _ in found.payloads(start))


def apply(found: Delta, old: bytes, start: int = 0) -> bytes:
    base = io.BytesIO(old)
    return b"".join(rebuild(base, payload) for payload, _ in found.payloads(start))


def test_steps_may_go_as_they_are(tmp_path: Path) -> None:
    """Each by itself, in any mixture: a line shows its speed in the middle of a file."""
    old = weights(400_000)
    new = (old + weights(400_000, 1) / 100).tobytes() + b"tail"
    found = make(tmp_path, old.tobytes(), new)
    assert found is not None
    for pattern in ([True], [False], [True, False], [False, False, True]):
        answers = itertools.cycle(pattern)
        payloads = [payload for payload, _ in found.payloads(0, lambda: next(answers))]  # noqa: B023
        assert b"".join(rebuild(io.BytesIO(old.tobytes()), payload) for payload in payloads) == new
    plain = sum(len(payload) for payload, _ in found.payloads(0, lambda: True))
    assert len(new) < plain < 1.001 * len(new) + 1024


# ------------------------------------------------------------------------------------------ any content


@st.composite
def contents(draw: st.DrawFn) -> bytes:
    """Bytes as files have them: noise, weights, text, zeros."""
    size = draw(st.integers(0, 300_000))
    kind = draw(st.sampled_from(["noise", "f2", "f4", "i1", "text", "zeros"]))
    random = np.random.default_rng(draw(st.integers(0, 1 << 30)))
    if kind == "noise":
        return random.bytes(size)
    if kind == "text":
        return (b"the same line again\n" * (size // 20 + 1))[:size]
    if kind == "zeros":
        return bytes(size)
    values = random.normal(size=size) * (30 if kind == "i1" else 0.02)
    return values.astype(kind).tobytes()[:size]


@st.composite
def edited(draw: st.DrawFn, old: bytes) -> bytes:
    """The same content after some edits: inserted, removed, moved, nudged in ranges."""
    new = bytearray(old)
    for _ in range(draw(st.integers(0, 5))):
        at = draw(st.integers(0, len(new)))
        size = draw(st.integers(0, 100_000))
        kind = draw(st.sampled_from(["insert", "remove", "move", "nudge", "flip"]))
        random = np.random.default_rng(at * 7 + size)
        part = bytes(new[at : at + size])
        if kind == "insert":
            new[at:at] = random.bytes(size)
        elif kind == "remove":
            del new[at : at + size]
        elif kind == "move":
            del new[at : at + size]
            new[len(new) // 2 : len(new) // 2] = part
        elif kind == "flip" and at < len(new):
            new[at] ^= 255
        elif kind == "nudge":
            low = np.frombuffer(part, np.uint8).copy()
            low[:: draw(st.sampled_from([1, 2, 4]))] ^= random.integers(0, 4, 1, dtype=np.uint8)[0]
            new[at : at + size] = low.tobytes()
    return bytes(new)


@settings(max_examples=120, deadline=None)
@given(data=st.data(), index_only=st.booleans())
def test_rebuilt_is_the_new_content_and_never_dear(
    data: st.DataObject, index_only: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    old = data.draw(contents())
    new = data.draw(edited(old) | contents())
    found = make(tmp_path_factory.mktemp("delta"), old, new, index_only)
    if found is None:
        return  # sent whole, which costs what it costs
    assert apply(found, old) == new
    assert sent(found) <= 1.005 * len(new) + 200
    have = data.draw(st.integers(0, len(new)))
    start = found.resume(have)
    assert have - BLOCK < start <= have
    assert new[:start] + apply(found, old, start) == new
    # An old content that is not what it should be gives something else, never an error.
    if old and found.steps:
        apply(found, old[: len(old) // 2])


@settings(max_examples=40, deadline=None)
@given(data=contents())
def test_indexes_come_back_and_are_small(data: bytes) -> None:
    index = chunks_of(io.BytesIO(data))
    packed = pack_index(index)
    assert unpack_index(packed, len(data)) == index
    assert unpack_index(packed, len(data) + 1) is None
    assert len(packed) <= 0.002 * len(data) + 12


@pytest.mark.parametrize("data", [b"?", bytes(12), b"\0\0\0\1" + b"x" * 9, bytes(1200)])
def test_what_is_no_index_is_not_taken_for_one(data: bytes) -> None:
    for size in (0, 1, 100):
        assert unpack_index(data, size) is None


# ------------------------------------------------------------------------------------------ what is worth it


def test_one_changed_place_costs_one_chunk_at_most(tmp_path: Path) -> None:
    old = np.random.default_rng(0).bytes(4 << 20)
    new = old[: 1 << 20] + b"something new" + old[1 << 20 :]
    for index_only, limit in ((False, 150_000), (True, 150_000)):
        found = make(tmp_path, old, new, index_only)
        assert found
        assert sent(found) < limit
        assert apply(found, old) == new


def test_a_fine_tuned_layer_costs_its_own_bytes_where_the_old_file_is_known(tmp_path: Path) -> None:
    old = weights(1 << 20).tobytes()
    new = old[:-40_000] + weights(10_000, 1).tobytes()
    found = make(tmp_path, old, new)
    assert found
    assert sent(found) < 40_000 * 1.01 + 1000


@pytest.mark.parametrize(("dtype", "limit"), [("f4", 0.68), ("f2", 0.6)])
def test_retrained_weights_send_their_lower_bytes(dtype: str, limit: float, tmp_path: Path) -> None:
    base = weights(1 << 19)
    old = b"head" + base.astype(dtype).tobytes()
    new = b"head" + (base + weights(1 << 19, 1) / 100).astype(dtype).tobytes()
    found = make(tmp_path, old, new)
    assert found
    assert sent(found) < limit * len(new)
    assert apply(found, old) == new
    # Chunks alone find nothing in it, and planes of the new file alone save less.
    blind = make(tmp_path, old, new, index_only=True)
    assert blind is None or sent(blind) > sent(found)


def test_another_length_of_the_head_does_not_hide_equal_layout(tmp_path: Path) -> None:
    base = weights(1 << 18)
    old = b'{"name": "old"}' + base.tobytes()
    new = b'{"name": "rather longer"}' + (base + 1e-3 * weights(1 << 18, 1)).tobytes()
    found = make(tmp_path, old, new)
    assert found
    assert sent(found) < 0.68 * len(new)
    assert apply(found, old) == new


def test_noise_is_sent_whole(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    assert make(tmp_path, random.bytes(1 << 20), random.bytes(1 << 20)) is None


def test_a_bad_guess_costs_next_to_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where every sample promises much and the rest keeps nothing of it."""
    random = np.random.default_rng(11)
    old, new = random.bytes(3 << 20), random.bytes(3 << 20)
    monkeypatch.setattr(delta, "_by_planes", lambda *_: (0.01, 4))
    found = make(tmp_path, old, new)
    assert found
    assert found.steps[0].width == 4
    assert sent(found) <= 1.0005 * len(new)
    assert apply(found, old) == new


# ------------------------------------------------------------------------------------------ many boards


def test_boards_share_the_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = weights(1 << 18, 5).tobytes()
    new = (weights(1 << 18, 5) + 0.01 * weights(1 << 18, 6)).astype("f4").tobytes()
    encoded: list[int] = []
    cut: list[int] = []
    encode, chunks = delta.encode, delta.chunks_of

    def counted(step: delta.Step, *files: Any) -> bytes:
        encoded.append(step.start)
        return encode(step, *files)

    def cut_once(stream: Any) -> delta.Index:
        cut.append(1)
        return chunks(stream)

    monkeypatch.setattr(delta, "encode", counted)
    monkeypatch.setattr(delta, "chunks_of", cut_once)
    results: list[bytes] = []

    def send() -> None:
        path = tmp_path / sha(new)
        found = delta_of(sha(old), sha(new), len(new), lambda: path.open("rb"), tmp_path / sha(old))
        assert found
        results.append(apply(found, old))

    for data in (old, new):
        (tmp_path / sha(data)).write_bytes(data)
    threads = [threading.Thread(target=send) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [new] * 6
    assert encoded == list(range(0, len(new), BLOCK))
    assert len(cut) == 2


def test_a_file_that_shrinks_meanwhile_is_an_error_with_its_name(tmp_path: Path) -> None:
    base = weights(1 << 19, 8)
    new = (base + 0.01 * weights(1 << 19, 9)).astype("f4").tobytes()
    found = make(tmp_path, base.tobytes(), new)
    assert found
    (tmp_path / sha(new)).write_bytes(b"")
    with pytest.raises(InputError, match="became shorter"):
        sent(found)


def test_an_index_that_a_board_made_up_is_used_for_that_board_alone(tmp_path: Path) -> None:
    old, new = np.random.default_rng(1).bytes(300_000), np.random.default_rng(2).bytes(300_000)
    (tmp_path / sha(new)).write_bytes(new)

    def asked(index: delta.Index) -> Delta | None:
        return delta_of(sha(old), sha(new), len(new), lambda: (tmp_path / sha(new)).open("rb"), index)

    lie, truth = chunks_of(io.BytesIO(new)), chunks_of(io.BytesIO(old))
    lying = asked(lie)
    assert lying
    assert apply(lying, old) != new
    assert asked(truth) is None
