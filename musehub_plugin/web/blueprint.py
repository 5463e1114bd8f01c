"""The blueprint: which path leads to which resource."""

from __future__ import annotations

from flask import Blueprint, request

from musehub_plugin.hub import current_hub
from musehub_plugin.web import problems
from musehub_plugin.web.fetch import post_fetch
from musehub_plugin.web.push import post_presign, post_unpack
from musehub_plugin.web.refs import get_refs, post_negotiate

BLUEPRINT_NAME = "musehub"


_HOST_HAS_BEGUN = "musehub.host_has_begun"


def _note_work() -> None:
    request.environ[_HOST_HAS_BEGUN] = current_hub().database().has_begun


def _finish_work(error: BaseException | None) -> None:
    current_hub().database().finish(own=request.environ.get(_HOST_HAS_BEGUN) is False)


def make_blueprint(url_prefix: str) -> Blueprint:
    """Return a new blueprint of a repo's resources.

    A new one for each app, since Flask marks a blueprint as used.

    Args:
        url_prefix: path under which `/{owner}/{slug}/...` is mounted; empty for the root.
    """
    blueprint = Blueprint(BLUEPRINT_NAME, "musehub_plugin.web", url_prefix=url_prefix or None)
    problems.register(
        blueprint, lambda: current_hub().settings.retry_after, abandon=lambda: current_hub().database().abandon()
    )
    blueprint.before_request(_note_work)
    blueprint.teardown_request(_finish_work)
    for path, method, view in (
        ("refs", "GET", get_refs),
        ("negotiate", "POST", post_negotiate),
        ("fetch", "POST", post_fetch),
        ("push/presign", "POST", post_presign),
        ("push/unpack-mpack", "POST", post_unpack),
    ):
        blueprint.add_url_rule(
            f"/<owner>/<slug>/{path}",
            view_func=view,
            methods=[method],
            # A redirect to a tidier path would carry the Host header into a Location, and muse clients follow none.
            merge_slashes=False,
        )
    return blueprint
