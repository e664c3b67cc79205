"""`canarium completion SHELL`: a script for bash, zsh or fish; each asks `canarium __complete WORD...`."""

from enum import StrEnum
from typing import Annotated, Final

import typer

from canarium_cli import options

app = options.new_app()


class Shell(StrEnum):
    """Shells that are known."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


SCRIPTS: Final = {
    Shell.BASH: r"""# canarium completion bash; for each shell: source <(canarium completion bash)
_canarium() {
    local IFS=$'\n' line
    COMPREPLY=()
    while read -r line; do
        COMPREPLY+=("${line%%$'\t'*}")
    done < <(canarium __complete "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
    if [[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *= ]]; then
        compopt -o nospace
    fi
}
complete -o default -F _canarium canarium
""",
    Shell.ZSH: r"""#compdef canarium
# canarium completion zsh; for each shell: source <(canarium completion zsh), after compinit
_canarium() {
    local line
    local -a found
    while IFS= read -r line; do
        if [[ $line == *$'\t'* ]]; then
            found+=("${${line%%$'\t'*}//:/\\:}:${line#*$'\t'}")
        else
            found+=("${line//:/\\:}")
        fi
    done < <(canarium __complete "${(@)words[2,CURRENT]}" 2>/dev/null)
    if (( ${#found} )); then
        _describe canarium found
    else
        _files
    fi
}
if [[ $funcstack[1] == _canarium ]]; then
    _canarium "$@"
else
    compdef _canarium canarium
fi
""",
    Shell.FISH: r"""# canarium completion fish > ~/.config/fish/completions/canarium.fish
function __canarium_complete
    set -l words (commandline -opc)
    set -l found (canarium __complete $words[2..] (commandline -ct) 2>/dev/null)
    if test -n "$found"
        printf '%s\n' $found
    else
        __fish_complete_path (commandline -ct)
    end
end
complete -c canarium -f -a '(__canarium_complete)'
""",
}


@app.command()
def completion(
    shell: Annotated[Shell, typer.Argument(help="Whose script is printed.")],
) -> None:
    """Print a script that lets a shell complete commands, options, and names from the cluster.

    bash: source <(canarium completion bash). zsh: source <(canarium completion zsh), after compinit. fish: canarium
    completion fish > ~/.config/fish/completions/canarium.fish. For kubectl canarium nothing is needed: kubectl's own
    completion finds kubectl_complete-canarium on the PATH.
    """
    print(SCRIPTS[shell], end="")


def application(_word: str) -> typer.Typer:
    """Give the app, for completion and the reference."""
    return app


def main() -> int:
    """Run the command that `sys.argv` holds, and leave with its exit status."""
    app(prog_name=options.program())
    return 0
