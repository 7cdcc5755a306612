"""Time on a device: CUDA events (perf_counter on a CPU), contenders that take turns, budgets, the copy bandwidth."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch


@dataclass(frozen=True)
class Pace:
    """How long to measure. Who cannot make the least rounds in his share of the time is cut after one."""

    least: int = 5
    most: int = 200
    sample: float = 0.01
    """Seconds of a sample of an op: many calls, so that launches hide behind the work."""
    epochs: float = 0.15
    """Seconds of a sample of calibration epochs; one epoch where that takes longer."""


QUICK = Pace(least=3, most=3, sample=2e-4, epochs=2e-3)


class Timer:
    """Seconds of device work. Events lie on the device's own clock: the host may run ahead of it within a sample."""

    def __init__(self, device: torch.device, pace: Pace = Pace()):
        self.device = device
        self.pace = pace
        self.cuda = device.type == "cuda"

    def synchronize(self) -> None:
        if self.cuda:
            torch.cuda.synchronize(self.device)

    def seconds(self, work: Callable[[], object], calls: int = 1) -> float:
        """Seconds that one of so many calls takes."""
        if not self.cuda:
            began = time.perf_counter()
            for _ in range(calls):
                work()
            return (time.perf_counter() - began) / calls
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        for _ in range(calls):
            work()
        end.record()
        end.synchronize()
        return start.elapsed_time(end) / 1e3 / calls


@dataclass
class Budget:
    """Splits the time that is left among the sections to come, in the proportion of their weights.

    A section that ends early leaves its rest to the others; one that is late takes it from all.
    """

    seconds: float
    weights: Mapping[str, float]
    clock: Callable[[], float] = time.monotonic
    done: set[str] = field(default_factory=set)

    def __post_init__(self):
        self.end = self.clock() + self.seconds
        self.deadline = self.end

    def begin(self, section: str) -> float:
        """Seconds that this section has."""
        left = max(0.0, self.end - self.clock())
        open_weights = sum(weight for name, weight in self.weights.items() if name not in self.done)
        self.done.add(section)
        self.deadline = self.clock() + left * self.weights[section] / open_weights
        return self.left()

    def left(self) -> float:
        """Seconds until the present section should be over."""
        return max(0.0, self.deadline - self.clock())


def measure(
    timer: Timer, contenders: Mapping[str, Callable[[], object]], seconds: float, sample: float | None = None
) -> dict[str, list[float]]:
    """Seconds a call of each contender, round by round; each round begins with another contender.

    Each is called twice before anything counts. A sample is as many calls as take about ``sample`` seconds
    (timer.pace.sample unless given).
    """
    pace = timer.pace
    sample = pace.sample if sample is None else sample
    calls, samples = {}, {}
    for name, work in contenders.items():
        timer.seconds(work)
        guess = max(timer.seconds(work), 1e-9)
        calls[name] = min(1000, max(1, round(sample / guess)))
        samples[name] = [timer.seconds(work, calls[name])]
    share = seconds / max(1, len(contenders))
    names = [name for name in contenders if samples[name][0] * calls[name] * pace.least <= share]
    for name in names:
        samples[name].clear()
    began = time.monotonic()
    for number in range(pace.most if names else 0):
        for k in range(len(names)):
            name = names[(number + k) % len(names)]
            samples[name].append(timer.seconds(contenders[name], calls[name]))
        if number + 1 >= pace.least and time.monotonic() - began > seconds:
            break
    return samples


def copy_bandwidth(timer: Timer, nbytes: int, seconds: float) -> float:
    """Bytes a second that a copy on the device reads and writes together: the median of many."""
    source = torch.rand(nbytes // 4, device=timer.device)
    target = torch.empty_like(source)
    samples = measure(timer, {"copy": lambda: target.copy_(source)}, seconds)["copy"]
    return 2 * source.nbytes / float(np.median(samples))
