"""What holds for all tests."""

from hypothesis import settings

# A machine that is busy with something else is no reason for a property not to hold.
settings.register_profile("untimed", deadline=None)
settings.load_profile("untimed")
