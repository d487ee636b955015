"""Who asks."""

import msgspec


class Credentials(msgspec.Struct, frozen=True):
    """What `X-Registry-Auth` carries. `identity_token` is exchanged for access tokens (OAuth2 refresh token);
    `registry_token` is sent as it is."""

    username: str = ""
    password: str = ""
    identity_token: str = ""
    registry_token: str = ""

    def __repr__(self) -> str:
        return f"Credentials({self.username!r})"  # secrets stay out of logs


ANONYMOUS = Credentials()
