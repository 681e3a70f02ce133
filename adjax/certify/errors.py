"""What is wrong with a question put to the prover."""


class BadInput(ValueError):
    """The function or its arguments cannot be certified; the message says which, and what to do."""
