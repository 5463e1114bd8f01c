"""Connections, through the proxy that the environment names: HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY."""

from __future__ import annotations

import ipaddress
from urllib.parse import unquote, urlsplit

import urllib3

from musehub_plugin.client.errors import WorkdirError


class Pools:
    """Pools of connections, one for each proxy that is in use.

    Certificates are verified against the system's authorities, or those that SSL_CERT_FILE names.

    Args:
        timeout: of each request that says nothing else.
    """

    def __init__(self, timeout: urllib3.Timeout) -> None:
        self._timeout = timeout
        self._pools: dict[str | None, urllib3.PoolManager] = {}

    def of(self, url: str) -> urllib3.PoolManager:
        """Return the pool that leads to a URL.

        Raises:
            WorkdirError: the environment names a proxy that is none.
        """
        proxy = _proxy_of(url)
        if proxy not in self._pools:
            self._pools[proxy] = self._made(proxy)
        return self._pools[proxy]

    def close(self) -> None:
        """Close all connections."""
        for pool in self._pools.values():
            pool.clear()
        self._pools.clear()

    def _made(self, proxy: str | None) -> urllib3.PoolManager:
        if proxy is None:
            return urllib3.PoolManager(timeout=self._timeout, retries=False)
        try:
            parts = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
            headers = None
            if parts.username is not None:
                credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
                headers = urllib3.make_headers(proxy_basic_auth=credentials)
            address = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
            return urllib3.ProxyManager(address, proxy_headers=headers, timeout=self._timeout, retries=False)
        except (ValueError, urllib3.exceptions.HTTPError):
            # Its text may hold a password.
            raise WorkdirError("the proxy that HTTP_PROXY, HTTPS_PROXY or ALL_PROXY names is no URL") from None


def is_this_machine(host: str | None) -> bool:
    """Say whether a host is this machine, by its name or its address alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host or "").is_loopback
    except ValueError:
        return False


def _proxy_of(url: str) -> str | None:
    parts = urlsplit(url)
    # What is on this machine no proxy can reach; and a token that may go to this machine in the clear may not to one.
    if is_this_machine(parts.hostname):
        return None
    # Here and not above: most of its weight is of no use, and `musehub --help` need not wait for it.
    from urllib.request import getproxies, proxy_bypass

    if proxy_bypass(parts.netloc.rpartition("@")[2]):
        return None
    proxies = getproxies()
    return proxies.get(parts.scheme) or proxies.get("all")
