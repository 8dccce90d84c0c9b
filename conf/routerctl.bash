# bash-completion loads this file when it first needs it; the program knows its own commands.
eval "$(routerctl completion bash 2> /dev/null)"
