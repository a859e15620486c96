"""Values of discrete actions, read from a dictionary of what similar states have led to.

    Q(s, a) = sum_i w_i v_i        w_i = k(h, h_i) / sum_j k(h, h_j)    (arXiv:1703.01988, 1 and 2)
    k(h, h_i) = 1 / (|h - h_i|^2 + delta)                                                       (5)
    v_i <- v_i + alpha (R - v_i)                                                                (4)

``h`` is the key that the network makes of a state, ``i`` runs over the keys nearest to it in the
dictionary of action ``a``, and ``R`` is a return that followed ``a`` in such a state.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from coach.architectures.activations import initialized
from coach.architectures.head import Head
from coach.architectures.linear import Linear
from coach.core.errors import SettingError
from coach.core.registry import register
from coach.core.schema import Count, NonNegative, Positive, Share
from coach.core.spec import Spec
from coach.functional.values import ScalarValues
from torch import Tensor, nn

_NEVER = -1  # last use of a slot that has not been filled
_AT_ONCE = 2**24  # distances that are held at a time
_LEAST_WEIGHT = 1e-30  # of all neighbours together, far below that of any one of them


class NeuralDictionary(nn.Module):
    """Keys with values, for each action: found by distance, forgotten when long out of use.

    All of it is buffers of fixed shapes: saved with the weights, restored bit for bit, broadcast to
    actors. A slot takes ``4 * width + 16`` bytes. Searching is exact, by one matrix product.

    Args:
        actions: how many dictionaries.
        capacity: slots of each.
        width: of the keys.
        neighbours: keys that a value is read from.
        delta: added to squared distances by the kernel.
        alpha: how far the value of a known key moves towards a new one.
        tolerance: distance up to which two keys are the same.
        entry_lr: step size of `descend`.
    """

    keys: Tensor
    squares: Tensor
    values: Tensor
    last_use: Tensor
    clock: Tensor

    def __init__(
        self,
        actions: int,
        capacity: int,
        width: int,
        neighbours: int = 50,
        delta: float = 1e-3,
        alpha: float = 0.1,
        tolerance: float = 0.01,
        entry_lr: float = 0.0,
    ) -> None:
        super().__init__()
        self.neighbours, self.delta = neighbours, delta
        self.alpha, self.tolerance, self.entry_lr = alpha, tolerance, entry_lr
        slots = (actions, capacity)
        self.register_buffer("keys", torch.zeros(*slots, width))
        #: Squared lengths of the keys; infinite where there is none, so that none is found there.
        self.register_buffer("squares", torch.full(slots, torch.inf))
        self.register_buffer("values", torch.zeros(slots))
        self.register_buffer("last_use", torch.full(slots, _NEVER))
        #: Counts uses and writes, not time.
        self.register_buffer("clock", torch.zeros((), dtype=torch.int64))

    @property
    def count(self) -> Tensor:
        """``[A]`` how many keys there are."""
        return self.squares.isfinite().sum(-1)

    @torch.no_grad()
    def find(self, key: Tensor) -> Tensor:
        """Slots ``[A, B, k]`` of the keys nearest to ``key`` ``[B, D]``, in no order.

        Where there are fewer than k keys, the rest are slots without one.
        """
        pieces = torch.split(key, max(1, _AT_ONCE // self.squares.numel()))
        found = [self._find(piece) for piece in pieces]
        return found[0] if len(found) == 1 else torch.cat(found, 1)

    def read(self, key: Tensor, slot: Tensor) -> tuple[Tensor, Tensor]:
        """Mean of the values in ``slot`` ``[A, B, k]``, weighted by the kernel.

        Args:
            key: ``[B, D]``; gradients reach it through the distances.
            slot: see `find`.

        Returns:
            Values ``[A, B]``, 0 where nothing was found, and ``[A, B]`` whether anything was.
        """
        near, filled, value = self._at(slot)
        distance = (key.unsqueeze(1) - near).square().sum(-1)  # [A, B, k]
        weight = torch.where(filled, 1.0 / (distance + self.delta), 0.0)
        total = weight.sum(-1)
        mean = (weight * value).sum(-1) / total.clamp(min=_LEAST_WEIGHT)
        return mean, filled.any(-1)

    @torch.no_grad()
    def descend(self, key: Tensor, action: Tensor, slot: Tensor, error: Tensor) -> None:
        """Move entries along the gradient of what was read from them.

        A key moves by no more than half its distance to ``key``: the kernel is so steep near it
        that a plain step would throw entries far away.

        Args:
            key: ``[B, D]`` what was looked up.
            action: ``[B]`` in whose dictionary.
            slot: ``[B, k]`` where it was read.
            error: ``[B]`` derivative of the loss by the value that was read.
        """
        capacity, width = self.keys.shape[1:]
        at = (action.unsqueeze(1) * capacity + slot).flatten()
        keys, squares = self.keys.view(-1, width), self.squares.view(-1)
        values = self.values.view(-1)
        apart = key.unsqueeze(1) - keys[at].view(*slot.shape, width)  # [B, k, D]
        filled = squares[at].isfinite().view(slot.shape)
        value = values[at].view(slot.shape)
        weight = torch.where(filled, 1.0 / (apart.square().sum(-1) + self.delta), 0.0)
        share = weight / weight.sum(-1, keepdim=True).clamp(min=_LEAST_WEIGHT)
        mean = (share * value).sum(-1, keepdim=True)
        pull = -self.entry_lr * error.unsqueeze(1) * share
        nearer = (pull * (value - mean) * 2.0 * weight).clamp(-0.5, 0.5)
        values.index_add_(0, at, pull.flatten())
        keys.index_add_(0, at, (nearer.unsqueeze(-1) * apart).flatten(0, 1))
        squares[at] = torch.where(filled.flatten(), keys[at].square().sum(-1), torch.inf)

    @torch.no_grad()
    def touch(self, slot: Tensor) -> None:
        """Count the keys in ``slot`` ``[A, B, k]`` as used now."""
        self.clock += 1
        used = slot.flatten(1)
        self.last_use.scatter_(1, used, self.clock.expand(used.shape))
        self.last_use.masked_fill_(self.squares.isinf(), _NEVER)

    @torch.no_grad()
    def write(self, key: Tensor, action: Tensor, value: Tensor) -> None:
        """Learn that ``action`` led to ``value`` where the key is ``key``.

        A key within ``tolerance`` of a known one moves the value of the nearest such; any other is
        added, in a free slot or in that of the key longest out of use. The outcome is that of
        writing row after row, except that what a write has found is not forgotten for what it adds.

        Args:
            key: ``[M, D]``.
            action: ``[M]``.
            value: ``[M]``.
        """
        capacity = self.keys.shape[1]  # no more rows than slots: then all can be kept
        most = min(capacity, max(1, _AT_ONCE // capacity))
        for rows in torch.split(torch.arange(len(key), device=key.device), most):
            self.clock += 1
            for number in range(len(self.keys)):
                mine = rows[action[rows] == number]
                if len(mine):
                    self._write(number, key[mine], value[mine])

    def _find(self, key: Tensor) -> Tensor:
        queries = key.expand(len(self.keys), *key.shape)  # [A, B, D]
        # The length of the query itself is left out: it changes no order.
        distance = torch.baddbmm(
            self.squares.unsqueeze(1), queries, self.keys.transpose(1, 2), alpha=-2.0
        )  # [A, B, C]
        return distance.topk(self.neighbours, -1, largest=False, sorted=False).indices

    def _at(self, slot: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Keys ``[A, B, k, D]``, whether there is one, and values in slots ``[A, B, k]``."""
        actions, capacity, width = self.keys.shape
        first = torch.arange(actions, device=slot.device) * capacity
        at = (slot + first.view(-1, 1, 1)).flatten()
        near = self.keys.view(-1, width).index_select(0, at).view(*slot.shape, width)
        filled = self.squares.view(-1).index_select(0, at).isfinite().view(slot.shape)
        value = self.values.view(-1).index_select(0, at).view(slot.shape)
        return near, filled, value

    def _write(self, number: int, key: Tensor, value: Tensor) -> None:
        """`write` rows ``[M]`` of one action; no more than there are slots."""
        slot, known = self._nearest(number, key)  # [M] each
        apart = _distances(key, key)  # [M, M]
        earlier = torch.ones_like(apart, dtype=torch.bool).tril(-1)
        close = earlier & (apart <= self.tolerance)
        added = _leaders(close, known > self.tolerance)  # [M]
        beside, leader = torch.where(close & added, apart, torch.inf).min(-1)
        follows = ~added & (beside < known)
        self._use(number, slot[~added & ~follows])
        place = torch.zeros_like(slot)
        place[added] = self._insert(number, key[added], value[added])
        slot = torch.where(follows, place[leader], slot)
        self._move(number, slot[~added], value[~added])

    def _nearest(self, number: int, key: Tensor) -> tuple[Tensor, Tensor]:
        """Slot of the nearest key to each ``[M]``, and how far it is; infinite without any."""
        distance = torch.addmm(self.squares[number], key, self.keys[number].t(), alpha=-2.0)
        slot = distance.topk(self.neighbours, -1, largest=False).indices  # [M, k]
        # That was rounded: what is nearest, and whether it is the same, is told by differences.
        exact = torch.linalg.vector_norm(self.keys[number][slot] - key.unsqueeze(1), dim=-1)
        exact = torch.where(self.squares[number][slot].isfinite(), exact, torch.inf)
        least, which = exact.min(-1)
        return slot.gather(1, which.unsqueeze(1)).squeeze(1), least

    def _use(self, number: int, slot: Tensor) -> None:
        self.last_use[number, slot] = self.clock

    def _insert(self, number: int, key: Tensor, value: Tensor) -> Tensor:
        """Put keys in the slots longest out of use, lowest number first; returns the slots."""
        capacity = self.keys.shape[1]
        order = self.last_use[number] * capacity + torch.arange(capacity, device=key.device)
        slot = order.topk(len(key), largest=False).indices
        self.keys[number, slot] = key
        self.squares[number, slot] = key.square().sum(-1)
        self.values[number, slot] = value
        self._use(number, slot)
        return slot

    def _move(self, number: int, slot: Tensor, value: Tensor) -> None:
        """Move values ``[M]`` one after the other, all at once; slots may come repeatedly."""
        keep = 1.0 - self.alpha
        slots, which, times = torch.unique(slot, return_inverse=True, return_counts=True)
        later = (which.unsqueeze(0) == which.unsqueeze(1)).triu(1).sum(1)  # [M] moves to come
        pull = torch.zeros_like(slots, dtype=value.dtype)
        pull.index_add_(0, which, self.alpha * keep**later * value)
        self.values[number, slots] = self.values[number, slots] * keep**times + pull


@dataclass
class EpisodicValues(ScalarValues):
    """One expected return per action, and where in the dictionary it was read.

    Args:
        key: ``[B, D]`` what was looked up.
        slot: ``[A, B, k]`` the neighbours found.
    """

    key: Tensor = field(kw_only=True)
    slot: Tensor = field(kw_only=True)


@register("head", "dnd_q")
class DNDQ(Head):
    """Neural episodic control's differentiable dictionaries, one per action (arXiv:1703.01988).

    An action's value is the mean of what its nearest keys led to, over all of its keys while there
    are fewer than ``neighbours``. An action with none at all is worth what a linear layer says,
    which begins at 0. Agent nec fills the dictionaries; others only read them.

    Gradients reach the network through the distances. Keys and values are no parameters: an
    optimiser's moments would outlive the entries that they belong to. They are changed by writing
    and, with ``entry_lr``, by plain gradient steps on what was read from them.

    Every action takes ``capacity * (4 * key_size + 16)`` bytes, 2.9 MB with the defaults, and that
    again in each process that acts.

    Args:
        capacity: keys per action, after which the one longest out of use makes room.
        neighbours: keys that a value is read from.
        key_size: width of the keys, which a linear layer makes of the features; null takes the
            features as they are.
        delta: added to squared distances by the kernel; distances well below its root make no
            difference.
        alpha: share of the way that the value of a known key goes towards a new return.
        tolerance: distance up to which a key counts as known.
        entry_lr: step size of keys and values along the loss of every row that read them; 0 leaves
            them to writing.
        huber_delta: where the squared error of the loss turns linear; 0 keeps it squared.
    """

    provides = "values"
    also = ("dictionary",)

    def __init__(
        self,
        features: int,
        spec: Spec,
        capacity: Count = 20_000,
        neighbours: Count = 50,
        key_size: Count | None = 32,
        delta: Positive = 1e-3,
        alpha: Share = 0.1,
        tolerance: NonNegative = 0.01,
        entry_lr: NonNegative = 0.0,
        huber_delta: NonNegative = 1.0,
    ) -> None:
        super().__init__()
        actions = spec.num_actions("head dnd_q")
        if neighbours > capacity:
            raise SettingError(
                "neighbours",
                f"{neighbours} neighbours cannot be found among {capacity} keys",
                "Lower neighbours or raise capacity.",
            )
        # Orthogonal, so that what is close in features is close in keys from the beginning.
        self.key = (
            nn.Identity()
            if key_size is None
            else initialized(Linear(features, key_size), "orthogonal", gain=1.0)
        )
        self.unseen = Linear(features, actions)
        nn.init.zeros_(self.unseen.weight)
        nn.init.zeros_(self.unseen.bias)
        width = features if key_size is None else key_size
        self.dictionary = NeuralDictionary(
            actions, capacity, width, neighbours, delta, alpha, tolerance, entry_lr
        )
        self.huber_delta = huber_delta

    def forward(self, features: Tensor) -> EpisodicValues:
        key: Tensor = self.key(features)  # [B, D]
        slot = self.dictionary.find(key)
        remembered, any_found = self.dictionary.read(key, slot)  # [A, B] each
        mean = torch.where(any_found.t(), remembered.t(), self.unseen(features))  # [B, A]
        return EpisodicValues(mean, self.huber_delta, key=key, slot=slot)


def _distances(keys: Tensor, others: Tensor) -> Tensor:
    """``[M, M]`` distances, without the rounding of a matrix product."""
    return torch.cdist(keys, others, compute_mode="donot_use_mm_for_euclid_dist")


def _leaders(close: Tensor, eligible: Tensor) -> Tensor:
    """Rows ``[M]`` that are added: eligible, with no row before them that is added and close.

    Whether a row is added depends on those before it; all rows whose predecessors are decided are
    decided at once, so that there are as many rounds as the longest chain of close rows.

    Args:
        close: ``[M, M]`` whether a row is close to an earlier one, the column.
        eligible: ``[M]``.
    """
    leads, open_ = torch.zeros_like(eligible), eligible.clone()
    while bool(open_.any()):
        waits = (close & open_).any(-1)
        covered = (close & leads).any(-1)
        leads |= open_ & ~waits & ~covered
        open_ &= waits & ~covered
    return leads
