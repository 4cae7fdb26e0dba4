"""The one exception that is meant for the person at the keyboard."""


class UserError(ValueError):
    """Something the user can mend: one sentence, the thing and the cure."""
