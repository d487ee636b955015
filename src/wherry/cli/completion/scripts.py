"""The scripts that shells load. Each asks `wherry __complete` at every key and shows what that answers."""

from __future__ import annotations

# In bash, = and : break words; they are put together again, and what readline has of them is cut off the candidates.
BASH = r"""# bash completion for wherry

_wherry() {
    local rest=${COMP_LINE:0:COMP_POINT} words=() word line directive prefix candidates=()
    local i
    COMPREPLY=()
    for ((i = 0; i <= COMP_CWORD; i++)); do
        word=${COMP_WORDS[i]}
        if ((i)) && [[ -n $rest && $rest != [[:space:]]* ]]; then
            words[${#words[@]} - 1]+=$word
        elif ((i && i == COMP_CWORD)) && [[ -z $rest && -z $word && ${COMP_LINE:COMP_POINT-1:1} != [[:space:]] ]]; then
            :
        else
            words+=("$word")
        fi
        rest=${rest#"${rest%%[![:space:]]*}"}
        rest=${rest#"$word"}
    done
    ((${#words[@]} > 1)) || words+=("")
    while IFS= read -r line; do
        if [[ $line == :* ]]; then directive=${line#:}; else candidates+=("${line%%$'\t'*}"); fi
    done < <("${words[0]/#\~/$HOME}" __complete "${words[@]:1}" 2>/dev/null)
    directive=${directive:-0}
    word=${words[${#words[@]} - 1]}
    if ((directive & 16)); then
        compopt -o dirnames 2>/dev/null
    elif ((!(directive & 4) && ${#candidates[@]} == 0)); then
        compopt -o default 2>/dev/null
    fi
    if ((directive & 2)) && ((${#candidates[@]} > 0)); then
        compopt -o nospace 2>/dev/null
    fi
    prefix=${word%"${word##*["${COMP_WORDBREAKS//[^=:]/}"]}"}
    [[ ${COMP_WORDBREAKS} == *[=:]* ]] || prefix=
    for line in "${candidates[@]}"; do
        COMPREPLY+=("${line#"$prefix"}")
    done
}

complete -F _wherry wherry
"""

ZSH = r"""#compdef wherry
# zsh completion for wherry

_wherry() {
    local -a lines values
    local line value about directive
    lines=("${(@f)$(${(Q)~words[1]} __complete "${(@Q)words[2,CURRENT]}" 2>/dev/null)}")
    directive=${${lines[-1]}#:}
    lines[-1]=()
    for line in $lines; do
        value=${line%%$'\t'*}
        about=${line#*$'\t'}
        [[ $line == *$'\t'* ]] || about=
        values+=("${value//:/\\:}${about:+:$about}")
    done
    if ((directive & 16)); then
        _files -/
    elif ((${#values} == 0)); then
        ((directive & 4)) || _files
    elif ((directive & 2)); then
        _describe -V wherry values -S ''
    else
        _describe -V wherry values
    fi
}

if [ "$funcstack[1]" = "_wherry" ]; then
    _wherry
else
    compdef _wherry wherry
fi
"""

FISH = r"""# fish completion for wherry

function __wherry_complete
    set -l words (commandline -opc)
    set -l word (commandline -ct)
    set -l lines ($words[1] __complete $words[2..-1] "$word" 2>/dev/null)
    set -l directive (string replace -r '^:' '' -- $lines[-1])
    set -e lines[-1]
    if test (count $lines) -gt 0
        printf '%s\n' $lines
    else if test (math "bitand($directive, 16)") -ne 0
        __fish_complete_directories "$word"
    else if test (math "bitand($directive, 4)") -eq 0
        __fish_complete_path "$word"
    end
end

complete -c wherry -e
complete -c wherry -f -k -a '(__wherry_complete)'
"""
