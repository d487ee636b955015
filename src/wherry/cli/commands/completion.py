"""`wherry completion`: the scripts that shells load to complete our command lines."""

from __future__ import annotations

from wherry.cli.command import Command

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from wherry.cli.flags import Parsed
    from wherry.cli.session import Session

_LOADING = {
    "bash": """To load it in the current session:

	source <(wherry completion bash)

To load it in every new session:

	wherry completion bash > /etc/bash_completion.d/wherry""",
    "zsh": """To load it in the current session:

	source <(wherry completion zsh)

To load it in every new session:

	wherry completion zsh > "${fpath[1]}/_wherry\"""",
    "fish": """To load it in the current session:

	wherry completion fish | source

To load it in every new session:

	wherry completion fish > ~/.config/fish/completions/wherry.fish""",
}


def _printer(shell: str) -> Callable[[Session, Parsed], int]:
    def run(session: Session, _: Parsed) -> int:
        from wherry.cli.completion import scripts

        session.out({"bash": scripts.BASH, "zsh": scripts.ZSH, "fish": scripts.FISH}[shell])
        return 0

    return run


def _command(shell: str) -> Command:
    long = f"Generate the autocompletion script for the {shell} shell.\n\n{_LOADING[shell]}"
    return Command("", _printer(shell), most=0, long=long)


COMMANDS = {shell: _command(shell) for shell in _LOADING}
