"""`wasi-kernel completion`: what makes a shell complete commands, options and their values.

The mechanism is click's: the shell runs `wasi-kernel` itself with a variable set, once for each
press of the key, so what is offered here must be found quickly.
https://click.palletsprojects.com/en/stable/shell-completion/
"""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

PROGRAM = "wasi-kernel"
VARIABLE = "_WASI_KERNEL_COMPLETE"
"""What the shell sets; click makes this name of the program's."""

WHERE = {
    "bash": 'eval "$(wasi-kernel completion bash)"   # in ~/.bashrc',
    "zsh": 'eval "$(wasi-kernel completion zsh)"    # in ~/.zshrc, after compinit',
    "fish": "wasi-kernel completion fish > ~/.config/fish/completions/wasi-kernel.fish",
}
"""What makes each shell complete from now on."""


@click.command(
    short_help="Make a shell complete this command.",
    epilog="\b\n" + "\n".join(f"  {line}" for line in WHERE.values()),
)
@click.argument("shell", type=click.Choice(list(WHERE)))
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print what makes SHELL complete this command: its commands, options and values.

    Put into the shell's startup file:
    """
    kind = get_completion_class(shell)
    root = context.find_root().command
    if kind is None:  # a click without it
        raise click.ClickException(f"this version of click cannot complete for {shell}")
    click.echo(kind(root, {}, PROGRAM, VARIABLE).source())
