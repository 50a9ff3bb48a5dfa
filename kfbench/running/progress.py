"""What the command line shows while it works: a progress bar a run, and the news in lines above it."""

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from kfbench import registry
from kfbench.spec import RunSpec
from kfbench.tasks import IMAGES
from kfbench.train.loop import Loop, Row, Watcher

SHOWN = {
    "return": "return {:.1f}",
    "episodes": "{:.0f} episodes",
    "share/student": "share {:.2f}",
}


class Bar(Watcher):
    """Shows loss, validation score, student share, rate and time left; on a pipe a line at each evaluation."""

    def __init__(self) -> None:
        self.console = Console(stderr=True, highlight=False)
        self._progress: Progress | None = None
        self._task = TaskID(0)
        self._every = 1
        self._kind = IMAGES

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self.console.print(line, markup=False, soft_wrap=True)

    def start(self, spec: RunSpec, loop: Loop) -> None:
        """Show a new bar."""
        self._kind = registry.kind_of(spec.task)
        self._every = max(1, loop.total // 200)
        title = f"{spec.method} · {spec.task} · seed {spec.seed}"
        if not (self.console.is_terminal or self.console.is_jupyter):
            self.say(f"{title}: {loop.total:,} steps")
            return
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[status]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        self._progress.start()
        self._task = self._progress.add_task(title, total=loop.total, completed=loop.position, status="")

    def step(self, loop: Loop, row: Row | None) -> None:
        """Move the bar, now and then: looking at the loss waits for the device."""
        if self._progress is None:
            if row:
                self.say(f"  step {loop.position:,} of {loop.total:,}: {self._text(loop, row)}")
        elif row or loop.position % self._every == 0:
            self._progress.update(self._task, completed=loop.position, status=self._text(loop, {}))

    def _text(self, loop: Loop, row: Row) -> str:
        status = {**loop.status(), **row}
        if loop.curve and "share/student" in loop.curve[-1]:
            status["share/student"] = loop.curve[-1]["share/student"]  # as last evaluated: metrics are work
        score = "val {:.1f} %" if self._kind.is_percent else "val {:.1f}"
        shown = {"loss": "loss {:.3f}", f"val_{self._kind.metric}": score, **SHOWN}
        words = [form.format(status[name]) for name, form in shown.items() if name in status]
        return " · ".join([*words, f"{status['rate']:,.0f} {self._kind.unit}/s"])

    def stop(self) -> None:
        """Take the bar away."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = None
