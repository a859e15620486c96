"""What TensorBoard shows of a run."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor, nn


class TensorBoard:
    """Event files in a run's folder; the x axis is environment steps.

    Args:
        folder: where the event files go.
        purge_step: on resume, events from this step on are hidden, since they come again.
    """

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        from tensorboard.compat.proto.event_pb2 import Event  # these import slowly
        from torch.utils.tensorboard import SummaryWriter

        self._event, self._tags = Event(), list[str]()
        self.writer = SummaryWriter(str(folder), purge_step=purge_step)

    def scalars(self, values: Mapping[str, float | None], step: int) -> None:
        """Write numbers by tag, as one event; ``None`` is left out.

        Lines mostly have the same tags, so one event serves them all.
        """
        found = {tag: value for tag, value in values.items() if value is not None}
        summary, tags = self._event.summary, list(found)
        if tags != self._tags:
            self._tags = tags
            summary.Clear()
            for tag in tags:
                summary.value.add(tag=tag)
        for slot, value in zip(summary.value, found.values()):
            slot.simple_value = value
        self._files.add_event(self._event, step)  # which turns it into bytes at once

    def text(self, tag: str, text: str, step: int = 0) -> None:
        """Write preformatted text."""
        self.writer.add_text(tag, "\n".join(f"    {line}" for line in text.splitlines()), step)

    def histograms(self, action: Tensor, module: nn.Module, step: int) -> None:
        """Write the actions taken and every weight tensor."""
        self.writer.add_histogram("actions", action.float().flatten(), step)
        for name, parameter in module.named_parameters():
            self.writer.add_histogram(f"weights/{name}", parameter.detach(), step)

    def hparams(self, settings: Mapping[str, Any], results: Mapping[str, float]) -> None:
        """Write the run's settings with its final result, for the HParams tab."""
        from torch.utils.tensorboard.summary import hparams

        flat = {
            name: value if isinstance(value, bool | int | float | str) else str(value)
            for name, value in _flatten(settings)
        }
        for summary in hparams(flat, dict(results)):  # type: ignore[no-untyped-call]
            self._files.add_summary(summary)
        for tag, value in results.items():
            self.writer.add_scalar(tag, value)

    @property
    def _files(self) -> Any:
        return self.writer._get_file_writer()  # type: ignore[no-untyped-call]

    def flush(self) -> None:
        """Hand what is buffered to the operating system."""
        self.writer.flush()

    def close(self) -> None:
        """Flush and close."""
        self.writer.close()


def _flatten(tree: Mapping[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    flat: list[tuple[str, Any]] = []
    for key, value in tree.items():
        path = f"{prefix}.{key}" if prefix else str(key)
        flat += _flatten(value, path) if isinstance(value, Mapping) else [(path, value)]
    return [(path, value) for path, value in flat if value is not None]
