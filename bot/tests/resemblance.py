"""Whether what was heard is what was said, after codecs, jitter and a busy host."""

import asyncio

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.int16]

LOUD = 500
"""Mean amplitude (of 32768) from which a moment counts as loud."""
STEP_SECS = 0.02


class Heard:
    """What came, and waits for it to be loud or quiet."""

    def __init__(self, sample_rate: int) -> None:
        self._rate = sample_rate
        self._step = int(sample_rate * STEP_SECS)
        self._samples: list[Samples] = []
        self._count = 0
        self._changed = asyncio.Condition()
        self._notify: asyncio.Task[None] | None = None

    def hear(self, samples: Samples) -> None:
        self._samples.append(samples.copy())
        self._count += len(samples)
        self._notify = asyncio.get_running_loop().create_task(self._tell())

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    def mark(self) -> int:
        return self._count

    def since(self, mark: int) -> Samples:
        return np.concatenate([np.zeros(0, np.int16), *self._samples])[mark:]

    def levels(self, mark: int = 0) -> npt.NDArray[np.float64]:
        return levels(self.since(mark), self._step)

    async def until_loud(self, secs: float, timeout: float, since: int = 0) -> None:
        """Waits for so much loud audio in all."""
        enough = secs / STEP_SECS
        await self._until(lambda: (self.levels(since) > LOUD).sum() >= enough, timeout)

    async def until_quiet(self, secs: float, timeout: float) -> None:
        """Waits until the last so many seconds were quiet."""
        steps = int(secs / STEP_SECS)

        def quiet() -> bool:
            last = self.levels(max(0, self._count - (steps + 1) * self._step))[-steps:]
            return len(last) == steps and bool((last <= LOUD).all())

        await self._until(quiet, timeout)

    async def _until(self, predicate: object, timeout: float) -> None:
        assert callable(predicate)
        try:
            async with asyncio.timeout(timeout), self._changed:
                await self._changed.wait_for(predicate)
        except TimeoutError:
            loud = int((self.levels() > LOUD).sum()) * STEP_SECS
            raise AssertionError(
                f"heard {self._count / self._rate:.1f} s, {loud:.1f} s of it loud; not in time"
            ) from None


def levels(samples: Samples, step: int) -> npt.NDArray[np.float64]:
    whole = len(samples) // step * step
    loud: npt.NDArray[np.float64] = np.abs(samples[:whole].astype(np.float64))
    means: npt.NDArray[np.float64] = loud.reshape(-1, step).mean(axis=1)
    return means


def resemblance(said: Samples, heard: Samples, sample_rate: int) -> float:
    """How alike two sounds rise and fall, from 0 to 1, at the place where they are most alike.

    By their loudness over time: a codec keeps that, and small gaps do not matter.
    """
    step = int(sample_rate * STEP_SECS)
    ours, theirs = levels(said, step), levels(heard, step)
    if len(theirs) < len(ours):
        theirs = np.pad(theirs, (0, len(ours) - len(theirs)))
    best = 0.0
    for at in range(len(theirs) - len(ours) + 1):
        part = theirs[at : at + len(ours)]
        if part.std() > 0:
            best = max(best, float(np.corrcoef(ours, part)[0, 1]))
    return best
