"""All mutants, by the part of the pipeline that they break. To add one, append it to the list of its part."""

from tests.mutants.applying import APPLYING
from tests.mutants.dispatching import DISPATCHING
from tests.mutants.owning import OWNING
from tests.mutants.publishing import PUBLISHING
from tests.mutants.storing import STORING

PARTS = {
    "From a source to its entities": DISPATCHING,
    "From an update to a value": APPLYING,
    "From a row to its commit": PUBLISHING,
    "Who owns a partition": OWNING,
    "Stores": STORING,
}

MUTANTS = tuple(mutant for mutants in PARTS.values() for mutant in mutants)
