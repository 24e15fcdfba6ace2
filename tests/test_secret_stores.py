"""Where secrets are kept is no business of a flow."""

from answers import CHOICES, Render
from checks import contents


def test_no_flow_depends_on_the_store(render: Render) -> None:
    def flows(store: str, **answers: str) -> dict[str, bytes]:
        found = contents(render(secrets_backend=store, **answers))
        return {name: content for name, content in found.items() if name.startswith("flows/") or "test_etl" in name}

    for database in CHOICES["database"]:
        first, *others = (flows(store, database=database) for store in CHOICES["secrets_backend"])
        assert "flows/etl.py" in first
        assert all(other == first for other in others)
