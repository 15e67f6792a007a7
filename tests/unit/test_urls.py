"""Journal URLs: how they are written, what is wrong with one, and that nobody sees a password."""

from __future__ import annotations

import importlib.util
import traceback
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from durable_flow import Journal
from durable_flow.errors import JournalUrlError
from durable_flow.journal.memory import MemoryStore
from durable_flow.journal.url import canonical_url, is_postgres, masked, open_store, postgres_dsn

# One spelling of the scheme; the rest as it was written, because asyncpg reads it as libpq does.
POSTGRES = [
    "postgresql://",
    "postgresql:///jobs",
    "postgresql://host",
    "postgresql://host/jobs",
    "postgresql://host:5433/jobs",
    "postgresql://me@host/jobs",
    "postgresql://me:secret@host:5433/jobs",
    "postgresql://me:p%40%3A%2F%3F%23%25@host/jobs",
    "postgresql://me:a:b@host/jobs",
    "postgresql://me%40corp:secret@host/jobs",
    "postgresql://me:@host/jobs",
    "postgresql:///jobs?host=/run/postgresql",
    "postgresql:///jobs?host=/run/postgresql&port=5433",
    "postgresql://me@/jobs?host=%2Frun%2Fpostgresql&port=5433",
    "postgresql://me@%2Frun%2Fpostgresql:5433/jobs",
    "postgresql:///jobs?port=5433",
    "postgresql://[::1]:5432/jobs",
    "postgresql://me:secret@[2001:db8::1]/jobs",
    "postgresql://one:5432,two:5433/jobs?target_session_attrs=primary",
    "postgresql://one,two/jobs",
    "postgresql:///jobs?host=one,two&port=5432,5433",
    "postgresql:///jobs?host=one,two&port=5433",
    "postgresql://host/jobs?sslmode=require",
    "postgresql://host/jobs?sslmode=verify-full&sslrootcert=/etc/ca.pem&sslcert=/c.pem&sslkey=/k.pem&sslpassword=x",
    "postgresql://host/jobs?user=me@corp&password=secret",
    "postgresql://host/jobs?passfile=/root/.pgpass",
    "postgresql:///?service=jobs".replace("/?", "?"),
    "postgresql://host/jobs?application_name=jobs&search_path=a,b&options=-c%20geqo%3Doff",
    "postgresql://host/größe",
]


@pytest.mark.parametrize("url", POSTGRES)
def test_a_postgres_url_has_one_scheme_and_is_otherwise_left_alone(url: str) -> None:
    for scheme in ("postgresql://", "postgres://", "postgresql+asyncpg://"):
        written = url.replace("postgresql://", scheme)
        assert is_postgres(written)
        assert canonical_url(written) == postgres_dsn(written) == url


def test_a_database_that_is_not_named_is_left_to_the_environment() -> None:
    assert canonical_url("postgresql://host/") == "postgresql://host"
    assert canonical_url("postgresql:///?host=/run") == "postgresql://?host=/run"


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("postgresql+psycopg2://me@host/jobs", "driver is asyncpg, not psycopg2"),
        ("postgres+psycopg://me@host/jobs", "write postgresql://"),
        ("postgresql://host:port/jobs", "port is a number"),
        ("postgresql://host:0/jobs", "from 1 to 65535"),
        ("postgresql://host:99999/jobs", "from 1 to 65535"),
        ("postgresql://host:5432,two:x/jobs", "port is a number"),
        ("postgresql://host,,two/jobs", "commas"),
        ("postgresql://me@:5432/jobs", "hosts are written"),
        ("postgresql://::1/jobs", "brackets"),
        ("postgresql://[::1/jobs", "brackets"),
        ("postgresql:///jobs?host=::1", "brackets"),
        ("postgresql:///jobs?port=five", "port is a number"),
        ("postgresql:///jobs?host=a,b&port=1,2,3", "as many as hosts"),
        ("postgresql://host/jobs?port=5433", "stand twice"),
        ("postgresql://host/jobs?host=/run", "stand twice"),
        ("postgresql://me:s3c@ret@host/jobs", "@ as %40"),
        ("postgresql://me:12/s3cret@host/jobs", "/ as %2F"),
        ("postgresql://me:12?s3cret@host/jobs", "name=value"),
        ("postgresql://me:12#s3cret@host/jobs", "# as %23"),
        ("postgresql://me:s3cret%@host/jobs", "write the character itself as %25"),
        ("postgresql://me:s3cret%zz@host/jobs", "write the character itself as %25"),
        ("postgresql://me:s3cret%00@host/jobs", "%25"),
        ("postgresql://me:s3cret%ff@host/jobs", "not UTF-8"),
        ("postgresql://me:s3cret\udc80@host/jobs", "not UTF-8"),
        ("postgresql://me:s3cret\u2100@host/jobs", "by its number"),
        ("postgresql://me:s3 cret@host/jobs", "blank as %20"),
        ("postgresql://me:s3cret@host/jobs\n", "control character"),
        ("postgresql://me:s3cret", "port is a number"),
        ("postgresql://host/jobs?sslmode", "name=value"),
        ("postgresql://host/jobs?sslmode=on", "sslmode is one of allow, disable"),
        ("postgresql://host/jobs?ssl=true", "sslmode=require"),
        ("postgresql://host/jobs?target_session_attrs=master", "prefer-standby"),
        ("postgresql://host/jobs?channel_binding=require", "leave it out"),
        ("postgresql://host/jobs?connect_timeout=3", "leave it out"),
        ("postgresql://host/jobs?a%20b=1", "letters"),
    ],
)
def test_what_is_wrong_with_a_postgres_url_is_found_before_anything_connects(url: str, says: str) -> None:
    with pytest.raises(JournalUrlError, match=says) as refused:
        Journal(url)
    assert "s3c" not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("", "is not a URL"),
        ("jobs.db", "is not a URL"),
        ("sqlite:/jobs.db", "'sqlite:/jobs.db' is not a URL"),
        ("sqlite://", "names no file"),
        ("sqlite:///", "names no file"),
        ("sqlite:///:memory:", "memory://"),
        ("sqlite://jobs.db", "third slash"),
        ("sqlite:///jobs.db?mode=ro", "takes no options"),
        ("sqlite:///file:jobs.db", "by its path"),
        ("sqlite+pysqlcipher:///jobs.db", "driver"),
        ("oracle", "is not a URL"),
        ("postgresql+://host/jobs", "is not a URL"),
        ("memory://x", "no journals in memory"),
        ("mysql://u:s3cret@h/d", "no journals in mysql"),
        ("postgresql//me:s3cret@host/jobs", "is not a URL"),
        ("host=h user=me password=s3cret", "is not a URL"),
        ("me:s3cret@host/jobs", "is not a URL"),
    ],
)
def test_what_is_no_url_of_a_journal_is_refused_with_those_that_are(url: str, says: str) -> None:
    with pytest.raises(JournalUrlError, match=says) as refused:
        Journal(url)
    assert "sqlite:///relative.db" in str(refused.value)
    assert "postgresql://user:password@host/database" in str(refused.value)
    assert "s3c" not in "".join(traceback.format_exception(refused.value))


@pytest.mark.parametrize(
    "url",
    ["sqlite:///a/jobs.db", "sqlite+aiosqlite:///a/jobs.db", "sqlite:////ROOT/a/jobs.db", "sqlite:///./a/b/../jobs.db"],
)
def test_one_file_has_one_url(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert canonical_url(url.replace("/ROOT", str(tmp_path))) == f"sqlite:///{tmp_path}/a/jobs.db"


def test_memory_is_a_store_of_its_own() -> None:
    assert isinstance(open_store("memory://"), MemoryStore)


def test_postgres_without_its_driver_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr("durable_flow.journal.url.find_spec", lambda name: None if name == "asyncpg" else find(name))
    with pytest.raises(JournalUrlError, match=r"pip install 'durable-flow\[postgres\]'") as refused:
        open_store("postgresql://me:s3cret@host/jobs")
    assert "s3cret" not in str(refused.value)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:s3cret@host:5433/jobs?sslmode=require", "postgresql://me:***@host:5433/jobs?sslmode=require"),
        ("postgresql://me:s3:cret@[::1]:5432,two/jobs", "postgresql://me:***@[::1]:5432,two/jobs"),
        ("postgresql://me@host/jobs?user=you@corp", "postgresql://me@host/jobs?user=you@corp"),
        ("postgresql://one:1,two:2/jobs", "postgresql://one:1,two:2/jobs"),
        ("postgresql:///jobs?host=/run&password=s3cret&port=1", "postgresql:///jobs?host=/run&password=***&port=1"),
        ("postgresql:///jobs?sslkey=/k&sslpassword=s3cret", "postgresql:///jobs?sslkey=/k&sslpassword=***"),
        ("postgresql:///jobs?passfile=/root/.pgpass", "postgresql:///jobs?passfile=/root/.pgpass"),
        ("postgresql:///jobs?pass%77ord=s3cret", "postgresql:///jobs?pass%77ord=***"),
        ("sqlite:////a:b@c/jobs.db", "sqlite:////a:b@c/jobs.db"),
        ("memory://", "memory://"),
        # What is the password there, nobody knows for sure.
        ("postgresql://me:s3@cr/et@host/jobs", "postgresql://me:***"),
        ("postgresql://me:s3cret", "postgresql://me:***"),
    ],
)
def test_a_url_is_shown_without_its_password(url: str, shown: str) -> None:
    assert masked(url) == shown


# It is no part of anything else, and stays as it is when it is percent-encoded.
MARK = "Zq7"
PIECE = st.text(st.sampled_from("@:/?#%[]=+,. \\'\"é1ab"), max_size=4)
PASSWORDS = st.builds(lambda a, b, c: f"{a}{MARK}{b}{MARK}{c}", PIECE, PIECE, PIECE)
WRITTEN = [
    "postgresql://me:{}@host/jobs",
    "postgres://me:{}@host:5433,two/jobs?sslmode=require&user=you@corp",
    "postgresql+asyncpg://me%40corp:{}@[::1]:5432/jobs",
    "postgresql+psycopg2://me:{}@host/jobs",
    "postgresql://me:{}@/jobs?host=/run",
    "postgresql:///jobs?host=/run&password={}",
    "postgresql://me@host/jobs?sslpassword={}&sslmode=require",
    "postgresql://me:{0}@host/jobs?password={0}",
    "mysql://me:{}@host/jobs",
    "postgresql//me:{}@host/jobs",
    "me:{}@host/jobs",
    "host=host user=me password={}",
]


@given(st.sampled_from(WRITTEN), PASSWORDS, st.booleans())
@example(WRITTEN[0], f"@?/{MARK}", False)
@example(WRITTEN[0], f"12#{MARK}", False)
@example(WRITTEN[0], f"12?a={MARK}", False)
@example(WRITTEN[5], f"@#{MARK}", False)
@example(WRITTEN[-2], f"//{MARK}", False)
def test_no_part_of_a_password_is_ever_shown(written: str, password: str, encoded: bool) -> None:
    url = written.format(quote(password, safe="") if encoded else password)
    assert MARK not in masked(url)
    try:
        shown = repr(Journal(url))
    except JournalUrlError as refused:
        shown = "".join(traceback.format_exception(refused))
    assert MARK not in shown


@given(PASSWORDS)
def test_a_password_that_is_percent_encoded_is_taken_as_it_is(password: str) -> None:
    url = f"postgresql://me:{quote(password, safe='')}@host/jobs"
    assert canonical_url(url) == url
