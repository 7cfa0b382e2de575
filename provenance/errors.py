"""The one error that a user is meant to read."""


class UserError(Exception):
    """Something the user can mend: the message names the culprit and the way out, on one line."""
