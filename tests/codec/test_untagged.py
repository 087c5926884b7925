"""JSON text without tags is taken as the parser gives it; whatever may be tagged is looked at."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowtine.codec import JsonCodec
from rowtine.codec.text import is_untagged
from rowtine.core.payload import Arguments
from rowtine.errors import DecodeError

PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("a$.", max_size=2), inner),
    max_leaves=10,
)


@pytest.mark.parametrize(
    "payload",
    ['{"$tuple":[1,2]}', '{"\\u0024tuple":[1,2]}', ' { "\\u0024tuple" : [1,2] }'],
)
def test_a_tag_is_seen_however_it_is_written(payload: str) -> None:
    assert JsonCodec().decode(payload) == (1, 2)
    assert JsonCodec().decode_arguments(f'{{"args":[{payload}]}}') == Arguments(((1, 2),))


@pytest.mark.parametrize("payload", ['{"$what":1}', '{"\\u0024what":1}', '[[{"$what":1}]]'])
def test_an_unknown_tag_is_refused_however_it_is_written(payload: str) -> None:
    with pytest.raises(DecodeError, match="unknown tag"):
        JsonCodec().decode(payload)


@pytest.mark.parametrize(("depth", "fits"), [(1, True), (200, True), (201, False)])
def test_the_limit_of_depth_is_the_same_without_tags(depth: int, fits: bool) -> None:
    payload = "[" * depth + "]" * depth

    if fits:
        assert json.dumps(JsonCodec().decode(payload)) == payload
    else:
        with pytest.raises(DecodeError, match="nested more than 200 deep"):
            JsonCodec().decode(payload)


def test_many_brackets_side_by_side_are_not_deep() -> None:
    payload = json.dumps([[]] * 1_000)

    assert not is_untagged(payload, 200)
    assert JsonCodec().decode(payload) == [[]] * 1_000


@pytest.mark.parametrize(
    "payload", ['{"args":{}}', '{"kwargs":[]}', '{"kwargs":null}', '{"args":0}', '{"args":null}']
)
def test_malformed_arguments_are_refused(payload: str) -> None:
    with pytest.raises(DecodeError, match="malformed arguments"):
        JsonCodec().decode_arguments(payload)


@given(PLAIN)
def test_plain_values_come_out_equal(value: Any) -> None:
    codec = JsonCodec()

    assert codec.decode(codec.encode(value)) == value
    given = Arguments((value,), {"name": value})
    assert codec.decode_arguments(codec.encode_arguments(given)) == given


@given(PLAIN)
def test_a_text_that_has_no_tag_is_what_the_walk_over_it_gives(value: Any) -> None:
    codec = JsonCodec()
    text = codec.encode(value)

    if is_untagged(text, 200):
        assert codec._decoder.value(json.loads(text)) == json.loads(text) == value
