"""What a column's name says of it."""

import pyarrow as pa
import pytest

from token_pipelines.errors import SourceContractError
from token_pipelines.source.contract import REQUIRED, Contract
from token_pipelines.source.databases.postgres import POSTGRES

KINDS = {"created_at": pa.timestamp("us", "UTC"), "expires_at": pa.timestamp("us", "UTC")}

SECRETS = """
secret client_secret secret_key secretKey secret_hash webhook_secret secret_enc
token token_hash token_digest refresh_token hashed_token encrypted_token tokenHash TOKEN hash
token_value tokenValue token_sha256 sha256 sha256_hash token_sha1 sha512 key_sha256 token_md5
password passwords password_hash passwd user_pwd pwd passphrase passcode passcode_hash
credential credentials user_credential credential_hash
key api_key apiKey api_keys access_key auth_key token_key signing_key encryption_key
private_key private_key_pem privateKeyPem private_key_der
digest salt plaintext plaintext_token jwt bearer
"""

NAMES = """
token_type token_count tokens token_prefix token_last_four token_value_kind
key_id key_name fingerprint_sha256 public_key public_key_pem keyboard monkey keys_left
hashtag digestible salty secretary
credential_id credential_type credential_name credentialed
sha256_algorithm_id passenger pwds_left compass encoded
value validity shape
"""


def check(*names: str) -> None:
    fields = [pa.field(name, KINDS.get(name, pa.string())) for name in (*REQUIRED, *names)]
    Contract.check(pa.schema(fields), None, POSTGRES.dialect)


@pytest.mark.parametrize("name", SECRETS.split())
def test_name_of_a_secret_is_refused(name: str) -> None:
    with pytest.raises(SourceContractError, match=f"returns {name}, which looks like a secret or its hash; leave it"):
        check(name)


@pytest.mark.parametrize("name", NAMES.split())
def test_name_that_only_sounds_like_one_passes(name: str) -> None:
    check(name)
