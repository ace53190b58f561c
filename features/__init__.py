"""Feature definitions: what users write. This is the table of contents; a group that is not listed does not exist."""

from core.definitions import Registry
from features import videos

REGISTRY = Registry(groups=videos.GROUPS, services=videos.SERVICES)
