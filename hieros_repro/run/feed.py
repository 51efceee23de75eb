"""What updates are shown: batches chosen at logical times and gathered ahead, with the noise that goes with them."""

from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

from hieros_repro.agent.base import Agent
from hieros_repro.determinism.keys import Key
from hieros_repro.hardware.device import Hardware
from hieros_repro.records import Request, Tensors, Tree, UserError
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

    It can be chosen once all replays that the update waits for are ready; of the others it takes those that are ready then,
    and does without the rest. Choosing is the caller's thread's, in the order of updates; gathering, drawing noise and copying
    may be anybody's. Tickets that were chosen and not yet taken are state.
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
        return bool(self._tickets) or self._can_choose(update, ending)

    def cost(self, update: int) -> int:
        """How many steps the update replays, of the replays that it waits for: what there is of others is known too late."""
        return max(request.batch * request.length for request in self._agent.due(update) if request.waits)

    def take(self, update: int, ending: bool = False) -> tuple[Ticket, Fed]:
        """What the update is shown, once it is there."""
        if not self._tickets:
            self._choose(update, ending)
        ticket = self._tickets.popleft()
        assert ticket.update == update, f"update {update} was to be shown the batch of {ticket.update}"
        return ticket, ticket.prepare()

    def choose_ahead(self, update: int, ending: bool) -> None:
        """After an update: chooses what may be chosen by now."""
        for ahead in range(update + 1 + len(self._tickets), update + self.lead + 1):
            if not self._can_choose(ahead, ending):
                return
            self._choose(ahead, ending)

    def write_back(self, ticket: Ticket, values: Mapping[str, Any]) -> None:
        for name, value in values.items():
            self._replays[name].write_back(ticket.places[name], value)

    def _can_choose(self, update: int, ending: bool) -> bool:
        """Whether every replay that the update waits for can serve it now. Of an agent without replays there are no updates."""
        requests = self._agent.due(update)
        if not requests and not self._replays:
            return False
        awaited = [request for request in requests if request.waits]
        if not awaited:
            raise ValueError(f"{type(self._agent).__name__} waits for no replay at update {update}; it must for one at least")
        return all(self._serves(request, ending) for request in awaited)

    def _serves(self, request: Request, ending: bool) -> bool:
        return self._replays[request.replay].ready(request, ending)

    def _choose(self, update: int, ending: bool) -> None:
        due = self._agent.due(update)
        assert len({request.replay for request in due}) == len(due), f"update {update} asks twice for one replay"
        requests = [request for request in due if request.waits or self._serves(request, ending)]
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
