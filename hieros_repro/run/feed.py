"""What updates are shown: batches chosen at logical times and gathered ahead, with the noise that goes with them."""

from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

from hieros_repro.agent.base import Agent
from hieros_repro.determinism.keys import Key
from hieros_repro.hardware.device import Hardware
from hieros_repro.records import Tensors, Tree, UserError
from hieros_repro.replay.base import Choice, Once, Replay
from hieros_repro.replay.prefetch import Workers


class Fed(NamedTuple):
    """What an update is given: batches by replay, and noise, on the device."""

    batches: Mapping[str, Tensors]
    noise: Tensors
    raw: Mapping[str, Any]  # the batches as they were gathered


class Ticket(NamedTuple):
    """Everything about one update's batches, gathered or not."""

    update: int
    places: Mapping[str, Tree]
    prepare: Once  # -> Fed


class Feed:
    """Batch u is chosen right after update u - lead; where that was not possible, right before update u.

    Choosing is the caller's thread's, in the order of updates; gathering, drawing noise and copying may be anybody's. Tickets
    that were chosen and not yet taken are state.
    """

    def __init__(self, agent: Agent, replays: Mapping[str, Replay], key: Key, hardware: Hardware):
        self._agent, self._replays, self._key, self._hardware = agent, replays, key, hardware
        self.lead = min((replay.lead for replay in replays.values()), default=0)
        counts = [replay.workers for replay in replays.values()]
        self._workers = Workers(None if None in counts else max((c for c in counts if c is not None), default=0))
        self._tickets: deque[Ticket] = deque()
        if agent.train_ratio is None and any(replay.lasts for replay in replays.values()):
            raise ValueError(f"{type(agent).__name__} learns from a replay that lasts, so it must say how often: train_ratio")

    def ready(self, update: int, ending: bool) -> bool:
        """Whether update number `update` can be had now."""
        if self._tickets:
            return True
        requests = self._agent.due(update)
        return bool(requests) and all(self._replays[r.replay].ready(r, ending) for r in requests)

    def cost(self, update: int) -> int:
        """How many steps the update replays."""
        return max(request.batch * request.length for request in self._agent.due(update))

    def take(self, update: int) -> tuple[Ticket, Fed]:
        """What the update is shown, once it is there."""
        if not self._tickets:
            self._choose(update)
        ticket = self._tickets.popleft()
        assert ticket.update == update, f"update {update} was to be shown the batch of {ticket.update}"
        return ticket, ticket.prepare()

    def choose_ahead(self, update: int, ending: bool) -> None:
        """After an update: chooses what may be chosen by now."""
        for ahead in range(update + 1 + len(self._tickets), update + self.lead + 1):
            requests = self._agent.due(ahead)
            if not requests or not all(self._replays[r.replay].ready(r, ending) for r in requests):
                return
            self._choose(ahead)

    def write_back(self, ticket: Ticket, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            self._replays[name].write_back(ticket.places[name], value)

    def _choose(self, update: int) -> None:
        requests = self._agent.due(update)
        assert len({request.replay for request in requests}) == len(requests), f"update {update} asks twice for one replay"
        choices = {r.replay: self._replays[r.replay].choose(self._key("replay", update, r.replay), r) for r in requests}
        self._tickets.append(self._ticket(update, choices))
        self._workers.begin(self._tickets[-1].prepare, sum(choice.bytes for choice in choices.values()))

    def _ticket(self, update: int, choices: Mapping[str, Choice]) -> Ticket:
        def prepare() -> Fed:
            raw = {name: choice.gather() for name, choice in choices.items()}
            noise = self._agent.learn_noise(self._key("learn", update), raw)
            return Fed(self._hardware.to_device(raw), self._hardware.to_device(noise), raw)

        return Ticket(update, {name: choice.places for name, choice in choices.items()}, Once(prepare))

    def account(self) -> dict[str, float]:
        """What to log of the replays."""
        replays = self._replays.items()
        return {f"replay/{name}/{what}": value for name, replay in replays for what, value in replay.account().items()}

    def close(self) -> None:
        self._workers.close()
        for replay in self._replays.values():
            replay.close()

    # -- State ---------------------------------------------------------------------------------------------------------

    def state(self) -> Tree:
        return [[ticket.update, dict(ticket.places), ticket.prepare().raw] for ticket in self._tickets]

    def load(self, replays: Mapping[str, Tree], tickets: Tree) -> None:
        """Replays come back, and batches as they were gathered; their noise is drawn again."""
        for name, state in replays.items():
            if name not in self._replays:
                raise UserError(f"the checkpoint holds a replay {name!r}, which this agent does not learn from")
            self._replays[name].load(state)
        if not replays or any(replay.changed for replay in self._replays.values()):
            return
        for update, places, raw in tickets:
            choices = {name: Choice(lambda batch=batch: batch, places[name]) for name, batch in raw.items()}  # type: ignore[misc]
            self._tickets.append(self._ticket(update, choices))
