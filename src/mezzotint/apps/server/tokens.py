"""Who may do what: tokens, of which only a hash is kept."""

from __future__ import annotations

import hashlib
import secrets
import time
from dataclasses import dataclass
from typing import Any

from sqlalchemy import Engine, insert, select, update
from sqlalchemy.exc import IntegrityError

from mezzotint.apps.server.queue import new_id
from mezzotint.apps.server.tables import reading, tokens

SCOPES = ("make", "read", "admin")
"""make: ask for pictures, give files; read: see one's own; admin: everybody's, and priorities."""
_PREFIX = "mz_"


class TokenError(ValueError):
    """A token that cannot be made or revoked; one line that says why."""


@dataclass(frozen=True)
class Who:
    """Who asks: the owner of what he makes, his scopes, and how many jobs of his may wait."""

    owner: str
    scopes: frozenset[str]
    jobs: int | None = None

    @property
    def sees(self) -> str | None:
        """Whose things he sees: his own; None: everybody's."""
        return None if "admin" in self.scopes else self.owner


LOCAL = Who("local", frozenset(SCOPES))
"""Whoever sits at this machine, where no token is asked for."""


def _hash(token: str) -> str:
    """A token has 256 random bits: a plain hash of it tells nothing, and takes no time."""
    return hashlib.sha256(token.encode()).hexdigest()


def add(engine: Engine, name: str, scopes: str = "make read", jobs: int | None = None) -> str:
    """A new token; it is shown this once.

    Raises:
        TokenError: the name is taken, or there is no such scope.
    """
    wanted = scopes.split()
    if unknown := [scope for scope in wanted if scope not in SCOPES]:
        raise TokenError(f"no scope {unknown[0]!r}: {', '.join(SCOPES)}")
    if not name or len(name) > 64 or not name.isprintable():
        raise TokenError("a token's name has 1 to 64 characters")
    if name == LOCAL.owner:
        raise TokenError(f"{name!r} is whoever sits at this machine: choose another name")
    token = _PREFIX + secrets.token_urlsafe(32)
    try:
        with engine.begin() as connection:
            connection.execute(
                insert(tokens).values(
                    id=new_id(),
                    name=name,
                    hash=_hash(token),
                    scopes=" ".join(wanted),
                    jobs=jobs,
                    created=time.time(),
                )
            )
    except IntegrityError:
        raise TokenError(f"there is a token {name!r}: choose another name") from None
    return token


def revoke(engine: Engine, name: str) -> None:
    """End a token; what was made with it stays.

    Raises:
        TokenError: there is none.
    """
    with engine.begin() as connection:
        ended = connection.execute(
            update(tokens)
            .where(tokens.c.name == name, tokens.c.revoked.is_(None))
            .values(revoked=time.time())
        )
    if ended.rowcount == 0:
        raise TokenError(f"no token {name!r}")


def listed(engine: Engine) -> list[Any]:
    """All tokens, without what would open anything."""
    columns = (tokens.c.name, tokens.c.scopes, tokens.c.jobs, tokens.c.created, tokens.c.revoked)
    with reading(engine) as connection:
        return [*connection.execute(select(*columns).order_by(tokens.c.created))]


def holder(engine: Engine, token: str) -> Who | None:
    """Who holds a token; None: nobody, or it was revoked."""
    with reading(engine) as connection:
        found = connection.execute(
            select(tokens).where(tokens.c.hash == _hash(token), tokens.c.revoked.is_(None))
        ).one_or_none()
    if found is None:
        return None
    return Who(found.name, frozenset(found.scopes.split()), found.jobs)
