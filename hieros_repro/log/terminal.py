"""The terminal: a live panel where there is one, plain lines otherwise; and console.log, which always has the lines."""

import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hieros_repro.log import levels
from hieros_repro.log.base import Silent, Sink


def terminal(mode: str, folder: Path, config: Mapping[str, Any], facts: Mapping[str, str]) -> Sink:
    """The sink for `log.terminal`. auto: a panel if standard output is a terminal, lines otherwise."""
    if mode == "auto":
        mode = "panel" if sys.stdout.isatty() else "lines"
    total = config["run"]["steps"]
    if mode == "panel":
        return Panel(folder, str(folder), total, facts)
    return Lines(folder, total, quiet=mode == "quiet")


class Lines(Silent):
    """One line per row of metrics."""

    def __init__(self, folder: Path, total: int, quiet: bool = False):
        self._file = (folder / "console.log").open("a", encoding="utf8")
        self._total = total
        self._quiet = quiet
        self._speed = 0.0
        self._left: float | None = None  # seconds

    def metrics(self, row: Mapping[str, Any]) -> None:
        parts = [f"{min(row['step'] / self._total, 1.0):6.1%}  step {row['step']:>9,}"]
        if "eval/score" in row:
            spread = f" +- {row['eval/score_std']:.1f}" if "eval/score_std" in row else ""
            parts.append(f"evaluation {row['eval/score']:.1f}{spread} over {row['eval/episodes']} episodes")
        else:
            if "episode/score" in row:
                parts.append(f"score {row['episode/score']:.1f} ({row['episode/count']} episodes)")
            if self._speed:
                parts.append(f"{self._speed:,.0f} steps/s, {clock(self._left)} left")
        self.say("  ".join(parts))

    def timing(self, row: Mapping[str, Any]) -> None:
        self._speed, self._left = row["steps_per_second"], row.get("seconds_left")

    def say(self, text: str) -> None:
        if not self._quiet:
            print(text, flush=True)
        self._file.write(text + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class Panel(Lines):
    """A live picture of the run: progress, speed, scores, where the time goes, and what is promised about the numbers."""

    def __init__(self, folder: Path, title: str, total: int, facts: Mapping[str, str]):
        from rich.console import Console
        from rich.live import Live

        super().__init__(folder, total, quiet=True)
        self._title, self._facts = title, facts
        self._metrics: dict[str, Any] = {"step": 0}
        self._timing: dict[str, Any] = {}
        self._console = Console()
        self._live = Live(self._draw(), console=self._console, refresh_per_second=4)
        self._live.start()

    def metrics(self, row: Mapping[str, Any]) -> None:
        super().metrics(row)
        self._metrics |= row
        self._live.update(self._draw())

    def timing(self, row: Mapping[str, Any]) -> None:
        super().timing(row)
        self._timing = dict(row)
        self._live.update(self._draw())

    def say(self, text: str) -> None:
        super().say(text)
        if not text.lstrip()[:1].isdigit():  # rows are in the panel already
            self._live.console.print(text, markup=False, highlight=False)

    def close(self) -> None:
        self._live.update(self._draw())
        self._live.stop()
        super().close()

    def _draw(self) -> Any:
        from rich.panel import Panel as Box
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        step = self._metrics["step"]
        table = Table.grid(padding=(0, 2))
        table.add_column(style="bold", no_wrap=True)
        table.add_column()
        table.add_row("progress", ProgressBar(total=self._total, completed=min(step, self._total), width=40))
        table.add_row("step", f"{step:,} of {self._total:,}, {clock(self._left)} left, {self._speed:,.0f} steps/s")
        for name, label in (("episode/score", "training score"), ("eval/score", "evaluation")):
            if name in self._metrics:
                table.add_row(label, f"{self._metrics[name]:.1f}")
        if learning := levels.table(self._metrics):
            table.add_row("learning", Text(learning, no_wrap=True))
        shares = {name[6:]: value for name, value in self._timing.items() if name.startswith("share/")}
        if shares:
            ordered = sorted(shares.items(), key=lambda item: -item[1])
            table.add_row("time", ", ".join(f"{name} {value:.0%}" for name, value in ordered if value >= 0.005))
        for name, fact in self._facts.items():
            table.add_row(name, fact)
        return Box(table, title=self._title, title_align="left", expand=False)


def clock(seconds: float | None) -> str:
    """Seconds as people say them."""
    if seconds is None:
        return "--:--"
    return time.strftime("%H:%M:%S", time.gmtime(seconds)) if seconds < 86_400 else f"{seconds / 86_400:.1f} days"
