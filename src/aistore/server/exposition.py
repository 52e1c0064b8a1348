"""Prometheus' text format, 0.0.4: what every version of Prometheus and everything that imitates it reads.

Written here and not by prometheus-client: that library puts ``_total`` behind every counter's name, and AIStore's names
(``ais_target_get_count``), which its dashboards ask for, have none. A test reads the result with that library's parser.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


@dataclass(slots=True)
class Family:
    """One metric: its name, its kind (``counter``, ``gauge``, ``histogram``), what it is, and its samples."""

    name: str
    kind: str
    help: str
    samples: list[str] = field(default_factory=list)

    def add(self, value: float, **labels: str) -> Family:
        """Add a sample."""
        self.samples.append(f"{self.name}{_spell_labels(labels)} {_spell(value)}")
        return self

    def add_histogram(self, bounds: Sequence[float], counts: Sequence[int], total: float, **labels: str) -> Family:
        """Add a histogram: ``counts`` by bucket, one more than ``bounds``, and the ``total`` of what was seen."""
        seen = 0
        for bound, count in zip((*map(_spell, bounds), "+Inf"), counts, strict=True):
            seen += count
            self.samples.append(f"{self.name}_bucket{_spell_labels({**labels, 'le': bound})} {seen}")
        self.samples.append(f"{self.name}_sum{_spell_labels(labels)} {_spell(total)}")
        self.samples.append(f"{self.name}_count{_spell_labels(labels)} {seen}")
        return self

    def lines(self) -> list[str]:
        """Return the lines of the text."""
        return [f"# HELP {self.name} {_escape(self.help)}", f"# TYPE {self.name} {self.kind}", *self.samples]


def exposition(families: Sequence[Family]) -> bytes:
    """Return the text of all metrics."""
    return ("\n".join(line for family in families for line in family.lines()) + "\n").encode()


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _spell_labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    quoted = ((name, _escape(value).replace('"', '\\"')) for name, value in labels.items())
    return "{" + ",".join(f'{name}="{value}"' for name, value in quoted) + "}"


def _spell(value: float) -> str:
    return repr(value)
