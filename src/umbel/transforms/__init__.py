"""What happens to an update on its way from the client into the sum."""

from __future__ import annotations

from umbel.transforms.base import Chain, Facts, Noise, Released, Task, Trait, Transform
from umbel.transforms.clip import clip

__all__ = ["Chain", "Facts", "Noise", "Released", "Task", "Trait", "Transform", "clip"]
