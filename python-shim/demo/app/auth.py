"""Who is asking: bearer tokens, JWT with HS256.

A reference without a user store: `admin` with the password `admin` is the admin, and every other
name is a user who needs no particular password. `JWT_SECRET` in the environment signs the tokens.
"""

from __future__ import annotations

import hmac
import os
import time
from dataclasses import asdict, dataclass
from typing import Any

import jwt

ALGORITHM = "HS256"
LIFETIME_S = 30 * 60
ADMIN = "admin"
ADMIN_PASSWORD = "admin"  # noqa: S105 - the reference has no secret users, and says so above.


class AuthenticationError(Exception):
    """The token or the password is not valid; the text holds nothing of either."""


@dataclass(frozen=True)
class Identity:
    """A known caller, by the claims of a token."""

    user_id: str
    role: str
    tenant: str

    @property
    def is_admin(self) -> bool:
        """Whether the caller may read everybody's tasks."""
        return self.role == ADMIN


def secret() -> str:
    """Return the key that signs tokens.

    Raises:
        RuntimeError: JWT_SECRET is not set.
    """
    value = os.environ.get("JWT_SECRET")
    if not value:
        raise RuntimeError("JWT_SECRET is not set")
    return value


def log_in(username: str, password: str) -> Identity:
    """Return who `username` is.

    Raises:
        AuthenticationError: It is the admin's name with another password.
    """
    if username != ADMIN:
        return Identity(username, "user", tenant_of("user"))
    # Otherwise anybody could be a user called admin and own what the admin started.
    if not hmac.compare_digest(password.encode(), ADMIN_PASSWORD.encode()):
        raise AuthenticationError("wrong user name or password")
    return Identity(username, ADMIN, tenant_of(ADMIN))


def tenant_of(role: str) -> str:
    """Return the tenant of a caller whose token names none."""
    return "tenant-admin" if role == ADMIN else "tenant-user"


def issue(identity: Identity) -> str:
    """Return a token for `identity` that is good for half an hour."""
    claims = {**asdict(identity), "exp": int(time.time()) + LIFETIME_S}
    return jwt.encode(claims, secret(), algorithm=ALGORITHM)


def verify(token: str) -> Identity:
    """Return whom `token` was issued to.

    Raises:
        AuthenticationError: It is not ours, expired, or lacks a claim.
    """
    try:
        claims: dict[str, Any] = jwt.decode(
            token, secret(), algorithms=[ALGORITHM], options={"require": ["exp"]}
        )
    except jwt.InvalidTokenError:
        raise AuthenticationError("the token is not valid") from None
    user_id, role, tenant = (claims.get(name) for name in ("user_id", "role", "tenant"))
    if not isinstance(user_id, str) or not isinstance(role, str):
        raise AuthenticationError("the token is not valid")
    if tenant is not None and not isinstance(tenant, str):
        raise AuthenticationError("the token is not valid")
    return Identity(user_id, role, tenant or tenant_of(role))
