"""Completion in the shells themselves: commands, options, and the names of providers."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
BASH = """
source $1
complete_line() { COMP_WORDS=($1); COMP_CWORD=$((${#COMP_WORDS[@]} - 1)); _openproto_completion openproto; }
for line in "openproto sear" "openproto list --sco" "openproto list --provider pass"; do
    complete_line "$line"; echo "${COMPREPLY[@]}"
done
"""
FISH = """
source $argv[1]
for line in "openproto sear" "openproto list --sco" "openproto list --provider pass"; complete -C $line; end
"""
ZSH = r"""
zmodload zsh/zpty
zpty shell zsh -f -i
zpty -w shell "autoload -U compinit; compinit -u -D; source $1; print re''ady"
zpty -r shell shown '*ready*'
for pair in 'openproto sear:*search*' 'openproto list --sco:*scope*' 'openproto list --provider pass:*passthrough*'; do
    zpty -w -n shell "${pair%:*}"$'\t'
    zpty -r -m shell shown "${pair#*:}" || exit 1
    print -r -- $shown
    zpty -w -n shell $'\x15'
done
"""


@pytest.mark.operating
@pytest.mark.parametrize(("shell", "program"), [("bash", BASH), ("zsh", ZSH), ("fish", FISH)])
def test_a_shell_completes_commands_options_and_providers(shell: str, program: str, tmp_path: Path) -> None:
    kept = {**os.environ, "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}"}
    run = partial(subprocess.run, capture_output=True, text=True, timeout=60)
    script, completion = tmp_path / "program", tmp_path / "completion"
    completion.write_text(run(["openproto"], env={**kept, "_OPENPROTO_COMPLETE": f"source_{shell}"}).stdout)
    script.write_text(program)
    done = run([shell, script, completion], env=kept)
    assert done.returncode == 0, done.stderr
    assert all(word in done.stdout for word in ("search", "--scope", "passthrough")), done.stdout
