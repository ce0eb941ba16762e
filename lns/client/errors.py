"""Every error that a client raises: `LnsError` and one class for each reason.

They have a `message`, and where something can be done, a `hint`. docs/errors.md lists the reasons.
"""

from services.core.errors import *  # noqa: F403 - all of them, and only under another name
