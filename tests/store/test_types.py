"""Any number of values in one parameter."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import ColumnElement, Connection, Integer, Text, func, literal, select

import rowtine
from rowtine.clock import new_id
from rowtine.store.prepared import Prepared
from rowtine.store.types import Id, among

ODD = ["plain", "a, b", 'with "quotes"', "back\\slash", "{braces}", "null", "", "two\nlines", "ü"]


def found(connection: Connection, value: ColumnElement[Any], values: list[Any]) -> bool:
    statement = Prepared(select(func.count()).where(among(value, "these")))
    return bool(statement.execute(connection, {"these": values}).scalar_one())


@pytest.mark.parametrize("name", ODD)
def test_a_name_is_found_whatever_characters_it_has(database_url: str, name: str) -> None:
    app = rowtine.App(database_url)
    with app.database.reading() as connection:
        mine = literal(name, Text())

        assert found(connection, mine, ODD)
        assert not found(connection, mine, [each for each in ODD if each != name])
        assert not found(connection, mine, [])


def test_numbers_and_ids_are_found(database_url: str) -> None:
    app = rowtine.App(database_url)
    id, other = new_id(), new_id()
    with app.database.reading() as connection:
        assert found(connection, literal(7, Integer()), list(range(1000)))
        assert not found(connection, literal(7, Integer()), [6, 8])
        assert found(connection, literal(id, Id()), [other, id])
        assert not found(connection, literal(id, Id()), [other])
