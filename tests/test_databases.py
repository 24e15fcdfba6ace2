"""Each database: one flow for all of them, SQL that its dialect can say, and time-outs that its driver takes."""

import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from answers import CHOICES, ROOT, Render
from checks import contents
from sqlalchemy import URL, create_engine, delete, insert
from sqlalchemy.exc import OperationalError
from sqlalchemy.schema import CreateTable

ROWS = yaml.safe_load((ROOT / "data/databases.yml").read_text("utf-8"))
DATABASES = [name for name in CHOICES["database"] if name != "none"]
SERVERS = [name for name in DATABASES if "DATABASE_PORT" in ROWS[name]["settings"]]


@pytest.fixture(scope="module")
def etl(render: Render) -> Iterator[ModuleType]:
    project = render(database="postgresql")
    sys.path.insert(0, str(project))
    try:
        import flows.etl

        yield flows.etl
    finally:
        sys.path.remove(str(project))
        for name in [name for name in sys.modules if name.split(".")[0] in ("flows", "ops", "runtime")]:
            del sys.modules[name]


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
