# shellcheck shell=bash
# Completion of bpf-fusefs(8). bash-completion finds it where it is installed; it can also be sourced,
# and needs nothing but bash.

# Mount options: with `=` those that have a value, and with each value those that have a few.
_bpf_fusefs_options='by_id=hidden by_id=visible config= requests=fast requests=stock
    ro rw allow_other allow_root auto_unmount default_permissions fsname= subtype=
    suid nosuid dev nodev exec noexec atime noatime diratime nodiratime sync async dirsync
    context= fscontext= defcontext= rootcontext='

_bpf_fusefs() {
    # Bash takes words apart at some characters (COMP_WORDBREAKS): of `ro,by_id=vis` it replaces
    # `vis`. `typed` is the whole word, `kept` what comes before the part that is replaced.
    local words=() word typed kept glued=
    for word in "${COMP_WORDS[@]:0:COMP_CWORD+1}"; do
        if [[ ${#words[@]} -gt 1 && ($glued || $word == [=:@]*) ]]; then
            words[-1]+=$word
        else
            words+=("$word")
        fi
        [[ $word == *[=:@] ]] && glued=yes || glued=
    done
    [[ $glued ]] && word=
    typed=${words[-1]} kept=${typed%"$word"}
    COMPREPLY=()
    if [[ ${words[-2]} == -o ]]; then
        _bpf_fusefs_list "" "$typed"
    elif [[ $typed == -o?* ]]; then
        _bpf_fusefs_list -o "${typed#-o}"
    elif [[ $typed == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W '-d -f -h --help -o --version' -- "$typed")
    else
        _bpf_fusefs_path "$typed" "${words[@]:1:${#words[@]}-2}"
    fi
    COMPREPLY=("${COMPREPLY[@]#"$kept"}")
}

# A list of mount options, $2, after $1.
_bpf_fusefs_list() {
    local last=${2##*,}
    if [[ $last == config=* ]]; then
        compopt -o default # files
    else
        compopt -o nospace # what follows may be a comma
        mapfile -t COMPREPLY < <(compgen -P "$1${2%"$last"}" -W "$_bpf_fusefs_options" -- "$last")
    fi
}

# SOURCE or MOUNTPOINT, $1, after the words that follow it here.
_bpf_fusefs_path() {
    local typed=${1//[\\\'\"]/} paths=0 target type
    while shift && [[ $# -gt 0 ]]; do
        case $1 in
            -o) shift ;;
            -*) ;;
            *) ((paths++)) ;;
        esac
    done
    [[ $paths -lt 2 ]] || return 0
    compopt -o filenames -o plusdirs
    [[ $paths == 0 ]] || return 0
    while read -r _ target type _; do
        printf -v target %b "$target" # a space is \040
        [[ $type == bpf && $target == "$typed"* ]] && COMPREPLY+=("$target")
    done </proc/self/mounts
}

complete -F _bpf_fusefs bpf-fusefs
