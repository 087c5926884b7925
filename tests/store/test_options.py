"""What the columns `options` and `details` hold."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rowtine import Retry
from rowtine.core.options import DEFAULT, CallOptions
from rowtine.store.details import details_before, details_to_text
from rowtine.store.options import options_from_text, options_to_text

names = st.lists(st.sampled_from(["KeyError", "shop.Sold"])).map(tuple)
policies = st.builds(
    Retry,
    max_attempts=st.none() | st.integers(1, 100),
    initial=st.floats(0, 100),
    factor=st.floats(1, 10),
    max_interval=st.floats(0, 1000),
    give_up_after=st.none() | st.floats(0, 1e9),
    retry_on=st.none() | names,
    never_on=names,
)
stored = st.builds(
    CallOptions,
    retry=st.none() | policies,
    timeout=st.none() | st.floats(0.001, 1e9),
    cancel_losers=st.booleans(),
)


@given(stored)
def test_options_come_back_as_they_were(options: CallOptions) -> None:
    assert options_from_text(options_to_text(options)) == options


def test_where_nothing_is_said_nothing_is_stored() -> None:
    assert options_to_text(CallOptions(delay=5, key="k", deadline=7)) is None
    assert options_from_text(None) == DEFAULT


def test_the_text_is_for_people_too() -> None:
    retry = Retry(max_attempts=3, retry_on=(ConnectionError, "shop.Sold"))

    text = options_to_text(CallOptions(retry=retry, timeout=3.0, cancel_losers=False))

    assert json.loads(text or "") == {
        "retry": {
            "max_attempts": 3,
            "initial": 0.5,
            "factor": 2.0,
            "max_interval": 300.0,
            "give_up_after": 86400.0,
            "retry_on": ["ConnectionError", "shop.Sold"],
        },
        "timeout": 3.0,
        "cancel_losers": False,
    }


def test_to_give_up_never_has_a_word_in_json() -> None:
    options = CallOptions(retry=Retry(give_up_after=math.inf))

    assert options_from_text(options_to_text(options)) == CallOptions(
        retry=Retry(give_up_after=None)
    )


@pytest.mark.parametrize(
    "text", ["[]", "7", "{", '{"timeout": "x"}', '{"retry": 3}', '{"retry": {"factor": 0}}']
)
def test_what_somebody_wrote_by_hand_stops_nobody(text: str) -> None:
    assert options_from_text(text) == DEFAULT


# --- details ------------------------------------------------------------------------------------


def test_an_attempt_is_told_what_those_before_it_said_and_not_what_it_said_itself() -> None:
    first = details_to_text(1, '{"page":  7}', None)

    assert details_before(1, first) is None
    assert details_before(2, first) == '{"page":  7}'

    second = details_to_text(2, "9", details_before(2, first))

    assert details_before(2, second) == '{"page":  7}'
    assert details_before(3, second) == "9"


@pytest.mark.parametrize("text", [None, "7", "{", '{"claim": "x"}'])
def test_where_nothing_that_fits_was_said_nothing_is_told(text: str | None) -> None:
    assert details_before(1, text) is None
