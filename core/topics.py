"""Names of topics and places that Freshet owns. They do not depend on role or app id (SEMANTICS: Topics)."""

DEAD_LETTERS = "freshet.dead-letters"


def repartition_topic(entity: str) -> str:
    """Return the topic that carries an entity's updates from dispatchers to aggregators.

    >>> repartition_topic("user")
    'freshet.user'
    """
    return f"freshet.{entity}"


def changelog_topic(entity: str) -> str:
    """Return the compacted topic that holds an entity's table, partition by partition as its repartition topic.

    >>> changelog_topic("user")
    'freshet.user.changelog'
    """
    return f"freshet.{entity}.changelog"


def row_name(group: str, number: int) -> str:
    """Return ``sk``: a group and the number of its definition's version.

    >>> row_name("user_engagement", 1)
    'user_engagement@v1'
    """
    return f"{group}@v{number}"
