"""Programs that use the package as its users do: `python -m adjax` and `python -m adjax train digits`."""
