from token_pipelines.defs.descriptions import COLUMN_SCHEMA
from token_pipelines.token_facts import TOKEN_COLUMNS


def test_every_column_is_described() -> None:
    assert [column.name for column in COLUMN_SCHEMA.columns] == [*TOKEN_COLUMNS, "tier", "threshold", "reason"]
    assert [column.name for column in COLUMN_SCHEMA.columns if not column.description] == []


def test_columns_that_may_be_empty_are_what_the_policy_adds_and_optional_instants() -> None:
    nullable = [column.name for column in COLUMN_SCHEMA.columns if column.constraints.nullable]
    assert nullable == ["replaced_at", "last_notified_at", "tier", "threshold", "reason"]
