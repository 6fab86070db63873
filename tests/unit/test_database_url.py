"""Database URLs as other programs write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from rollwave.errors import ConfigurationError
from rollwave.store.url import CONNECT_TIMEOUT_SECONDS, read, remarks

URL = "postgresql://me:s%2Fecret@a:5432,b:5433/fleet"


def test_a_url_without_parameters_is_unchanged() -> None:
    url = read(URL)
    assert (url.dsn, url.pooled, url.application_name, url.connect_timeout) == (
        URL,
        False,
        "rollwave",
        CONNECT_TIMEOUT_SECONDS,
    )
    assert "ecret" not in repr(url)


@pytest.mark.parametrize(
    "parameter",
    [
        *("channel_binding=require", "channel_binding=prefer", "channel_binding=disable", "gssencmode=prefer"),
        *("keepalives=1", "keepalives_idle=30", "tcp_user_timeout=10", "sslsni=1", "pgbouncer=false"),
        *("schema=public", "connection_limit=1", "pool_timeout=20", "load_balance_hosts=disable"),
        *("client_encoding=utf8", "client_encoding=latin1"),
    ],
)
def test_parameters_without_meaning_here_are_dropped(parameter: str) -> None:
    assert read(f"{URL}?{parameter}") == read(URL)
    before, after = f"{URL}?sslmode=require", "options=-c%20a%3Db"
    assert read(f"{before}&{parameter}&{after}").dsn == f"{before}&{after}"


@pytest.mark.parametrize(
    "parameter",
    [
        *("sslmode=verify-full", "target_session_attrs=read-write", "options=endpoint%3Dep-1", "search_path=a+b"),
        *("statement_timeout=5000", "channel_binding=always", "gssencmode=require", "schema=other", "foo=bar"),
        *("pgbouncer=maybe", "connect_timeout=soon", "host=/run/postgresql", "password=a%26b"),
    ],
)
def test_other_parameters_are_left_to_postgresql(parameter: str) -> None:
    assert read(f"{URL}?{parameter}").dsn == f"{URL}?{parameter}"


@pytest.mark.parametrize("value", ["true", "True", "1"])
def test_pgbouncer_true_means_a_pooler(value: str) -> None:
    url = read(f"{URL}?pgbouncer={value}&sslmode=require")
    assert (url.dsn, url.pooled) == (f"{URL}?sslmode=require", True)


def test_application_name_and_connect_timeout_are_used() -> None:
    assert read(f"{URL}?application_name=my+fleet").application_name == "my fleet"
    assert read(f"{URL}?fallback_application_name=a").application_name == "a"
    assert read(f"{URL}?application_name=b&fallback_application_name=a").application_name == "b"
    assert read(f"{URL}?connect_timeout=30").connect_timeout == 30
    assert read(f"{URL}?connect_timeout=0").connect_timeout == CONNECT_TIMEOUT_SECONDS, "there is a maximum timeout"
    assert read(f"{URL}?connect_timeout=86400").connect_timeout == 60


@pytest.mark.parametrize("scheme", ["postgresql+asyncpg", "postgresql+psycopg2", "postgres", "POSTGRESQL"])
def test_url_schemes_of_other_libraries_are_accepted(scheme: str) -> None:
    assert read(URL.replace("postgresql", scheme)).dsn == URL


@pytest.mark.parametrize(
    ("parameter", "named"),
    [
        ("sslmode=nonsense", "sslmode"),
        ("target_session_attrs=best", "target_session_attrs"),
        ("sslrootcert=/no/such/file", "sslrootcert"),
        ("sslcert=/no/such/file", "sslcert"),
    ],
)
def test_an_invalid_value_is_named_by_its_parameter(parameter: str, named: str) -> None:
    with pytest.raises(ConfigurationError, match=named) as refused:
        read(f"{URL}?{parameter}")
    assert "ecret" not in f"{refused.value} {refused.value.hint}"


def test_existing_certificate_files_are_used(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").touch()
    assert read(f"{URL}?sslmode=verify-full&sslrootcert={tmp_path}/ca.pem").dsn.endswith("/ca.pem")


@pytest.mark.parametrize("query", ["foo", "a@b=c", "=x"])
def test_an_invalid_query_is_not_quoted_as_it_may_be_part_of_a_password(query: str) -> None:
    with pytest.raises(ValueError, match=r"^not a parameter$"):
        read(f"{URL}?{query}")


def test_risky_url_parameters_give_a_remark_with_a_hint() -> None:
    assert remarks(URL, URL) == []
    binding, weaker = f"{URL}?channel_binding=require&sslmode=require", f"{URL}?channel_binding=prefer"
    for urls in ((binding, binding), (URL, binding), (binding, URL)):
        [remark] = remarks(*urls)
        assert "channel_binding" in remark.text
        assert "verify-full" in remark.hint
    assert remarks(f"{URL}?channel_binding=require&sslmode=verify-full", weaker) == []
    pooler = f"{URL}?pgbouncer=true"
    [remark] = remarks(pooler, pooler)
    assert "ROLLWAVE_DATABASE_DIRECT_URL" in remark.hint
    assert remarks(pooler, URL) == []
    [remark] = remarks(f"{URL}?connection_limit=1", URL)
    assert "ROLLWAVE_DATABASE_POOL_SIZE" in remark.hint
    assert remarks("postgresql://[::1", URL) == []
