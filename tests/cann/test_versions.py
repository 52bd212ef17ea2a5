"""CANN's version numbers are ordered as CANN appeared."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolkit.cann.versions import choose, holds, newer, parse_version

# In the order of their release; each form has been seen on a package or in a vendor's table.
RELEASED = [
    "20.0.RC1",
    "20.0",
    "20.1.rc1",
    "20.2.alpha001",
    "20.2.rc1",
    "20.2",
    "5.0.2.alpha003",
    "5.0.2.alpha005",
    "5.0.2",
    "5.0.4.alpha002",
    "5.0.4",
    "5.0.4.6",
    "5.1.RC1.alpha001",
    "5.1.RC1.alpha005",
    "5.1.RC1",
    "5.1.RC1.1",
    "5.1.RC2",
    "6.0.0.alpha003",
    "6.0.1",
    "6.3.RC2",
    "7.0.RC1",
    "7.0.0.beta1",
    "7.0.0",
    "8.0.RC1.alpha003",
    "8.0.RC1",
    "8.0.RC3",
    "8.0.0.alpha002",
    "8.0.0",
    "8.1.RC1.beta1",
    "8.1.RC1",
    "8.2.RC1.alpha003",
    "8.2.RC1",
    "8.3.RC1.alpha002",
    "8.3.RC1.alpha003",
    "8.5.0.alpha002",
    "8.5.0",
    "8.5.2",
    "9.0.0.beta1",
    "9.0.0",
    "9.1.0.beta.1",
    "9.1.0-beta.3",
    "10.0.0",
]

versions = st.builds(
    lambda numbers, candidate, preview, build: ".".join(numbers) + candidate + preview + build,
    st.lists(st.integers(0, 30).map(str), min_size=2, max_size=3),
    st.sampled_from(["", ".RC1", ".RC2", ".rc1", ".RC10", ".T63"]),
    st.sampled_from(["", ".alpha001", ".alpha002", ".beta1", ".beta.1", "-beta.1"]),
    st.sampled_from(["", ".1", ".12"]),
)


@dataclass
class Range:
    since: str | None = None
    before: str | None = None


def test_releases_sort_in_the_order_of_their_appearance() -> None:
    parsed = [parse_version(text) for text in RELEASED]
    assert None not in parsed
    assert parsed == sorted(parsed)  # type: ignore[type-var]
    assert len(set(parsed)) == len(RELEASED)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "latest",
        "8",
        "8.",
        "8.0.RC1.gamma",
        "8.0.RC1;rm",
        "1.76.22.3.220",
        "8.0\n9",
        "٨.٠",
        "-1.0",
        "8..0",
    ],
)
def test_what_is_no_version_is_none(text: str) -> None:
    assert parse_version(text) is None
    assert not newer(text, "5.0")
    assert not newer("5.0", text)
    assert not holds(Range(), text)


def test_spelling_does_not_matter() -> None:
    for one, other in [
        ("8.0.rc1", "8.0.RC1"),
        ("v8.5.0", "8.5.0"),
        (" 5.0.4 ", "5.0.4"),
        ("9.1.0.beta.1", "9.1.0.beta1"),
    ]:
        assert parse_version(one) == parse_version(other)


@given(versions, versions, versions)
def test_the_order_is_total(a: str, b: str, c: str) -> None:
    x, y, z = parse_version(a), parse_version(b), parse_version(c)
    assert x is not None
    assert y is not None
    assert z is not None
    assert (x < y) + (x == y) + (x > y) == 1
    assert newer(a, b) == (x > y)
    assert not (newer(a, b) and newer(b, a))
    if x <= y <= z:
        assert x <= z


@given(versions)
def test_a_preview_comes_before_what_it_previews(text: str) -> None:
    plain = text.split(".alpha")[0].split(".beta")[0].split("-beta")[0]
    if plain != text:
        assert newer(plain, text)


@given(versions, versions)
def test_neighbouring_ranges_share_no_version_and_leave_none_out(edge: str, version: str) -> None:
    below, above = Range(before=edge), Range(since=edge)
    assert holds(below, version) != holds(above, version)
    assert choose([below, above], version) is (below if holds(below, version) else above)
    assert not holds(Range(since=edge, before=edge), version)


def test_the_first_fitting_range_is_chosen() -> None:
    old, new = Range(before="5.0.4"), Range(since="5.0.4", before="8.5")
    for version, expected in [
        ("20.2", old),
        ("5.0.3", old),
        ("5.0.4", new),
        ("8.3.RC1", new),
        ("8.5", None),
        ("x", None),
    ]:
        assert choose([old, new], version) is expected
