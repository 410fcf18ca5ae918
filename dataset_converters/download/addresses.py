"""Which URLs and network addresses a download may reach.

A list of URLs comes from outside. Unchecked, it could make this computer query its neighbours
(routers, cloud metadata services, databases without passwords) and store the answers. Host names
prove nothing, since a name can resolve to any address, and to a different one a moment later.
So the check looks at the very address that a socket is about to connect to.
"""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from dataclasses import dataclass

from yarl import URL

from recbole_cierec.errors import ConfigError

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network
SCHEMES = ("http", "https")
_MAX_URL = 8192
# IPv6 networks whose addresses hold an IPv4 address in their last 32 bits.
_CARRIERS = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "::ffff:0:0/96", "::/96")))


class RefusedAddress(OSError):
    """A socket was about to connect to an address that is not allowed."""

    def __init__(self) -> None:
        # The same text for all addresses of a host: aiohttp keeps only the class of equal errors.
        super().__init__("private, loopback or otherwise not public address")


def checked_url(url: str | URL) -> URL:
    """Parse a URL from a list or a redirect; accept only http and https with a host.

    Raises:
        ValueError: The URL is refused; the text is the reason.
    """
    if len(str(url)) > _MAX_URL:
        raise ValueError(f"URL of more than {_MAX_URL} characters")
    try:
        parsed = URL(url)
        host, port = parsed.host, parsed.port
    except ValueError as error:
        raise ValueError("not a URL") from error
    if parsed.scheme not in SCHEMES:
        raise ValueError(f"scheme {parsed.scheme[:20]!r} is not http or https")
    if not host or port is None:
        raise ValueError("URL without a host")
    if parsed.user is not None or parsed.password is not None:
        raise ValueError("URL with a user name")
    return parsed


def _parse_networks(texts: Sequence[str]) -> tuple[Network, ...]:
    try:
        return tuple(ipaddress.ip_network(text, strict=False) for text in texts)
    except ValueError as error:
        raise ConfigError(f"--allow-private: {error}; write it like 10.0.0.0/8") from error


@dataclass(frozen=True)
class AddressPolicy:
    """Decides about addresses and creates the sockets.

    Args:
        allowed: Networks that are allowed although they are not public.
    """

    allowed: tuple[Network, ...] = ()

    @classmethod
    def parse(cls, allow_private: Sequence[str] | None) -> AddressPolicy:
        """Build the policy of ``--allow-private``.

        Args:
            allow_private: None: public addresses only; empty: all addresses; otherwise networks
                or addresses to allow in addition to public ones.

        Raises:
            ConfigError: One of them is not a network.
        """
        if allow_private is None:
            return cls()
        return cls(_parse_networks(allow_private or ("0.0.0.0/0", "::/0")))

    def allows(self, text: str) -> bool:
        """Whether sockets may connect to a numeric address; unusual notations are refused.

        Args:
            text: ``93.184.216.34`` or ``2606:2800::1``.
        """
        try:
            address = ipaddress.ip_address(text.split("%", 1)[0])
        except ValueError:  # such as 127.1 or 2130706433, which the system understands
            return False
        address = _innermost(address)
        if any(address in network for network in self.allowed):
            return True
        return address.is_global and not address.is_multicast and not address.is_reserved

    def make_socket(self, address_info: tuple) -> socket.socket:
        """Create the non-blocking socket for one address; aiohttp calls this before connecting.

        Args:
            address_info: As returned by ``socket.getaddrinfo``.

        Raises:
            RefusedAddress: The address is not allowed.
        """
        family, kind, protocol, _, target = address_info
        if not self.allows(target[0]):
            raise RefusedAddress
        made = socket.socket(family, kind, protocol)
        made.setblocking(False)
        return made


def _innermost(address: Address) -> Address:
    """The IPv4 address that an IPv6 address stands for, if it does."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.sixtofour:
            return address.sixtofour
        if address.teredo:
            return address.teredo[1]
        if int(address) > 1 and any(address in network for network in _CARRIERS):
            return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address
