"""nf_tables over nfnetlink: tables, chains, rules, sets and maps, changed in atomic batches, and read back.

The kernel knows a rule as a list of expressions that work on registers: load something, compare it, or look it up in a
set, then give a verdict. Each function below encodes one match or statement as an `Expr`, together with its text in the
nft(8) language; expressions of a rule all start over at register 1. Numbers in packets (addresses, ports) are in
network order, what the kernel itself knows (marks, states) in host order. Layouts: linux/netfilter/nf_tables.h.
"""

import errno
import ipaddress
import struct
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from wherry.linux.netlink import (
    APPEND,
    CREATE,
    NETLINK_NETFILTER,
    Message,
    NetlinkError,
    Socket,
    attr,
    attr_be32,
    attr_string,
    attributes,
    nested,
    text,
    walk,
)

INET, IP, IP6 = 1, 2, 10
PREROUTING, INPUT, FORWARD, OUTPUT, POSTROUTING = range(5)
RAW, MANGLE, DSTNAT, FILTER, SECURITY, SRCNAT = -300, -150, -100, 0, 50, 100
DROP, ACCEPT = 0, 1
_JUMP, _GOTO, _RETURN = -3, -4, -5

NOTIFY_GROUP = 7
"""The multicast group that tells of every change of any table."""

_SUBSYSTEM = 10 << 8
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NEWTABLE, _GETTABLE, _DELTABLE = 0, 1, 2
_NEWCHAIN, _GETCHAIN, _DELCHAIN = 3, 4, 5
_NEWRULE, _GETRULE, _DELRULE = 6, 7, 8
_NEWSET, _GETSET, _DELSET = 9, 10, 11
_NEWSETELEM, _GETSETELEM, _DELSETELEM = 12, 13, 14
NEW_GENERATION = _SUBSYSTEM | 15

_LIST_ELEM = 1
_REG_VERDICT, _REG1 = 0, 1
_REG32 = 8

# Data types by nft's numbering, so that `nft list` shows elements as they were meant: name -> (number, bytes).
_TYPES = {
    "verdict": (0xFFFFFF00, 0),
    "mark": (19, 4),
    "ifname": (41, 16),
    "ipv4_addr": (7, 4),
    "ipv6_addr": (8, 16),
    "inet_proto": (12, 1),
    "inet_service": (13, 2),
}
_SET_INTERVAL, _SET_MAP, _SET_CONCAT = 0x4, 0x8, 0x80
_ELEMENT_END = 1


class Expr(NamedTuple):
    """Part of a rule: its text for people, its encoding for the kernel."""

    text: str
    data: bytes


class Table(NamedTuple):
    family: int
    name: str
    comment: str = ""


class Chain(NamedTuple):
    """A chain; a base chain when `type` ("filter", "nat", "route") is given, with its hook, priority and policy."""

    name: str
    type: str = ""
    hook: int = 0
    priority: int = 0
    policy: int = ACCEPT


class Rule(NamedTuple):
    chain: str
    exprs: tuple[Expr, ...]
    comment: str = ""
    handle: int = 0

    def __str__(self) -> str:
        comment = f' comment "{self.comment}"' if self.comment else ""
        return f"{self.chain}: {' '.join(expr.text for expr in self.exprs)}{comment}"


class Set(NamedTuple):
    """A set, or a map when `value` is given. `key` and `value` are tuples of type names; `value` may be ("verdict",).
    With `interval` elements are ranges."""

    name: str
    key: tuple[str, ...]
    value: tuple[str, ...] = ()
    interval: bool = False


class Element(NamedTuple):
    """An element: `key` and `value` as `pack` makes them; `end` is the last key of a range (inclusive). `verdict` is
    DROP, ACCEPT, or ("jump" | "goto", chain) | ("return", "")."""

    key: bytes
    value: bytes = b""
    end: bytes = b""
    verdict: int | tuple[str, str] | None = None


class FoundRule(NamedTuple):
    """A rule as the kernel lists it: `expressions` are (name, encoded attributes) in order."""

    chain: str
    handle: int
    comment: str
    expressions: tuple[tuple[str, bytes], ...]


class FoundChain(NamedTuple):
    family: int
    table: str
    name: str
    type: str
    hook: int
    priority: int
    policy: int


def _expr(name: str, *parts: bytes) -> bytes:
    return nested(_LIST_ELEM, attr_string(1, name), nested(2, *parts))


def _value(data: bytes) -> bytes:
    return attr(1, data)


def _verdict_data(verdict: int | tuple[str, str]) -> bytes:
    if isinstance(verdict, int):
        return nested(2, attr_be32(1, verdict))
    kind, chain = verdict
    code = {"jump": _JUMP, "goto": _GOTO, "return": _RETURN}[kind]
    return nested(2, attr_be32(1, code), attr_string(2, chain) if chain else b"")


def pack(*fields: bytes | str | int) -> bytes:
    """Make a key or value of a set from its fields, each padded to 4 bytes as in registers: an address as text, a port
    as int, a protocol number or interface name as ready bytes."""
    parts = []
    for field in fields:
        if isinstance(field, int):
            field = struct.pack(">H", field)
        elif isinstance(field, str):
            field = ipaddress.ip_address(field).packed
        parts.append(field + bytes(-len(field) % 4) if len(fields) > 1 else field)
    return b"".join(parts)


def interface_key(name: str) -> bytes:
    """An interface name as a set of type ifname keys it."""
    return name.encode().ljust(16, b"\0")


# ---- matches

_META = {"mark": 3, "iif": 4, "oif": 5, "iifname": 6, "oifname": 7, "nfproto": 15, "l4proto": 16}
_COMPARE = {"==": 0, "!=": 1, "<": 2, "<=": 3, ">": 4, ">=": 5}
_CT_STATES = {"invalid": 1, "established": 2, "related": 4, "new": 8, "untracked": 64}
_CT_STATUS = {"expected": 1, "seen-reply": 2, "assured": 4, "confirmed": 8, "snat": 16, "dnat": 32}
_ADDRESS_TYPES = {"unicast": 1, "local": 2, "broadcast": 3, "anycast": 4, "multicast": 5}


def _load_meta(key: str, register: int = _REG1) -> bytes:
    return _expr("meta", attr_be32(2, _META[key]), attr_be32(1, register))


def _load_payload(base: int, offset: int, length: int, register: int = _REG1) -> bytes:
    where = attr_be32(1, register) + attr_be32(2, base)
    return _expr("payload", where, attr_be32(3, offset), attr_be32(4, length))


def _compare(operator: str, data: bytes, register: int = _REG1) -> bytes:
    return _expr("cmp", attr_be32(1, register), attr_be32(2, _COMPARE[operator]), nested(3, _value(data)))


def _mask(mask: bytes) -> bytes:
    zero = nested(5, _value(bytes(len(mask))))
    where = attr_be32(1, _REG1) + attr_be32(2, _REG1) + attr_be32(3, len(mask))
    return _expr("bitwise", where, nested(4, _value(mask)), zero)


def _shown(operator: str) -> str:
    return "" if operator == "==" else f"{operator} "


def interface(key: str, name: str, operator: str = "==") -> Expr:
    """`key` is "iifname" or "oifname"."""
    data = _load_meta(key) + _compare(operator, interface_key(name))
    return Expr(f'{key} {_shown(operator)}"{name}"', data)


def meta(key: str, number: int, operator: str = "==") -> Expr:
    """Compare "mark", "iif", "oif" (interface numbers), "l4proto" or "nfproto"."""
    data = struct.pack("=B" if key in ("l4proto", "nfproto") else "=I", number)
    return Expr(f"meta {key} {_shown(operator)}{number}", _load_meta(key) + _compare(operator, data))


def _address_field(family: int, key: str) -> tuple[int, int]:
    """Offset and length of "saddr" or "daddr" in the network header."""
    return {(IP, "saddr"): (12, 4), (IP, "daddr"): (16, 4), (IP6, "saddr"): (8, 16), (IP6, "daddr"): (24, 16)}[
        family, key
    ]


def address(key: str, network: str, operator: str = "==") -> Expr:
    """Compare "saddr" or "daddr" with an address or a network, of either family."""
    parsed = ipaddress.ip_network(network)
    family = IP if parsed.version == 4 else IP6
    data = _load_payload(1, *_address_field(family, key))
    if parsed.prefixlen < parsed.max_prefixlen:
        data += _mask(parsed.netmask.packed)
    data += _compare(operator, parsed.network_address.packed)
    name = "ip" if family == IP else "ip6"
    shown = network if parsed.prefixlen < parsed.max_prefixlen else str(parsed.network_address)
    return Expr(f"{name} {key} {_shown(operator)}{shown}", data)


def destination_port(port: int) -> Expr:
    """The destination port of TCP, UDP or SCTP; combine with `meta("l4proto", ...)`."""
    return Expr(f"th dport {port}", _load_payload(2, 2, 2) + _compare("==", struct.pack(">H", port)))


def _ct_bits(key: str, number: int, table: dict[str, int], names: tuple[str, ...]) -> Expr:
    bits = 0
    for name in names:
        bits |= table[name]
    load = _expr("ct", attr_be32(2, number), attr_be32(1, _REG1))
    data = load + _mask(struct.pack("=I", bits)) + _compare("!=", bytes(4))
    return Expr(f"ct {key} {','.join(names)}", data)


def ct_state(*names: str) -> Expr:
    """Any of the connection's states "new", "established", "related", "invalid", "untracked"."""
    return _ct_bits("state", 0, _CT_STATES, names)


def ct_status(*names: str) -> Expr:
    """Any of the connection's status bits, such as "dnat"."""
    return _ct_bits("status", 2, _CT_STATUS, names)


def fib_type(key: str, name: str) -> Expr:
    """What the routing table says the packet's "saddr" or "daddr" is: "local", "unicast", "broadcast"..."""
    flags = 1 if key == "saddr" else 2
    load = _expr("fib", attr_be32(1, _REG1), attr_be32(2, 3), attr_be32(3, flags))
    return Expr(f"fib {key} type {name}", load + _compare("==", struct.pack("=I", _ADDRESS_TYPES[name])))


def _load_fields(family: int, fields: Sequence[str]) -> tuple[str, bytes]:
    """Load `fields` one after the other into registers as a set keys them: "saddr", "daddr", "l4proto", "dport",
    "iifname", "oifname", "mark"."""
    register, data, names = _REG32, b"", []
    for field in fields:
        if field in ("saddr", "daddr"):
            offset, length = _address_field(family, field)
            data += _load_payload(1, offset, length, register)
            names.append(f"{'ip' if family == IP else 'ip6'} {field}")
        elif field == "dport":
            length = 2
            data += _load_payload(2, 2, 2, register)
            names.append("th dport")
        else:
            length = {"l4proto": 1, "iifname": 16, "oifname": 16, "mark": 4}[field]
            data += _load_meta(field, register)
            names.append(f"meta {field}" if field in ("l4proto", "mark") else field)
        register += (length + 3) // 4
    return " . ".join(names), data


def lookup(family: int, fields: Sequence[str], name: str, *, inverted: bool = False) -> Expr:
    """Whether the fields together are in set `name`."""
    shown, data = _load_fields(family, fields)
    flags = attr_be32(5, 1) if inverted else b""
    data += _expr("lookup", attr_string(1, name), attr_be32(2, _REG32), flags)
    return Expr(f"{shown} {'!= ' if inverted else ''}@{name}", data)


def verdict_map(family: int, fields: Sequence[str], name: str) -> Expr:
    """Take the verdict that map `name` has for the fields; go on when it has none."""
    shown, data = _load_fields(family, fields)
    data += _expr("lookup", attr_string(1, name), attr_be32(2, _REG32), attr_be32(3, _REG_VERDICT))
    return Expr(f"{shown} vmap @{name}", data)


def in_map(family: int, fields: Sequence[str], name: str) -> Expr:
    """Whether map `name` has a value for the fields; the value itself is not used."""
    shown, data = _load_fields(family, fields)
    data += _expr("lookup", attr_string(1, name), attr_be32(2, _REG32), attr_be32(3, _REG1))
    return Expr(f"{shown} @{name}", data)


# ---- statements


def verdict(value: int | tuple[str, str]) -> Expr:
    """ACCEPT, DROP, ("jump", chain), ("goto", chain) or ("return", "")."""
    shown = ("drop", "accept")[value] if isinstance(value, int) else " ".join(value).strip()
    return Expr(shown, _expr("immediate", attr_be32(1, _REG_VERDICT), nested(2, _verdict_data(value))))


def counter() -> Expr:
    return Expr("counter", _expr("counter"))


def set_mark(number: int) -> Expr:
    load = _expr("immediate", attr_be32(1, _REG1), nested(2, _value(struct.pack("=I", number))))
    return Expr(f"meta mark set {number}", load + _expr("meta", attr_be32(2, _META["mark"]), attr_be32(3, _REG1)))


def masquerade() -> Expr:
    return Expr("masquerade", _expr("masq"))


def _dnat(family: int, port_register: int) -> bytes:
    registers = attr_be32(3, _REG32) + attr_be32(5, port_register)
    return _expr("nat", attr_be32(1, 1), attr_be32(2, family), registers)


def dnat(to: str, port: int) -> Expr:
    """Send to address `to`, port `port`."""
    parsed = ipaddress.ip_address(to)
    family, words = (IP, 1) if parsed.version == 4 else (IP6, 4)
    data = _expr("immediate", attr_be32(1, _REG32), nested(2, _value(parsed.packed)))
    data += _expr("immediate", attr_be32(1, _REG32 + words), nested(2, _value(struct.pack(">H", port))))
    return Expr(f"dnat to {to}:{port}", data + _dnat(family, _REG32 + words))


def dnat_by_map(family: int, fields: Sequence[str], name: str) -> Expr:
    """Send to the address . port that map `name` has for the fields; go on when it has none."""
    shown, data = _load_fields(family, fields)
    data += _expr("lookup", attr_string(1, name), attr_be32(2, _REG32), attr_be32(3, _REG32))
    return Expr(f"dnat to {shown} map @{name}", data + _dnat(family, _REG32 + (1 if family == IP else 4)))


# ---- objects


def _comment(kind: int, comment: str) -> bytes:
    data = comment.encode()[:127] + b"\0"
    return bytes((kind, len(data))) + data


def _read_comment(userdata: bytes, kind: int) -> str:
    offset = 0
    while offset + 2 <= len(userdata):
        found, length = userdata[offset], userdata[offset + 1]
        if found == kind:
            return text(userdata[offset + 2 : offset + 2 + length])
        offset += 2 + length
    return ""


def _type_number(names: Sequence[str]) -> int:
    number = 0
    for name in names:
        number = number << 6 | _TYPES[name][0]
    return number


def _type_length(names: Sequence[str]) -> int:
    if len(names) == 1:
        return _TYPES[names[0]][1]
    return sum((_TYPES[name][1] + 3) & ~3 for name in names)


def _encode_set(table: str, description: Set) -> bytes:
    flags = (_SET_INTERVAL if description.interval else 0) | (_SET_MAP if description.value else 0)
    key = description.key
    parts = [attr_string(1, table), attr_string(2, description.name), attr_be32(10, 1)]
    if description.interval and len(key) > 1:
        flags |= _SET_CONCAT
        fields = [nested(_LIST_ELEM, attr_be32(1, (_TYPES[name][1] + 3) & ~3)) for name in key]
        parts.append(nested(9, nested(2, *fields)))
    if "ifname" in key:
        parts.append(attr(13, struct.pack("=BBI", 0, 4, 1)))  # for nft(8): these keys are in host order
    parts += [attr_be32(3, flags), attr_be32(4, _type_number(key)), attr_be32(5, _type_length(key))]
    if description.value:
        parts += [attr_be32(6, _type_number(description.value)), attr_be32(7, _type_length(description.value))]
    return b"".join(parts)


def _encode_element(element: Element, *, concatenated: bool) -> bytes:
    """An element; a range in a plain interval set is two: its start and the first key after it."""
    data = b""
    if element.verdict is not None:
        data = nested(2, _verdict_data(element.verdict))
    elif element.value:
        data = nested(2, _value(element.value))
    start = nested(1, _value(element.key))
    if not element.end:
        return nested(_LIST_ELEM, start, data)
    if concatenated:
        return nested(_LIST_ELEM, start, nested(10, _value(element.end)), data)
    following = int.from_bytes(element.end, "big") + 1
    first = nested(_LIST_ELEM, start, data)
    if following >> 8 * len(element.end):
        return first  # up to the very last key: the range stays open
    last = nested(1, _value(following.to_bytes(len(element.end), "big")))
    return first + nested(_LIST_ELEM, last, attr_be32(3, _ELEMENT_END))


class Batch:
    """A list of changes that the kernel makes all at once or not at all (`NftSocket.commit`)."""

    def __init__(self, family: int, table: str) -> None:
        self.family = family
        self.table = table
        self.messages: list[Message] = []

    def _add(self, kind: int, flags: int, *parts: bytes) -> None:
        head = struct.pack(">BBH", self.family, 0, 0)
        self.messages.append(Message(_SUBSYSTEM | kind, flags, head + b"".join(parts)))

    def _of_table(self) -> bytes:
        return attr_string(1, self.table)

    def add_table(self, comment: str = "") -> None:
        """Make the table unless it is there."""
        self._add(_NEWTABLE, CREATE, self._of_table(), attr(6, _comment(0, comment)) if comment else b"")

    def delete_table(self) -> None:
        """Delete the table with all that is in it; it must be there (`add_table` first to be sure)."""
        self._add(_DELTABLE, 0, self._of_table())

    def add_chain(self, chain: Chain) -> None:
        parts = [self._of_table(), attr_string(3, chain.name)]
        if chain.type:
            parts.append(nested(4, attr_be32(1, chain.hook), attr_be32(2, chain.priority)))
            parts += [attr_be32(5, chain.policy), attr_string(7, chain.type)]
        self._add(_NEWCHAIN, CREATE, *parts)

    def delete_chain(self, name: str) -> None:
        self._add(_DELCHAIN, 0, self._of_table(), attr_string(3, name))

    def add_rule(self, rule: Rule, *, before: int = 0) -> None:
        """Append a rule to its chain, or put it before the rule with handle `before`."""
        parts = [self._of_table(), attr_string(2, rule.chain), nested(4, *(expr.data for expr in rule.exprs))]
        if rule.comment:
            parts.append(attr(7, _comment(0, rule.comment)))
        if before:
            parts.append(attr(6, struct.pack(">Q", before)))
        self._add(_NEWRULE, CREATE | (0 if before else APPEND), *parts)

    def delete_rule(self, chain: str, handle: int) -> None:
        self._add(_DELRULE, 0, self._of_table(), attr_string(2, chain), attr(3, struct.pack(">Q", handle)))

    def flush_chain(self, chain: str) -> None:
        """Delete all rules of a chain."""
        self._add(_DELRULE, 0, self._of_table(), attr_string(2, chain))

    def add_set(self, description: Set) -> None:
        self._add(_NEWSET, CREATE, _encode_set(self.table, description))

    def delete_set(self, name: str) -> None:
        self._add(_DELSET, 0, self._of_table(), attr_string(2, name))

    def add_elements(self, description: Set, elements: Iterable[Element]) -> None:
        """Add elements; one that is there with another value fails the batch (EEXIST)."""
        self._elements(_NEWSETELEM, CREATE, description, elements)

    def delete_elements(self, description: Set, elements: Iterable[Element]) -> None:
        """Delete elements; one that is not there fails the batch (ENOENT)."""
        self._elements(_DELSETELEM, 0, description, elements)

    def _elements(self, kind: int, flags: int, description: Set, elements: Iterable[Element]) -> None:
        concatenated = len(description.key) > 1
        items = [_encode_element(element, concatenated=concatenated) for element in elements]
        for start in range(0, len(items), 500):  # an attribute's length is 16 bits
            part = nested(3, *items[start : start + 500])
            self._add(kind, flags, self._of_table(), attr_string(2, description.name), part)


def _body(family: int, *parts: bytes) -> bytes:
    return struct.pack(">BBH", family, 0, 0) + b"".join(parts)


class NftSocket(Socket):
    """nf_tables of the calling thread's network namespace."""

    def __init__(self) -> None:
        super().__init__(NETLINK_NETFILTER)

    def __enter__(self) -> "NftSocket":
        return self

    def commit(self, what: str, *batches: Batch) -> None:
        """Carry out the changes of all `batches` in order as one transaction; raises `NetlinkError` whose `position`
        is the refused message's, and then nothing has changed."""
        edge = struct.pack(">BBH", 0, 0, _SUBSYSTEM >> 8)
        messages = [message for batch in batches for message in batch.messages]
        if messages:
            self.batch(what, Message(_BATCH_BEGIN, 0, edge), messages, Message(_BATCH_END, 0, edge))

    def _list(self, what: str, kind: int, family: int, *parts: bytes) -> list[tuple[int, bytes]]:
        """The bodies of a dump as (family, attributes); none when the table is not there."""
        try:
            found = self.dump(what, Message(_SUBSYSTEM | kind, 0, _body(family, *parts)))
        except NetlinkError as error:
            if error.errno == errno.ENOENT:
                return []
            raise
        return [(message.body[0], message.body[4:]) for message in found]

    def tables(self) -> list[Table]:
        """All tables of all families."""
        found = []
        for family, data in self._list("list tables", _GETTABLE, 0):
            values = attributes(data)
            found.append(Table(family, text(values[1]), _read_comment(values.get(6, b""), 0)))
        return found

    def chains(self) -> list[FoundChain]:
        """All chains of all tables."""
        found = []
        for family, data in self._list("list chains", _GETCHAIN, 0):
            values = attributes(data)
            hook = attributes(values.get(4, b""))
            where = int.from_bytes(hook.get(1, b"\0"), "big"), int.from_bytes(hook.get(2, b"\0"), "big", signed=True)
            policy = int.from_bytes(values.get(5, b"\1"), "big")
            found.append(FoundChain(family, text(values[1]), text(values[3]), text(values.get(7, b"")), *where, policy))
        return found

    def rules(self, family: int, table: str, chain: str = "") -> list[FoundRule]:
        """The rules of a table or of one chain of it, in order; none when it is not there."""
        parts = attr_string(1, table) + (attr_string(2, chain) if chain else b"")
        found = []
        for _, data in self._list(f"list rules of {table}", _GETRULE, family, parts):
            values = attributes(data)
            if text(values[1]) != table or (chain and text(values[2]) != chain):
                continue  # kernels before 5.16 do not filter
            expressions = tuple(
                (text(parts[1]), parts.get(2, b""))
                for parts in (attributes(item) for _, item in walk(values.get(4, b"")))
            )
            handle = int.from_bytes(values[3], "big")
            found.append(FoundRule(text(values[2]), handle, _read_comment(values.get(7, b""), 0), expressions))
        return found

    def sets(self, family: int, table: str) -> list[tuple[str, int]]:
        """The sets and maps of a table as (name, flags)."""
        found = []
        for _, data in self._list(f"list sets of {table}", _GETSET, family, attr_string(1, table)):
            values = attributes(data)
            found.append((text(values[2]), int.from_bytes(values.get(3, b""), "big")))
        return found

    def elements(self, family: int, table: str, name: str) -> list[Element]:
        """The elements of a set or map; a plain interval's closing elements come without `end`, as the kernel keeps
        them. None when it is not there."""
        parts = attr_string(1, table) + attr_string(2, name)
        found = []
        for _, data in self._list(f"list elements of {name}", _GETSETELEM, family, parts):
            for _, item in walk(attributes(data).get(3, b"")):
                found.append(_decode_element(attributes(item)))
        return found


def _decode_element(values: dict[int, bytes]) -> Element:
    data = attributes(values.get(2, b""))
    verdict: int | tuple[str, str] | None = None
    if 2 in data:
        parts = attributes(data[2])
        code = int.from_bytes(parts[1], "big", signed=True)
        names = {_JUMP: "jump", _GOTO: "goto", _RETURN: "return"}
        verdict = code if code in (DROP, ACCEPT) else (names.get(code, str(code)), text(parts.get(2, b"")))
    key = attributes(values.get(1, b"")).get(1, b"")
    return Element(key, data.get(1, b""), attributes(values.get(10, b"")).get(1, b""), verdict)
