"""What is said before a run: what is going to happen, and about how long it will take on this machine."""

import contextlib
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

from kfbench import registry
from kfbench.running import estimate, execute, prepare
from kfbench.spec import RunSpec
from kfbench.train.training import training_of

PATIENCE = 3.0  # seconds of measuring in silence


def announce(spec: RunSpec, *, results: Path, device: str, say: Callable[[str], None], force: bool) -> None:
    """Say what is going to happen and about how long it will take on this machine."""
    missing = prepare.missing_teachers(spec, results=results)
    if not missing and not force and execute.finished(prepare.plan(spec, results=results), results):
        return
    with _told_if_slow(say):
        own = estimate.spoken(estimate.seconds(spec, device=device, results=results))
    untimed = training_of(registry.kind_of(spec.task)).untimed
    beside = f" beside {untimed}" if untimed else ""
    told = f"{spec.method} on {spec.task}, {spec.recipe.network}, budget {spec.budget}"
    say(f"{told}: about {own} on this machine{beside}")
    if missing:
        with _told_if_slow(say):
            longest = estimate.spoken(sum(estimate.seconds(wanted, device=device) for wanted in missing))
        names = ", ".join(prepare.called(wanted) for wanted in missing)
        say(f"teachers to train first: {names}: about {longest}")
    for few in filter(None, (estimate.too_few([spec]), estimate.too_few(missing, are_teachers=True))):
        say(f"note: {few}")


@contextlib.contextmanager
def _told_if_slow(say: Callable[[str], None]) -> Iterator[None]:
    timer = threading.Timer(PATIENCE, say, ["measuring a few steps, to say how long it will take …"])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
