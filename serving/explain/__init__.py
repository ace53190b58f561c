"""Why a served number is what it is."""
