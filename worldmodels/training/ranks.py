"""The processes of one training: `torchrun --nproc_per_node N -m physgym train ...`.

Every process holds the model and the buffer, and takes its share of the rows of each batch; the gradients are
averaged with the weights that the rows have in the whole batch, and all take the same step. The first process
(rank 0) leads: it alone reads the command line, writes and speaks; the others serve its trainings.

The exchange is written out (`all_reduce` of one vector of gradients) instead of wrapping models in
`DistributedDataParallel`: a wrapper sees one `forward`, and a model here has four verbs; it averages equally,
and shares of a batch whose windows end early do not weigh the same.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

NAMES = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun tells each of its processes."""
PATIENCE = timedelta(days=7)
"""How long processes wait for one another: the first may collect a buffer. One that dies is noticed at once."""
GONE = (
    "another process of this training has ended and said nothing: was it killed, or out of memory?"
)
_CURRENT: list[Ranks] = []
_ENDED, _REASON = "physgym/ended", "physgym/reason"


class PeerError(RuntimeError):
    """Another process of this training has ended; the message says which and why, as far as it is known."""


class Silent(SystemExit):
    """The end of a process whose training has ended with an error that another process tells."""


def several() -> bool:
    """Whether this process is one of several that torchrun started."""
    return all(name in os.environ for name in NAMES) and int(os.environ["WORLD_SIZE"]) > 1


class Ranks:
    """This process among those that train one model. By default it is alone, and nothing is exchanged."""

    def __init__(self, index: int = 0, count: int = 1, store: Any = None) -> None:
        self.index, self.count = index, count
        self._store = store

    @property
    def first(self) -> bool:
        """Whether this process leads, writes and speaks."""
        return self.index == 0

    @property
    def rows(self) -> slice:
        """The rows of every batch that are this process's share."""
        return slice(self.index, None, self.count)

    def stream(self, number: int) -> int:
        """The number of a stream of noise: its own in every process."""
        return number + self.index * 2**40

    def in_turn(self, work: Callable[[], Any]) -> Any:
        """What ``work`` returns; the others do it when the first is done, and find what it has kept."""
        if self.first:
            found = work()
            self.share()
            return found
        self.share()
        return work()

    def share(self, value: Any = None) -> Any:
        """What the first process gives here, in all of them."""
        if self.count == 1:
            return value
        given = [value]
        self._exchange("broadcast_object_list", given, src=0)
        return given[0]

    def most(self, value: int) -> int:
        """The largest of the processes' values."""
        if self.count == 1:
            return value
        import torch

        numbers = torch.tensor([value])
        self._exchange("all_reduce", numbers, op=torch.distributed.ReduceOp.MAX)
        return int(numbers)

    def widest(self, values: Any) -> None:
        """Have a tensor hold the largest of the processes' values, by element."""
        if self.count > 1:
            import torch

            self._exchange("all_reduce", values, op=torch.distributed.ReduceOp.MAX)

    def portion(self, weight: float) -> float | None:
        """The part of the whole that ``weight`` is; None where a process gives one that is not finite.

        All processes get None, or none does.
        """
        if self.count == 1:
            return None if math.isnan(weight) else 1.0
        import torch

        total = torch.tensor([weight], dtype=torch.float64)
        self._exchange("all_reduce", total)
        whole = float(total)
        if math.isnan(whole):
            return None
        return weight / whole if whole else 1.0 / self.count

    def total(self, values: Mapping[str, float]) -> dict[str, float]:
        """Sums over the processes, by name; all have the same names."""
        if self.count == 1:
            return dict(values)
        import torch

        numbers = torch.tensor(list(values.values()), dtype=torch.float64)
        self._exchange("all_reduce", numbers)
        return dict(zip(values, numbers.tolist(), strict=True))

    def add_gradients(self, parameters: Iterable[Any]) -> None:
        """Have the gradient of every parameter hold the sum of the processes' gradients.

        One that is nowhere stays None; one that a process has not counts as zero there.
        """
        if self.count == 1:
            return
        import torch

        kept = list(parameters)
        there = torch.tensor([float(p.grad is not None) for p in kept]).to(kept[0])
        flat = [torch.zeros_like(p) if p.grad is None else p.grad for p in kept]
        numbers = torch.cat([there, *(gradient.reshape(-1) for gradient in flat)])
        self._exchange("all_reduce", numbers)
        counts, *sums = numbers.split([len(kept), *(p.numel() for p in kept)])
        for p, count, own in zip(kept, counts.tolist(), sums, strict=True):
            p.grad = own.view_as(p).clone() if count else None

    def device(self, name: str) -> str:
        """Where this process trains. Raises ``DeviceError`` for a device that is not one for each."""
        from worldmodels.training.devices import DeviceError, resolve_device

        if self.count == 1:
            return resolve_device(name)
        own = resolve_device(name) if name in ("auto", "cpu", "cuda") else name
        if own not in ("cpu", "cuda"):
            raise DeviceError(
                f"device={name!r} is one device, and {self.count} processes train: give --device cuda, of "
                "which each takes its own, or cpu"
            )
        return own if own == "cpu" else resolve_device(f"cuda:{os.environ.get('LOCAL_RANK', 0)}")

    def _exchange(self, name: str, values: Any, **options: Any) -> None:
        """A collective of torch.distributed. Raises ``PeerError`` where another process has ended."""
        import torch.distributed as dist

        try:
            getattr(dist, name)(values, **options)
        except RuntimeError as error:
            raise PeerError(self._reason() or GONE) from error

    def _reason(self) -> str:
        """What the process that ended first has said."""
        try:
            found = self._store is not None and self._store.check([_REASON])
            return self._store.get(_REASON).decode() if found else ""
        except RuntimeError:
            return ""

    def speaks(self, error: BaseException) -> bool:
        """Whether this process is to tell ``error``: the first that ended does, and says it to the others."""
        if self.count == 1 or self._store is None:
            return True
        try:
            before = self._store.add(_ENDED, 1) - 1
            if isinstance(error, (KeyboardInterrupt, SystemExit)):  # all at once, as they agreed
                return self.first
            if before:
                return False
            told = " ".join(str(error).split()) or type(error).__name__
            self._store.set(_REASON, f"process {self.index} of {self.count}: {told}")
        except RuntimeError:  # the store is gone, with the process that held it
            return self.first
        return True


@contextmanager
def joined() -> Iterator[Ranks]:
    """The processes that torchrun started, or this one alone; of an error that ends them, one process tells.

    Inside such a block, the same processes. Raises ``Silent`` in those that have nothing to tell.
    """
    if _CURRENT or not several():
        yield _CURRENT[0] if _CURRENT else Ranks()
        return
    import torch.distributed as dist

    if dist.is_initialized():  # by the script that calls us, which also ends it
        yield Ranks(dist.get_rank(), dist.get_world_size())
        return
    ranks = _begun()
    _CURRENT.append(ranks)
    try:
        yield ranks
    except BaseException as error:
        if ranks.speaks(error):
            raise
        raise Silent(1) from error
    finally:
        _CURRENT.clear()
    dist.destroy_process_group()


def _begun() -> Ranks:
    """Meet the other processes, over gloo and, where there are GPUs, NCCL."""
    import torch
    import torch.distributed as dist

    index, count = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
    store, _, _ = next(iter(dist.rendezvous("env://", index, count, timeout=PATIENCE)))
    gpus = torch.cuda.is_available() and dist.is_nccl_available()
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if gpus else "gloo",
        store=dist.PrefixStore("physgym/exchange", store),
        rank=index,
        world_size=count,
        timeout=PATIENCE,
    )
    return Ranks(index, count, store)
