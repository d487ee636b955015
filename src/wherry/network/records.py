"""The rows of the network room: networks, endpoints, published ports, what was changed on the host."""

import secrets
import sqlite3
import time

import msgspec

from wherry.errors import NotFound
from wherry.network.model import BridgeNetwork, Endpoint, PublishedPort
from wherry.store.db import Database

MIGRATIONS = (
    """
    CREATE TABLE networks (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL UNIQUE,
        driver TEXT NOT NULL,
        created INTEGER NOT NULL,
        record TEXT NOT NULL
    );
    CREATE TABLE endpoints (
        container_id TEXT NOT NULL,
        network_id TEXT NOT NULL REFERENCES networks (id),
        ipv4 TEXT,
        record TEXT NOT NULL,
        PRIMARY KEY (container_id, network_id),
        UNIQUE (network_id, ipv4)
    );
    CREATE TABLE ports (
        protocol TEXT NOT NULL,
        host_ip TEXT NOT NULL,
        host_port INTEGER NOT NULL,
        container_id TEXT NOT NULL,
        ip TEXT NOT NULL,
        port INTEGER NOT NULL,
        PRIMARY KEY (protocol, host_port, host_ip)
    );
    CREATE INDEX ports_of_container ON ports (container_id);
    CREATE TABLE network_host (key TEXT PRIMARY KEY, value TEXT NOT NULL)
    """,
)

_PREDEFINED = (("bridge", "bridge"), ("host", "host"), ("none", "null"))


class NetworkRow(msgspec.Struct):
    """A network; `created` in nanoseconds of the epoch; `bridge` for driver bridge only."""

    id: str
    name: str
    driver: str
    created: int
    bridge: BridgeNetwork | None = None


def _network(row: tuple[object, ...]) -> NetworkRow:
    identifier, name, driver, created, record = row
    bridge = msgspec.json.decode(str(record), type=BridgeNetwork) if record else None
    return NetworkRow(str(identifier), str(name), str(driver), int(str(created)), bridge)


def _port(row: tuple[object, ...]) -> PublishedPort:
    return msgspec.convert(dict(zip(PublishedPort.__struct_fields__, row, strict=True)), PublishedPort)


class Records:
    """Typed access to the rows."""

    def __init__(self, db: Database) -> None:
        self.db = db

    def ensure_predefined(self) -> None:
        """The rows of bridge, host and none; their ids stay the same for the life of the data root."""
        with self.db.transaction() as tx:
            for name, driver in _PREDEFINED:
                values = (secrets.token_hex(32), name, driver, time.time_ns())
                tx.execute("INSERT OR IGNORE INTO networks VALUES (?, ?, ?, ?, '')", values)

    def networks(self) -> list[NetworkRow]:
        return [_network(row) for row in self.db.all("SELECT * FROM networks ORDER BY name")]

    def network(self, name: str) -> NetworkRow:
        """The network called `name`. Raises `NotFound`."""
        row = self.db.one("SELECT * FROM networks WHERE name = ?", (name,))
        if row is None:
            raise NotFound(f"network {name} not found")
        return _network(row)

    def find(self, reference: str) -> NetworkRow:
        """By full id, name, or unique prefix of an id. Raises `NotFound`."""
        rows = self.networks()
        for found in (
            [row for row in rows if row.id == reference],
            [row for row in rows if row.name == reference],
            [row for row in rows if reference and row.id.startswith(reference)],
        ):
            if len(found) == 1:
                return found[0]
            if found:
                raise NotFound(f"network {reference} is ambiguous ({len(found)} matches found on ID prefix)")
        raise NotFound(f"network {reference} not found")

    def save_bridge(self, network_id: str, bridge: BridgeNetwork) -> None:
        record = msgspec.json.encode(bridge).decode()
        self.db.execute("UPDATE networks SET record = ? WHERE id = ?", (record, network_id))

    @staticmethod
    def add_endpoint(tx: sqlite3.Connection, endpoint: Endpoint) -> None:
        record = msgspec.json.encode(endpoint).decode()
        values = (endpoint.container_id, endpoint.network_id, endpoint.ipv4 or None, record)
        tx.execute("INSERT INTO endpoints VALUES (?, ?, ?, ?)", values)

    def endpoints(self, container_id: str | None = None) -> list[Endpoint]:
        """The endpoints of one container, or all of them."""
        query = "SELECT record FROM endpoints" + (" WHERE container_id = ?" if container_id else "")
        rows = self.db.all(query, (container_id,) if container_id else ())
        return [msgspec.json.decode(str(record), type=Endpoint) for (record,) in rows]

    def ports(self, container_id: str | None = None) -> list[PublishedPort]:
        """The published ports of one container, or all of them."""
        where = " WHERE container_id = ?" if container_id else ""
        query = f"SELECT protocol, host_ip, host_port, ip, port FROM ports{where}"
        return [_port(row) for row in self.db.all(query, (container_id,) if container_id else ())]

    def forget(self, container_id: str) -> None:
        """Delete a container's endpoints and ports."""
        with self.db.transaction(durable=False) as tx:  # a power cut frees it all the same
            tx.execute("DELETE FROM ports WHERE container_id = ?", (container_id,))
            tx.execute("DELETE FROM endpoints WHERE container_id = ?", (container_id,))

    def host_value(self, key: str) -> str | None:
        row = self.db.one("SELECT value FROM network_host WHERE key = ?", (key,))
        return str(row[0]) if row else None

    def set_host_value(self, key: str, value: str) -> None:
        self.db.execute("INSERT OR REPLACE INTO network_host VALUES (?, ?)", (key, value))
