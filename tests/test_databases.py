"""Each database: one flow for all of them, SQL that its dialect can say, and time-outs that its driver takes."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest.mock import create_autospec

import pytest
import yaml
from answers import CHOICES, ROOT, Render
from checks import contents
from google.cloud import bigquery
from sqlalchemy import URL, create_engine, delete, insert, select
from sqlalchemy.exc import OperationalError
from sqlalchemy.schema import CreateTable

ROWS = yaml.safe_load((ROOT / "data/databases.yml").read_text("utf-8"))
DATABASES = [name for name in CHOICES["database"] if name != "none"]
SERVERS = [name for name in DATABASES if "DATABASE_PORT" in ROWS[name]["settings"]]


@contextmanager
def etl_of(project: Path) -> Iterator[ModuleType]:
    """Import `flows.etl` of a project, for this time only."""
    others = taken_out()
    sys.path.insert(0, str(project))
    try:
        import flows.etl

        yield flows.etl
    finally:
        sys.path.remove(str(project))
        taken_out()
        sys.modules.update(others)


def taken_out() -> dict[str, ModuleType]:
    """Return the modules of projects that are imported, and forget them."""
    names = [name for name in sys.modules if name.split(".")[0] in ("flows", "ops", "runtime")]
    return {name: sys.modules.pop(name) for name in names}


@pytest.fixture(scope="module")
def etl(render: Render) -> Iterator[ModuleType]:
    with etl_of(render(database="postgresql")) as module:
        yield module


def orders(etl: ModuleType, **amounts: str) -> list[Any]:
    """Return orders: `_1="10.50"` is the amount of order 1."""
    return [
        etl.Order(order_id=name[1:], customer="Acme", ordered_on="2026-03-02", amount=amount)
        for name, amount in amounts.items()
    ]


def test_no_flow_depends_on_the_database(render: Render) -> None:
    def flows(project: Path) -> dict[str, bytes]:
        return {name: text for name, text in contents(project).items() if name.startswith("flows/") or "_etl" in name}

    first, *others = (flows(render(database=name)) for name in DATABASES)
    assert "tests/test_etl.py" in first
    assert all(other == first for other in others)


@pytest.mark.parametrize("name", DATABASES)
def test_every_dialect_can_say_what_the_flow_asks(name: str, etl: ModuleType) -> None:
    dialect = URL.create(ROWS[name]["driver"]).get_dialect()()
    order = etl.Order(order_id=1, customer="Acme", ordered_on="2026-03-02", amount="10.50")
    said = [
        str(statement.compile(dialect=dialect))
        for statement in (
            CreateTable(etl.ORDERS),
            delete(etl.ORDERS).where(etl.ORDERS.c.order_id.in_([1])),
            insert(etl.ORDERS).values([order.model_dump(), order.model_dump()]),
        )
    ]
    assert [text.split()[0] for text in said] == ["CREATE", "DELETE", "INSERT"]


@pytest.mark.parametrize("name", SERVERS)
def test_a_server_that_is_not_there_is_told_by_its_driver(name: str) -> None:
    row: dict[str, Any] = ROWS[name]
    url = URL.create(row["driver"], "flows", "secret", "127.0.0.1", 9, "sample")
    engine = create_engine(url, connect_args=row["arguments"])
    with pytest.raises(OperationalError) as caught:  # an argument that the driver does not know is a TypeError
        engine.connect()
    assert "secret" not in str(caught.value)


def test_snowflake_knows_its_arguments() -> None:
    from snowflake.connector.connection_config import ConnectionConfig

    assert {*ROWS["snowflake"]["arguments"]} <= {field.name for field in fields(ConnectionConfig)}


def test_bigquery_gets_one_statement_for_what_belongs_together(render: Render) -> None:
    client = create_autospec(bigquery.Client, instance=True)
    client.query_and_wait.return_value.configure_mock(schema=[], total_rows=0, num_dml_affected_rows=2)
    engine = create_engine("bigquery://acme/sales?user_supplied_client=true", connect_args={"client": client})
    with etl_of(render(database="bigquery")) as etl, engine.begin() as connection:
        etl.upsert(connection, orders(etl, _1="10.50", _2="2"))
    ((said,), options) = client.query_and_wait.call_args_list[-1]
    assert said.startswith("MERGE INTO `orders` ")
    given = [parameter.value for parameter in options["job_config"].query_parameters]
    assert given[::4] == [1, 2]
    kinds = [call.args[0].split()[0] for call in client.query_and_wait.call_args_list]
    assert [kind for kind in kinds if kind != "CREATE"] == ["MERGE"]  # by itself, each of several would stay


def test_that_statement_adds_and_replaces_where_it_can_be_run(render: Render) -> None:
    engine = create_engine("duckdb:///:memory:")
    with etl_of(render(database="bigquery")) as etl, engine.connect() as connection:
        etl.upsert(connection, orders(etl, _1="1", _2="2"))
        etl.upsert(connection, orders(etl, _2="2.50", _3="3"))
        etl.upsert(connection, [])
        found = connection.execute(select(etl.ORDERS.c.order_id, etl.ORDERS.c.amount).order_by("order_id")).all()
    assert [(number, float(amount)) for number, amount in found] == [(1, 1), (2, 2.5), (3, 3)]


@pytest.mark.parametrize("name", DATABASES)
def test_what_is_promised_of_a_transaction_is_so(name: str, render: Render) -> None:
    told = (render(database=name) / "runtime/warehouse.py").read_text("utf-8")
    assert ("all is written, or nothing" in told) == ROWS[name].get("transactions", True)
    assert ("MERGE" in told) == (not ROWS[name].get("transactions", True))
