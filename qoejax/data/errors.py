"""The one exception of the data room."""


class DataError(ValueError):
    """Data is missing or not in the promised form.

    The message is one sentence for a person: which file, column or label, what was found, and what
    was expected instead.
    """
