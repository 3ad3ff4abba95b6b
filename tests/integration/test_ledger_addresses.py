"""Addresses in the ledger: keyed hashes, and nothing else."""

import hmac

import pytest
from support.ledger import HASH, NOW, ledger_at, query

from token_pipelines.ledger.ledger import Ledger


def test_addresses_are_kept_as_keyed_hashes_only(ledger: Ledger, database_url: str) -> None:
    found = ledger.hash_address("Ada@Example.org ")
    again = ledger_at(database_url)
    assert again.hash_address("ada@example.org") == found
    assert again.hash_address("ada@example.com") != found
    assert again.suppressions.add([found], at=NOW, cause="refused") == 1
    assert again.suppressions.add([found], at=NOW, cause="once more") == 0
    assert ledger.suppressions.among([found, HASH]) == {found}
    assert ledger.suppressions.among([]) == set()
    again.close()


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("ada@bücher.example", "ada@xn--bcher-kva.example"),
        ("Ada@BÜCHER.example", "ada@bücher.example"),
        ("ada@straße.example", "ada@xn--strae-oqa.example"),
    ],
)
def test_hash_of_one_address_however_its_domain_is_spelt(ledger: Ledger, one: str, other: str) -> None:
    assert ledger.hash_address(one) == ledger.hash_address(other)
    assert ledger.hash_address(one) != ledger.hash_address("ada@strasse.example")


def test_hash_of_a_plain_address_is_what_older_ledgers_hold(ledger: Ledger) -> None:
    """The suppressions of years ago stay valid."""
    ledger.hash_address("")  # makes the key
    [(key,)] = query(ledger, "SELECT value FROM token_pipelines.secrets")
    for address in ("ada@example.org", " Ada+B@Example.ORG", "ada@xn--bcher-kva.example", "ada@no domain"):
        expected = hmac.digest(bytes(key), address.strip().lower().encode(), "sha256")
        assert ledger.hash_address(address) == expected


def test_hash_of_half_a_character(ledger: Ledger) -> None:
    """A report may name anything."""
    assert ledger.hash_address("ada\ud800@example.org") != ledger.hash_address("ada@example.org")


def test_hash_key_is_each_ledgers_own(ledger: Ledger) -> None:
    before = ledger.hash_address("ada@example.org")
    query(ledger, "DROP SCHEMA token_pipelines CASCADE")
    fresh = ledger_at(ledger.url.parsed.render_as_string(hide_password=False))
    fresh.migrate()
    assert fresh.hash_address("ada@example.org") != before
    fresh.close()
