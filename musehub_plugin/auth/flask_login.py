"""Identities from Flask-Login's session.

A request that changes something carries a body of `application/x-msgpack` or `application/json`; a page of
another site cannot send such a request with the user's cookie unless the host allows it by CORS. That is why
the plugin's routes need no CSRF token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from musehub_plugin.access import Identity, IdentityLoader
from musehub_plugin.errors import ConfigError

if TYPE_CHECKING:
    from flask import Request


def flask_login_identity(
    *, handle_attr: str = "username", is_admin_attr: str | None = None, id_attr: str | None = None
) -> IdentityLoader:
    """Return an identity loader that takes Flask-Login's `current_user`.

    Args:
        handle_attr: the user's attribute with the name that people read; a user without it has no handle.
        is_admin_attr: the attribute that makes an admin where it is True; left out: nobody is one.
        id_attr: the attribute with the id that repos' `owner_user_id` holds; left out: what `get_id()`
            returns, which is right unless the host uses session tokens there.

    Raises:
        ConfigError: Flask-Login is not installed.
    """
    try:
        import flask_login
    except ImportError as error:
        detail = "flask_login_identity needs Flask-Login: pip install 'musehub-plugin[login]'"
        raise ConfigError(detail) from error

    def load(request: Request) -> Identity | None:
        user = flask_login.current_user
        if not user or not user.is_authenticated:
            return None
        user_id = user.get_id() if id_attr is None else getattr(user, id_attr)
        if user_id is None:
            return None
        is_admin = is_admin_attr is not None and getattr(user, is_admin_attr) is True
        return Identity(str(user_id), str(getattr(user, handle_attr, "") or ""), is_admin)

    return load
