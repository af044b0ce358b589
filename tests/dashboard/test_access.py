"""Access control, without sockets."""

from __future__ import annotations

import pytest

from trio_hub.dashboard.access import Access

TOKEN = "0123456789abcdef"


def access(host: str = "127.0.0.1") -> Access:
    return Access(TOKEN, host, 8788)


@pytest.mark.parametrize("name", ["127.0.0.1:8788", "localhost", "LOCALHOST:1", "[::1]:8788", "127.0.0.1"])
def test_on_this_machine_it_answers_to_its_names(name: str) -> None:
    assert access().is_for_us([(b"accept", b"*/*"), (b"host", name.encode())])


@pytest.mark.parametrize(
    "hosts",
    [[], ["evil.example:8788"], ["localhost.evil.example"], ["127.0.0.1", "evil.example"], [""], ["[::1"], ["\xff"]],
)
def test_on_this_machine_it_answers_to_no_other(hosts: list[str]) -> None:
    assert not access().is_for_us([(b"host", host.encode("latin-1")) for host in hosts])


def test_an_address_of_this_machine_only_is_one_of_its_names() -> None:
    assert access("127.0.0.2").is_for_us([(b"host", b"127.0.0.2:8788")])


def test_where_others_may_ask_names_are_not_known() -> None:
    assert access("0.0.0.0").is_for_us([(b"host", b"cluster.example:8788")])


@pytest.mark.parametrize(
    ("query", "right"),
    [
        (f"token={TOKEN}", True),
        (f"a=b&token={TOKEN}&c", True),
        (f"token=x&token={TOKEN}", True),
        ("", False),
        ("token=", False),
        (f"token={TOKEN}x", False),
        (f"token={TOKEN[:-1]}", False),
        (f"TOKEN={TOKEN}", False),
        ("token=%ff%00", False),
    ],
)
def test_the_token_in_the_query(query: str, right: bool) -> None:
    assert access().knows_by_query(query.encode()) is right


@pytest.mark.parametrize(
    ("name", "value", "right"),
    [
        ("authorization", f"Bearer {TOKEN}", True),
        ("authorization", f"bearer  {TOKEN} ", True),
        ("authorization", f"token {TOKEN}", True),
        ("authorization", TOKEN, False),
        ("authorization", f"Basic {TOKEN}", False),
        ("authorization", "Bearer ", False),
        ("authorization", "Bearer \xff", False),
        ("cookie", f"trio_hub_token_8788={TOKEN}", True),
        ("cookie", f'other="a b"; [odd]=1; trio_hub_token_8788={TOKEN}; last', True),
        ("cookie", f"trio_hub_token_8789={TOKEN}", False),
        ("cookie", "trio_hub_token_8788=", False),
        ("cookie", "", False),
        ("x-token", TOKEN, False),
    ],
)
def test_the_token_in_a_header(name: str, value: str, right: bool) -> None:
    assert access().knows_by_headers([(name.encode(), value.encode("latin-1"))]) is right


def test_the_cookie_that_is_set_is_one_that_is_taken() -> None:
    value, *attributes = access().set_cookie().split(b"; ")
    assert access().knows_by_headers([(b"cookie", value)])
    assert set(attributes) == {b"Path=/", b"HttpOnly", b"SameSite=Strict"}
