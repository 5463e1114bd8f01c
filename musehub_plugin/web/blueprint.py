"""The blueprints: which path leads to which resource."""

from __future__ import annotations

from collections.abc import Callable

from flask import Blueprint, Response, request

from musehub_plugin.hub import current_hub
from musehub_plugin.web import mwp, problems
from musehub_plugin.web.fetch import post_fetch
from musehub_plugin.web.push import post_presign, post_unpack
from musehub_plugin.web.refs import get_refs, post_negotiate

BLUEPRINT_NAME = "musehub"
MWP_BLUEPRINT_NAME = "musehub_mwp"

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
    blueprint = _repo_blueprint(BLUEPRINT_NAME, url_prefix, problems.problem)
    _add_routes(
        blueprint,
        ("refs", "GET", get_refs),
        ("negotiate", "POST", post_negotiate),
        ("fetch", "POST", post_fetch),
        ("push/presign", "POST", post_presign),
        ("push/unpack-mpack", "POST", post_unpack),
    )
    return blueprint


def make_mwp_blueprint(url_prefix: str) -> Blueprint:
    """Return a new blueprint of a repo's resources as the released `muse` command wants them.

    Args:
        url_prefix: path under which `/{owner}/{slug}/...` is mounted; empty for the root.
    """
    blueprint = _repo_blueprint(MWP_BLUEPRINT_NAME, url_prefix, mwp.problem_for_muse)
    _add_routes(
        blueprint,
        ("refs", "GET", mwp.get_refs),
        ("negotiate", "POST", mwp.post_negotiate),
        ("fetch", "POST", mwp.post_fetch),
        ("filter-objects", "POST", mwp.post_filter_objects),
        ("presign", "POST", mwp.post_presign),
        ("push/objects", "POST", mwp.post_objects),
        ("push", "POST", mwp.post_push),
    )
    return blueprint


def _repo_blueprint(name: str, url_prefix: str, respond: problems.Respond) -> Blueprint:
    blueprint = Blueprint(name, "musehub_plugin.web", url_prefix=url_prefix or None)
    problems.register(
        blueprint,
        lambda: current_hub().settings.retry_after,
        abandon=lambda: current_hub().database().abandon(),
        respond=respond,
    )
    blueprint.before_request(_note_work)
    blueprint.teardown_request(_finish_work)
    return blueprint


def _add_routes(blueprint: Blueprint, *routes: tuple[str, str, Callable[[str, str], Response]]) -> None:
    for path, method, view in routes:
        blueprint.add_url_rule(
            f"/<owner>/<slug>/{path}",
            view_func=view,
            methods=[method],
            # A redirect to a tidier path would carry the Host header into a Location, and muse clients follow none.
            merge_slashes=False,
        )
