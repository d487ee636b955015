"""Which containers a list shows: the filters of GET /containers/json (moby daemon/list.go in effect)."""

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from wherry.api.decode import Filters, accept_filters, filter_flag
from wherry.api.matching import has_label, search
from wherry.api.shapes.containers import list_ports
from wherry.engine.containers import STATUSES
from wherry.engine.model import Container
from wherry.errors import Internal, InvalidArgument, NotFound

if TYPE_CHECKING:
    from wherry.engine.engine import Engine

Predicate = Callable[[Container], bool]

ACCEPTED = frozenset(
    {
        "ancestor",
        "before",
        "exited",
        "expose",
        "health",
        "id",
        "is-task",
        "isolation",
        "label",
        "name",
        "network",
        "publish",
        "since",
        "status",
        "volume",
    }
)
_HEALTH = ("none", "starting", "healthy", "unhealthy")


async def select(engine: "Engine", filters: Filters, *, everything: bool, limit: int) -> list[Container]:
    """The records to show, newest first: running ones, or all with `everything`, a `limit` above 0 or a status filter.

    Raises InvalidArgument for a filter nobody knows or a value that cannot be, NotFound for a container that a filter
    refers to.
    """
    accept_filters(filters, ACCEPTED)
    predicates = list(_predicates(engine, filters))
    if filters.get("ancestor"):
        predicates.append(await _by_ancestor(engine, filters["ancestor"]))
    everything = everything or limit > 0 or bool(filters.get("status"))
    records = sorted((entry.record for entry in engine.containers), key=lambda record: -record.created)
    shown = [
        record
        for record in records
        if (everything or record.state.running) and all(predicate(record) for predicate in predicates)
    ]
    return shown[:limit] if limit > 0 else shown


def _predicates(engine: "Engine", filters: Filters) -> Iterable[Predicate]:
    for key, values in filters.items():
        if values and key in _SIMPLE:
            yield _SIMPLE[key](values)
    if filters.get("is-task"):
        wanted = filter_flag(filters, "is-task", default=False)
        yield lambda _record: not wanted
    if filters.get("before"):
        created = [engine.containers.lookup(ref).record.created for ref in filters["before"]]
        yield lambda record: record.created < min(created)
    if filters.get("since"):
        newest = [engine.containers.lookup(ref).record.created for ref in filters["since"]]
        yield lambda record: record.created > max(newest)


def _by_id(values: list[str]) -> Predicate:
    return lambda record: any(value and record.id.startswith(value) for value in values)


def _by_name(values: list[str]) -> Predicate:
    return lambda record: any(search(value, shown) for value in values for shown in (record.name, f"/{record.name}"))


def _by_label(values: list[str]) -> Predicate:
    return lambda record: all(has_label(record.config.Labels or {}, value) for value in values)


def _by_status(values: list[str]) -> Predicate:
    for value in values:
        if value not in STATUSES:
            raise InvalidArgument(
                f"invalid filter 'status={value}': invalid value for state ({value}): "
                f"must be one of {', '.join(STATUSES)}"
            )
    return lambda record: record.state.status in values


def _by_health(values: list[str]) -> Predicate:
    for value in values:
        if value not in _HEALTH:
            raise InvalidArgument(
                f"invalid filter 'health={value}': invalid value for health ({value}): "
                f"must be one of {', '.join(_HEALTH)}"
            )
    return lambda record: (record.state.health.status if record.state.health else "none") in values


def _by_exit_code(values: list[str]) -> Predicate:
    codes = set()
    for value in values:
        if not value.lstrip("+-").isdigit():
            raise InvalidArgument(f"invalid filter 'exited={value}': strconv.Atoi: parsing \"{value}\": invalid syntax")
        codes.add(int(value))

    def matches(record: Container) -> bool:
        return not record.state.running and record.state.started_at != 0 and record.state.exit_code in codes

    return matches


def _by_volume(values: list[str]) -> Predicate:
    wanted = set(values) - {""}

    def matches(record: Container) -> bool:
        return any(not wanted.isdisjoint((m.Destination, m.Name, m.Source)) for m in record.mounts)

    return matches


def _by_network(values: list[str]) -> Predicate:
    def matches(record: Container) -> bool:
        return any(
            value == name or endpoint.NetworkID.startswith(value)
            for name, endpoint in record.networks.items()
            for value in values
        )

    return matches


def _by_published_port(values: list[str]) -> Predicate:
    wanted = _ports("publish", values)
    return lambda record: any(
        (port.get("PublicPort"), port["Type"]) in wanted for port in list_ports(record) if "PublicPort" in port
    )


def _by_exposed_port(values: list[str]) -> Predicate:
    wanted = {f"{number}/{protocol}" for number, protocol in _ports("expose", values)}
    return lambda record: not wanted.isdisjoint(record.config.ExposedPorts or ())


def _ports(key: str, values: list[str]) -> set[tuple[int, str]]:
    """`80`, `80/udp` or `80-90/tcp` as pairs. Raises Internal, as Docker does."""
    wanted = set()
    for value in values:
        if ":" in value:
            raise Internal(f"filter for '{key}' should not contain ':': {value}")
        span, _, rest = value.partition("/")
        try:
            first, last = _span(span)
        except ValueError as error:
            raise Internal(f"error while looking up for {key} {value}: {error}") from None
        wanted |= {(number, rest.partition("/")[0] or "tcp") for number in range(first, last + 1)}
    return wanted


def _span(text: str) -> tuple[int, int]:
    """The first and the last port of "80" or "80-90". Raises ValueError with the words of go-connections."""
    if not text:
        raise ValueError("Empty string specified for ports.")
    first, dash, last = text.partition("-")
    numbers = [_port(number) for number in ((first, last) if dash else (first,))]
    if numbers[-1] < numbers[0]:
        raise ValueError(f"Invalid range specified for the Port: {text}")
    return numbers[0], numbers[-1]


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f'strconv.ParseUint: parsing "{text}": invalid syntax')
    if int(text[:40]) > 65535:
        raise ValueError(f'strconv.ParseUint: parsing "{text}": value out of range')
    return int(text)


_SIMPLE: dict[str, Callable[[list[str]], Predicate]] = {
    "exited": _by_exit_code,
    "expose": _by_exposed_port,
    "health": _by_health,
    "id": _by_id,
    "label": _by_label,
    "name": _by_name,
    "network": _by_network,
    "publish": _by_published_port,
    "status": _by_status,
    "volume": _by_volume,
}


async def _by_ancestor(engine: "Engine", values: list[str]) -> Predicate:
    """Containers of the images named, or of images made from them: those whose layers begin with theirs."""

    def resolve() -> tuple[list[list[str]], set[str]]:
        chains, ids = [], set()
        for value in values:
            try:
                image = engine.images.resolve(value)
            except (NotFound, InvalidArgument):
                continue
            chains.append(image.diff_ids)
            ids.add(image.id)
        return chains, ids

    chains, ids = await engine.run_blocking(resolve)
    if not ids:
        return lambda _record: False
    related = dict.fromkeys(ids, True)

    def descends(image_id: str) -> bool:
        try:
            layers = engine.images.resolve(image_id).diff_ids
        except NotFound:
            return False
        return any(chain and layers[: len(chain)] == chain for chain in chains)

    for image_id in {entry.record.image_id for entry in engine.containers} - ids - {""}:
        related[image_id] = await engine.run_blocking(descends, image_id)
    return lambda record: related.get(record.image_id, False)
