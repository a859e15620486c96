"""Modules under any names whatever."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import nn


class Named(nn.Module):
    """Like `nn.ModuleDict`, which refuses names such as "type" or "values" and names with a dot.

    Args:
        modules: by name; their order is kept.
    """

    def __init__(self, modules: Mapping[str, nn.Module]) -> None:
        super().__init__()
        self.names = list(modules)
        self.inner = nn.ModuleList(modules.values())

    def __getitem__(self, name: str) -> nn.Module:
        return self.inner[self.names.index(name)]

    def __contains__(self, name: object) -> bool:
        return name in self.names

    def __iter__(self) -> Iterator[str]:
        return iter(self.names)

    def __len__(self) -> int:
        return len(self.names)

    def items(self) -> Iterator[tuple[str, nn.Module]]:
        """Names and modules."""
        return zip(self.names, self.inner)

    def values(self) -> Iterator[nn.Module]:
        """The modules."""
        return iter(self.inner)
