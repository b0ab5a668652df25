#!/bin/sh
# Drains this machine before its maintenance, says so, and takes it back into service afterwards.
#
# The same as drain.py, for machines without Python: a POSIX shell with curl and awk. Asks the metadata
# service each second for Scheduled Events. While there is one for this machine it is drained: the command
# DRAIN has run, and then the event is acknowledged, so that nobody waits longer than needed. When there is
# none any more, whatever became of it, UNDRAIN runs.
#
# What it does depends only on what the last good answer says and on whether the machine is drained. So it is
# right as well when an event is cancelled, is never seen as Started, or begins without notice, and when the
# incarnation starts again at 1: it is not looked at. Without an answer everything stays as it is.
set -u
usage() {
    cat <<EOF
usage: drain.sh [options]; in the environment: DRAIN, UNDRAIN, STATE, URL
  --drain COMMAND    takes this machine out of service
  --undrain COMMAND  brings it back
  --state FILE       is there while drained: outlives a reboot
  --for-all          acknowledge also events that name other machines too
  --watch-only       write down what is seen, and do nothing
  --once             look once, do nothing; fails when there is no answer
  --url URL          where the metadata service is
  --every SECONDS    between two looks; 1
  --timeout SECONDS  for an answer; 10
  --first SECONDS    for the first answer, by which the service is switched on; 150
EOF
}

DRAIN=${DRAIN:-true} UNDRAIN=${UNDRAIN:-true} STATE=${STATE:-} URL=${URL:-http://169.254.169.254}
for_all='' watch_only='' once='' every=1 timeout=10 first=150
while [ $# -gt 0 ]; do
    case $1 in
        --for-all) for_all=1 ;;
        --watch-only) watch_only=1 ;;
        --once) watch_only=1 once=1 ;;
        --drain | --undrain | --state | --url | --every | --timeout | --first)
            [ $# -gt 1 ] || { usage >&2; exit 2; }
            case $1 in
                --drain) DRAIN=$2 ;;
                --undrain) UNDRAIN=$2 ;;
                --state) STATE=$2 ;;
                --url) URL=$2 ;;
                --every) every=$2 ;;
                --timeout) timeout=$2 ;;
                --first) first=$2 ;;
            esac
            shift ;;
        --help) usage; exit 0 ;;
        *) usage >&2; exit 2 ;;
    esac
    shift
done
EVENTS="$URL/metadata/scheduledevents?api-version=2020-07-01"
NAME="$URL/metadata/instance/compute/name?api-version=2021-02-01&format=text"
NEWLINE='
'
TAB=$(printf '\t')

log() { echo "$(date -u +%Y-%m-%dT%H:%M:%SZ) $*"; }

# One line for each change of what is wrong with $1, a word; $2 is "" when nothing is.
complain() {
    eval "before=\${wrong_$1-} wrong_$1=\$2"
    [ "$before" = "$2" ] || log "$1: ${2:-well again}"
}

# Ask the metadata service, which is never behind a proxy; its answer is left in $body. Fails, and says why in
# $body, when there is none within $1 seconds.
ask() {
    body=$(curl -sS --noproxy '*' -H 'Metadata: true' -w '\n%{http_code}' -m "$@" 2>&1) || {
        body=${body#*curl: } body=${body%%"$NEWLINE"*}
        return 1
    }
    code=${body##*"$NEWLINE"} body=${body%"$NEWLINE"*}
    [ "$code" = 200 ] || { body="HTTP $code"; return 1; }
}

# The events in a document, one a line, tab-separated: id, type, status, whom it is for (alone: this machine,
# mine: others too, others), not before, resources. Fails when it is no such document. This is all of JSON but
# the escapes of other characters than " \ and /.
events() {
    printf '%s\n' "$1" | awk -v name="$name" '
        { text = text $0 "\n" }
        END {
            depth = 0
            while (text != "") {
                if (match(text, /^[ \t\r\n]+/)) {
                } else if (match(text, /^"([^"\\]|\\.)*"/)) {
                    value = substr(text, 2, RLENGTH - 2)
                    gsub(/\\\//, "/", value); gsub(/\\"/, "\"", value); gsub(/\\\\/, "\\", value)
                    gsub(/[\t\r\n]/, " ", value)
                    said(value)
                } else if (match(text, /^[-+.0-9a-zA-Z]+/)) {
                    said(substr(text, 1, RLENGTH))
                } else if (match(text, /^[][{},:]/)) {
                    sign(substr(text, 1, 1))
                } else
                    exit 1
                text = substr(text, RLENGTH + 1)
            }
            exit depth != 0 || !complete
        }
        function sign(c) {
            if (c == ":") key[depth] = last
            if (c == "{" || c == "[") {
                open[++depth] = c; key[depth] = ""; in_list[depth] = c == "["
                if (depth == 3 && key[1] == "Events" && c == "[") exit 1
                if (depth == 3) { id = type = status = when = who = ""; mine = others = 0 }
            }
            if (c == "}" || c == "]") {
                if (depth == 0 || open[depth] != (c == "}" ? "{" : "[")) exit 1
                if (depth == 3 && key[1] == "Events" && c == "}") {
                    if (id == "" || type == "" || status == "" || who == "") exit 1
                    whose = !mine ? "others" : others ? "mine" : "alone"
                    print id "\t" type "\t" status "\t" whose "\t" (when == "" ? "-" : when) "\t" who
                }
                if (depth == 2 && key[1] == "Events" && c == "]") complete = 1
                depth--
            }
            if (c == "," && !in_list[depth]) key[depth] = ""
        }
        function said(value) {
            last = value
            if (key[1] != "Events") return
            if (depth < 3 && !(depth == 1 && value == "Events")) exit 1
            if (depth == 4 && key[3] == "Resources") {
                who = who (who == "" ? "" : " ") value
                if (value == name) mine = 1; else others = 1
            }
            if (depth == 3 && key[3] == "EventId") id = value
            if (depth == 3 && key[3] == "EventType") type = value
            if (depth == 3 && key[3] == "EventStatus") status = value
            if (depth == 3 && key[3] == "NotBefore") when = value
        }'
}

# One line for each change from the events before to those now.
tell() {
    while IFS=$TAB read -r id type status whose when who; do
        [ -n "$id" ] || continue
        case "$NEWLINE$seen" in *"$NEWLINE$id$TAB$type$TAB$status$TAB"*) continue ;; esac
        [ "$when" = - ] && when='' || when=", not before $when,"
        [ "$whose" = others ] && who="$who (others)"
        log "$id $type $status$when for $who"
    done <<EOF
$1
EOF
    while IFS=$TAB read -r id _; do
        [ -n "$id" ] || continue
        case "$NEWLINE$1" in *"$NEWLINE$id$TAB"*) ;; *) log "$id gone" ;; esac
    done <<EOF
$seen
EOF
    seen=$1
}

# Run one of the user's commands, $2, told the event, if any.
run() {
    EVENT_ID=${3-} EVENT_TYPE=${4-} /bin/sh -c "$2" </dev/null || {
        complain "$1" "ended with $?, is tried again"
        return 1
    }
    complain "$1" ''
}

act() {
    mine=$(printf '%s\n' "$1" | grep "$TAB\(mine\|alone\)$TAB")
    IFS=$TAB read -r id type _ <<EOF
$mine
EOF
    if [ -n "$mine" ] && [ -z "$drained" ]; then
        run DRAIN "$DRAIN" "$id" "$type" || return
        drained=1
        [ -z "$STATE" ] || : >"$STATE"
        log drained
    elif [ -z "$mine" ] && [ -n "$drained" ]; then
        run UNDRAIN "$UNDRAIN" || return
        drained=''
        [ -z "$STATE" ] || rm -f "$STATE"
        log 'back in service'
    fi
    while IFS=$TAB read -r id _ status whose _; do
        [ "$status" = Scheduled ] || continue
        [ "$whose" = alone ] || [ -n "$for_all" ] || continue
        # Let it begin now, on behalf of all machines that it names. When that fails it is still Scheduled, or
        # gone: the next answer tells.
        if ask "$timeout" -d "{\"StartRequests\": [{\"EventId\": \"$id\"}]}" "$EVENTS"; then
            log "$id acknowledged"
            complain acknowledging ''
        else
            complain acknowledging "$body"
        fi
    done <<EOF
$mine
EOF
}

# Ask once, and do what follows. Fails when there was no answer.
turn() {
    if [ -z "$name" ]; then
        ask "$timeout" "$NAME" || { complain service "$body"; return 1; }
        [ -n "$body" ] || { complain service 'no name in the answer'; return 1; }
        # In events this machine has this name, which need not be the host name.
        name=$body
        log "this is $name${drained:+, drained}"
    fi
    ask "$first" "$EVENTS" || { complain service "$body"; return 1; }
    found=$(events "$body") || { complain service 'no events in the answer'; return 1; }
    complain service ''
    first=$timeout
    tell "$found"
    [ -n "$watch_only" ] || act "$found"
    return 0
}

name='' seen='' drained='' before='' pause=1
[ -n "$STATE" ] && [ -e "$STATE" ] && drained=1
while :; do
    if turn; then pause=1; answered=0; else pause=$((pause < 8 ? pause * 2 : 10)); answered=1; fi
    [ -z "$once" ] || exit "$answered"
    i=0
    while [ "$i" -lt "$pause" ]; do
        sleep "$every"
        i=$((i + 1))
    done
done
